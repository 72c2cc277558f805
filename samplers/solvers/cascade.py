"""DC-Solver's ratios for runs that were not searched: a polynomial through many searches."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import numpy as np

from fewstep.finite import finite
from fewstep.samplers.solvers.ratios import RatioFile, check_ratios
from fewstep.schedules.process import Array

CLAMP = (0.4, 1.5)  # of predicted ratios, or the range of the fitted ones where that is wider


@dataclass(frozen=True)
class CascadePolynomial(RatioFile):
    """Ratios for any number of calls and guidance scale (arXiv:2409.03755, eq. 14 to 16).

    ratio_i = sum_k A_k u^k with u = i / nfe, i from 1; A_k is quadratic in scale / 12, and its
    coefficients are quadratic in nfe / 50. Calls before ``first`` have ratio 1 (the paper: 3).

    Attributes:
        coefficients: (36,) numbers of (u^k, (scale / 12)^m, (nfe / 50)^n), k slowest.
        nfe, guidance_scale: least and most of the searches it was fitted to.
        clamp: least and most ratio that is given.
        first: number, from 1, of the first call that is compensated.
    """

    kind: ClassVar[str] = "fewstep.cascade"

    coefficients: tuple[float, ...]
    nfe: tuple[int, int]
    guidance_scale: tuple[float, float]
    clamp: tuple[float, float] = CLAMP
    first: int = 2

    def __post_init__(self) -> None:
        if len(self.coefficients) != 36 or not all(map(math.isfinite, self.coefficients)):
            raise ValueError(
                f"a cascade polynomial has 36 finite coefficients, got {len(self.coefficients)}"
            )
        if self.first < 2:
            raise ValueError(f"first must be at least 2, got {self.first}: call 1 has ratio 1")

    @classmethod
    def fit(
        cls, searches: Sequence[tuple[int, float, Sequence[float]]], *, first: int = 2
    ) -> "CascadePolynomial":
        """Least squares over searches; the smallest coefficients where they leave a choice.

        Args:
            searches: (nfe, guidance scale, ratios) of each.
            first: number of the first call that they compensate.

        Raises:
            ValueError: without a ratio to fit, or for malformed ones.
        """
        rows, targets = [], []
        for nfe, scale, ratios in searches:
            check_ratios(ratios, nfe)
            for i in range(first, nfe + 1):
                rows.append(_features(i, nfe, scale))
                targets.append(float(ratios[i - 1]))
        if not rows:
            raise ValueError("nothing to fit: pass [(nfe, guidance_scale, ratios), ...], nfe >= 2")
        unbounded = "guidance scales of the searches must be finite"
        solution = np.linalg.lstsq(
            finite(np.array(rows), unbounded), np.array(targets), rcond=None
        )[0]
        calls, scales = [n for n, _, _ in searches], [float(s) for _, s, _ in searches]
        clamp = min(CLAMP[0], *targets), max(CLAMP[1], *targets)
        ends = (min(calls), max(calls)), (min(scales), max(scales))
        return cls(tuple(map(float, solution)), *ends, clamp, first)

    def ratios(self, nfe: int, guidance_scale: float = 1.0) -> list[float]:
        """One ratio for each call, clamped; warns outside the box of the searches."""
        for what, value, (low, high) in (
            ("nfe", nfe, self.nfe), ("guidance scale", guidance_scale, self.guidance_scale),
        ):  # fmt: skip
            if not low <= value <= high:
                warnings.warn(
                    f"ratios for {what} {value:g} are extrapolated: the searches cover "
                    f"{low:g} to {high:g}",
                    stacklevel=2,
                )
        beyond = range(self.first, nfe + 1)
        values = [float(_features(i, nfe, guidance_scale) @ self.coefficients) for i in beyond]
        return ([1.0] * (self.first - 1) + [float(np.clip(v, *self.clamp)) for v in values])[:nfe]


def _features(i: int, nfe: int, scale: float) -> Array:
    powers = product(range(4), range(3), range(3))
    return np.array([(i / nfe) ** k * (scale / 12) ** m * (nfe / 50) ** n for k, m, n in powers])
