"""What pipelines of diffusers hand to ``step`` beside the sample."""

from typing import Any

from fewstep.samplers.adapter.index import SHARED, Position
from fewstep.samplers.solvers.registry import SAMPLERS


def check_arguments(
    scheduler: Any,
    position: Position,
    timestep: Any,
    eta: float,
    prev_timestep: Any,
    per_token_timesteps: Any,
) -> None:
    """Accepts what the plan does anyway, and refuses the rest.

    Args:
        scheduler: one of ours.
        position: of its run.
        timestep: the entry of this step.
        eta: DDIM's share of noise.
        prev_timestep: the time that the step is to end at.
        per_token_timesteps: a time for each token.

    Raises:
        ValueError: for an ``eta`` that the plan was not made with, a time that is not the next
            entry, or times by token.
    """
    if per_token_timesteps is not None:
        raise ValueError(
            "per_token_timesteps= gives each token a time of its own (LTX with image conditions, "
            "SANA-WM), and a plan has one for the whole sample: keep the pipeline's own scheduler"
        )
    known = "eta" in SAMPLERS[scheduler.sampler].options()
    if eta and not (known and eta == scheduler.config.eta):
        name = type(scheduler).__name__
        remedy = name if known else f"{name} has no eta, call DDIM"
        raise ValueError(
            f"eta={eta:g} of step() would change a plan that is made: "
            f"{'call ' if known else ''}{remedy}.from_config(config, eta={eta:g})"
        )
    seen = position.view(prev_timestep)
    if seen is not None and seen != position.peek(timestep) + 1:
        raise ValueError(
            f"prev_timestep is entry {seen} of timesteps, and the plan goes on to entry "
            f"{position.peek(timestep) + 1}: {SHARED}"
        )
