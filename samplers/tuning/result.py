"""What tuning gives back."""

import warnings
from dataclasses import dataclass

from fewstep.samplers.core.plan import Plan
from fewstep.samplers.tuning.polish import Entry


@dataclass(frozen=True)
class Tuned:
    """What tuning found.

    Attributes:
        plan: the tuned one, or the start if nothing was gained.
        start: the fixed solver it is compared with, the best of a scan.
        spec: of the start.
        family: what kind of numbers were tuned.
        improved: whether ``plan`` is another than the start.
        size: how many numbers were free.
        tune, select: root mean square errors of ``plan`` on the two sets of noises.
        select_before: that of the start on the selection noises.
        history: losses of the steps that led to ``plan``, before the first and after each.
        calls: network calls for each tuning noise, those of the scan included.
        seconds: that it took.
    """

    plan: Plan
    start: Plan
    spec: str
    family: str
    improved: bool
    size: int
    tune: float
    select: float
    select_before: float
    history: tuple[Entry, ...]
    calls: float
    seconds: float

    @property
    def landing(self) -> float | None:
        """sigma / alpha where a jump lands; None for a plan that starts as usual."""
        return self.plan.provenance.get("landing")


def warn_no_gain(what: str, before: float, after: float, spec: str) -> None:
    """Says that the start is kept; for the function that a user called."""
    warnings.warn(
        f"{what} gains nothing on the selection noises (error {before:.4g} before, {after:.4g} "
        f"after): the table of {spec!r} is kept",
        stacklevel=3,
    )
