"""The noise process that an identity names, as far as it says it."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from fewstep.schedules.discrete import DiscreteVP, discrete_vp
from fewstep.schedules.limits import check_train_times
from fewstep.schedules.process import VE, ContinuousVP, Flow, NoiseProcess

# Tables that pipelines name; an identity has the hash of a table alone.
BETAS: tuple[dict[str, Any], ...] = (
    {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
    {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    {"beta_schedule": "linear", "beta_start": 0.00085, "beta_end": 0.012},
    {"beta_schedule": "squaredcos_cap_v2"},
)


def process_named(identity: Mapping[str, Any]) -> NoiseProcess | None:
    """The process of :meth:`NoiseProcess.identity`; None for a table or a class not known here.

    Raises:
        ValueError: for an identity of a known kind with entries that it cannot have.
    """
    kind = identity.get("process")
    given = {key: value for key, value in identity.items() if key != "process"}
    classes: dict[str, type[NoiseProcess]] = {
        "vp-continuous": ContinuousVP, "ve": VE, "flow": Flow
    }  # fmt: skip
    try:
        if kind in classes:
            return classes[kind](**given)
        if kind == "vp-discrete":
            times = check_train_times(given["times"], 2, "times of a table")
            return _tables(times).get(str(given["sha256"]))
    except (TypeError, KeyError, OverflowError) as error:
        raise ValueError(f"a process {dict(identity)!r} is none of {kind}") from error
    return None


@lru_cache(maxsize=8)
def _tables(times: int) -> dict[str, DiscreteVP]:
    """The tables that pipelines name, of so many times, by their hashes."""
    made = [
        discrete_vp(**betas, num_train_timesteps=times, zero_terminal_snr=silent)
        for betas in BETAS
        for silent in (False, True)
    ]
    return {str(table.identity()["sha256"]): table for table in made}
