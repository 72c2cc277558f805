"""Results of runs that differ in their seeds only, shown whole.

edm and edm2 report the smallest of three FIDs; without the others one cannot tell luck from
progress.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean, stdev


@dataclass(frozen=True)
class Summary:
    """All values of one metric, in the order of the runs.

    Args:
        values: one or more.

    Raises:
        ValueError: without a value.
    """

    values: tuple[float, ...]

    def __init__(self, values: Iterable[float]) -> None:
        object.__setattr__(self, "values", tuple(values))
        if not self.values:
            raise ValueError("a summary needs at least one value; run at least once")

    @property
    def min(self) -> float:
        """The smallest, which some harnesses report alone."""
        return min(self.values)

    @property
    def mean(self) -> float:
        return fmean(self.values)

    @property
    def sd(self) -> float:
        """With divisor n - 1; nan of one value, or if one is not finite: a run that diverged."""
        spread = len(self.values) > 1 and all(map(math.isfinite, self.values))
        return stdev(self.values) if spread else math.nan

    def __str__(self) -> str:
        """All in one line: ``1.98 1.97 2.01 (min 1.97, mean 1.987, sd 0.02082)``."""
        values = " ".join(f"{value:.4g}" for value in self.values)
        if len(self.values) == 1:
            return values
        return f"{values} (min {self.min:.4g}, mean {self.mean:.4g}, sd {self.sd:.4g})"
