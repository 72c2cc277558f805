"""What every front door is asked for: a sampler, and a number of calls."""

from pathlib import Path
from typing import Any

from fewstep.checks import named, whole
from fewstep.samplers.core.plan import Plan

SCHEDULER = ("plan", "breakpoints", "set_timesteps")


def check_sampler(sampler: Any) -> None:
    """Raises TypeError for what is no spec, path, plan or scheduler of ours."""
    if isinstance(sampler, str | Path | Plan):
        return
    if not isinstance(sampler, type) and all(hasattr(sampler, name) for name in SCHEDULER):
        return
    remedy = "write a spec, as 'unipc' or 'dpmpp:order=3'"
    if isinstance(sampler, type):
        remedy = f"make one, {sampler.__name__}(), or {remedy}"
    elif hasattr(sampler, "set_timesteps"):
        remedy = f"take one of ours, as fewstep.UniPC.from_config(scheduler.config), or {remedy}"
    raise TypeError(
        "sampler must be a spec, a plan, the path of one or a scheduler of fewstep, got "
        f"{named(sampler)}: {remedy}"
    )


def call_count(nfe: Any) -> int | None:
    """``nfe`` as an int; None stays None.

    Raises:
        TypeError: for anything but a whole number.
    """
    if nfe is None:
        return None
    return whole(nfe, "nfe, the number of network calls, must be a whole number such as 8")
