"""What a Restart run is made of, apart from its grid; and the paper's configurations by name."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fewstep.samplers.core.plan import Plan
from fewstep.samplers.solvers.spec import Sampler, parse_spec
from fewstep.schedules.grids import Grid
from fewstep.schedules.limits import MAX_CALLS, at_most
from fewstep.schedules.process import VE

# The automatic intervals (low, high), the share of the calls that they get together, and the least
# number of calls from which there are any.
AUTO = ((0.1, 0.5), (1.0, 4.0))
AUTO_SHARE = 0.4
AUTO_FROM = 18


@dataclass(frozen=True)
class Interval:
    """Climb from ratio ``low`` to ``high`` and come down through ``points`` nodes, ``times`` over.

    Raises:
        ValueError: for numbers that make no interval.
    """

    points: int
    times: int
    low: float
    high: float

    def __post_init__(self) -> None:
        whole = all(isinstance(x, int) for x in (self.points, self.times))
        levels = 0 < self.low < self.high < math.inf
        if not (whole and self.points >= 2 and self.times >= 0 and levels):
            raise ValueError(
                "a Restart interval is [points >= 2, times >= 0, low, high] with 0 < low < high in "
                f"sigma / alpha, got {[self.points, self.times, self.low, self.high]}"
            )
        at_most("the points of a Restart interval", self.points, MAX_CALLS)
        at_most("the times of a Restart interval", self.times, MAX_CALLS)


@dataclass(frozen=True)
class Inner:
    """A solver by spec, for parts of a grid."""

    sampler: Sampler
    options: Mapping[str, Any]

    @classmethod
    def parse(cls, text: str) -> "Inner":
        """Reads a spec without grid options.

        Raises:
            ValueError: for an unknown solver, one that is itself Restart, or grid options.
        """
        spec = parse_spec(text)
        if spec.name == "restart" or spec.grid:
            raise ValueError(
                f"the solver inside Restart is a spec without grid options, and not restart; got "
                f"{text!r}: give the grid to Restart itself"
            )
        return cls(spec.sampler, {**spec.sampler.options(), **spec.options})

    def calls(self, grid: Grid) -> int:
        return self.sampler.calls(grid, self.options)

    def calls_of(self, steps: int) -> int:
        """The most calls on a grid of so many steps that ends with noise."""
        levels = np.linspace(2.0, 1.0, steps + 1)
        return self.calls(Grid(VE(), levels, levels))

    @property
    def lost(self) -> int:
        """Calls that fit no more onto a grid when it is cut in two."""
        return max(0, self.calls_of(8) - 2 * self.calls_of(4))

    def steps(self, nfe: int, without_signal: bool, ends_at_zero: bool) -> int:
        return self.sampler.paid(nfe, without_signal, ends_at_zero, self.options)

    def plan(self, grid: Grid, nfe: int) -> Plan:
        options = dict(self.options)
        if grid.rho[-1] > 0 and "lower_order_final" in options:
            options["lower_order_final"] = False  # there is no last step to zero to protect
        return self.sampler.plan(grid, nfe, options)


@dataclass(frozen=True)
class Recipe:
    """Everything about Restart that does not depend on the grid."""

    intervals: str | tuple[Interval, ...]
    solver: str
    inner: str
    noise_scale: float
    nfe: int | None = None  # that a preset insists on

    @cached_property
    def main(self) -> Inner:
        return Inner.parse(self.solver)

    @cached_property
    def inside(self) -> Inner:
        return Inner.parse(self.inner or self.solver)

    def extra(self, chosen: Sequence[Interval]) -> int:
        """Calls that the intervals take."""
        calls = self.inside.calls_of
        return sum(interval.times * calls(interval.points - 1) for interval in chosen)

    def chosen(self, nfe: int) -> tuple[Interval, ...]:
        """The intervals of a run of ``nfe`` calls."""
        if self.nfe is not None and nfe != self.nfe:
            raise ValueError(f"this Restart preset makes {self.nfe} calls, not {nfe}")
        if not isinstance(self.intervals, str):
            return self.intervals
        if nfe < AUTO_FROM:
            return ()
        budget = nfe * AUTO_SHARE / len(AUTO)
        # Passes of two steps, as in the paper, while calls are few; then the square root of what
        # there is goes into their steps, so that their error falls as well.
        steps = max(2, round(math.sqrt(budget / 2)))
        times = math.floor(budget / self.inside.calls_of(steps))
        return tuple(Interval(steps + 1, times, *ends) for ends in AUTO if times)


def recipe(
    intervals: str | Sequence[Sequence[float]] = "auto",
    solver: str = "unipc",
    inner: str = "",
    noise_scale: float = 1.0,
    preset: str = "",
) -> Recipe:
    """The options of :func:`fewstep.samplers.solvers.restart.restart`, checked.

    Raises:
        ValueError: for an unknown preset or malformed intervals.
    """
    if preset:
        if preset not in PRESETS:
            raise ValueError(f"unknown preset {preset!r} of Restart; known: {', '.join(PRESETS)}")
        return PRESETS[preset]
    if isinstance(intervals, str) and intervals == "auto":
        return Recipe(intervals, solver, inner, noise_scale)
    if isinstance(intervals, str) or not isinstance(intervals, Sequence):
        raise ValueError(
            f"intervals must be 'auto' or [[points, times, low, high], ...], got {intervals!r}"
        )
    listed = tuple(_interval(entry) for entry in intervals)
    return Recipe(tuple(i for i in listed if i.times), solver, inner, noise_scale)


def _interval(entry: Any) -> Interval:
    try:
        points, times, low, high = map(float, entry)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f"a Restart interval is [points, times, low, high], got {entry!r}"
        ) from None
    # What is no whole number stays as it is, for Interval to refuse.
    whole: list[Any] = [int(x) if x.is_integer() else x for x in (points, times)]
    return Interval(whole[0], whole[1], low, high)


def _paper(
    nfe: int,
    *intervals: tuple[int, int, float, float],
    noise_scale: float = 1.003,
    solver: str = "heun",
    inner: str = "",
) -> Recipe:
    return Recipe(tuple(Interval(*i) for i in intervals), solver, inner, noise_scale, nfe)


_FIVE = ((19.35, 40.79), (1.09, 1.92), (0.59, 1.09), (0.30, 0.59), (0.06, 0.30))


def _imagenet(nfe: int, *sizes: tuple[int, int]) -> Recipe:
    return _paper(nfe, *((*size, *ends) for size, ends in zip(sizes, _FIVE, strict=True)))


# arXiv:2306.14878, appendix C; the pixel models on EDM's grid (``grid=karras``).
PRESETS: dict[str, Recipe] = {
    **{
        f"cifar10-vp-{nfe}": _paper(nfe, (3, times, 0.06, 0.30), noise_scale=1.0)
        for nfe, times in ((43, 2), (55, 5), (75, 10), (115, 20))
    },
    "cifar10-vp-519": _paper(519, (9, 30, 0.06, 0.20), noise_scale=1.0),
    "cifar10-edm-43": _paper(43, (3, 2, 0.14, 0.30), noise_scale=1.0),
    # DPM-Solver-3 in the paper, DPM-Solver++(3S) here: one block of three calls in the interval.
    "cifar10-vp-dpm-27": _paper(
        27, (4, 1, 0.06, 0.30), noise_scale=1.0, solver="singlestep:order=3"
    ),
    **{
        f"cifar10-vp-dpm-{nfe}": _paper(
            nfe, (4, 1, 0.06, 1.0), noise_scale=1.0, solver="singlestep:order=3"
        )
        for nfe in (24, 21, 18)
    },
    "imagenet64-39": _paper(39, (3, 1, 19.35, 40.79), (3, 1, 1.09, 1.92), (3, 1, 0.06, 0.30)),
    "imagenet64-67": _paper(
        67, (5, 1, 19.35, 40.79), (5, 1, 1.09, 1.92), (5, 1, 0.59, 1.09), (5, 1, 0.06, 0.30)
    ),
    "imagenet64-99": _imagenet(99, (3, 1), (4, 1), (4, 4), (4, 1), (4, 4)),
    "imagenet64-165": _imagenet(165, (3, 1), (4, 1), (4, 5), (4, 5), (4, 10)),
    "imagenet64-203": _imagenet(203, (4, 1), (4, 1), (4, 5), (4, 5), (6, 6)),
    "imagenet64-385": _imagenet(385, (3, 1), (6, 1), (6, 5), (6, 5), (6, 20)),
    "imagenet64-535": _imagenet(535, (6, 1), (6, 1), (7, 6), (7, 6), (7, 25)),
    "imagenet64-623": _imagenet(623, (10, 3), (10, 3), (7, 6), (7, 6), (7, 25)),
    # Stable Diffusion 1.5 by guidance scale: 30 DDIM steps, Heun's method inside.
    "sd15-w2": _paper(
        62, (5, 2, 1.0, 9.0), (5, 2, 5.0, 10.0), noise_scale=1.0, solver="ddim", inner="heun"
    ),
    "sd15-w3": _paper(66, (10, 2, 0.1, 3.0), noise_scale=1.0, solver="ddim", inner="heun"),
    "sd15-w5": _paper(66, (10, 2, 0.1, 2.0), noise_scale=1.0, solver="ddim", inner="heun"),
    "sd15-w8": _paper(66, (10, 2, 0.1, 2.0), noise_scale=1.0, solver="ddim", inner="heun"),
}
