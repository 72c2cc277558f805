"""Modifiers that switch a direction on and off, or change how strong it is."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from fewstep.guidance.context import Context
from fewstep.guidance.expression import Expression, Modifier
from fewstep.guidance.rows import Direction
from fewstep.guidance.sources.contrast import Autoguidance, Contrast
from fewstep.types import RunFacts

TOLERANCE = 1e-6  # of a level that a grid put onto an edge


@dataclass(frozen=True)
class Interval(Modifier):
    """Guides where lo < sigma / alpha <= hi, and costs nothing elsewhere.

    The level is that at which the solver step starts, so that all calls of a step agree. Grids move
    nodes onto the edges and multistep solvers restart there: without that their order is lost.

    Args:
        lo, hi: 0 <= lo < hi, ratios sigma / alpha; hi may be inf. (EDM2-XXL: .19, 1.61.)

    Raises:
        ValueError: for other bounds, and before sampling if no level lies inside.

    Reference:
        Kynkaanniemi et al. 2024, arXiv:2404.07724, eq. 5.
    """

    lo: float
    hi: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lo) and 0 <= self.lo < self.hi):
            raise ValueError(
                f"Interval(lo, hi) takes ratios sigma / alpha with 0 <= lo < hi, got {self.lo}, "
                f"{self.hi}"
            )

    def holds(self, rho: float) -> bool:
        """Whether a step that starts at this ratio is guided."""
        return self.lo * (1 + TOLERANCE) < rho <= self.hi * (1 + TOLERANCE)

    def gate(self, ctx: Context) -> bool:
        return self.holds(ctx.level.gate_rho)

    def edges(self) -> tuple[float, ...]:
        return tuple(edge for edge in (self.lo, self.hi) if 0 < edge < math.inf)

    def check(self, run: RunFacts) -> None:
        levels = [level.gate_rho for level in run.levels]
        if not any(map(self.holds, levels)):
            raise ValueError(
                f"{self} contains none of the sampler's levels, which go from {max(levels):.4g} to "
                f"{min(levels):.4g}: widen it, or take more calls"
            )

    def __str__(self) -> str:
        return f"Interval({self.lo:g}, {self.hi:g})"


@dataclass(frozen=True)
class Every(Modifier):
    """Guides every n-th solver step, the first included.

    The scale then jumps from step to step: take a solver that looks back at nothing.

    Args:
        n: >= 1.

    Raises:
        ValueError: for another n.
    """

    n: int
    is_field = False

    def __post_init__(self) -> None:
        if isinstance(self.n, bool) or not isinstance(self.n, int) or self.n < 1:
            raise ValueError(f"Every(n) takes a whole number >= 1, got {self.n!r}")

    def gate(self, ctx: Context) -> bool:
        return ctx.level.step % self.n == 0


SCHEDULES: dict[str, Callable[[float], float]] = {
    "linear": lambda u: 2 * u,
    "cosine": lambda u: 1 - math.cos(math.pi * u),
}


@dataclass(frozen=True)
class ScaleSchedule(Modifier):
    """Multiplies w - 1 by a function of how far the run is.

    Args:
        factor: of u, which goes from 0 at the most noise of the process to 1 at the least, linear
            in network time; or ``"linear"`` (2 u) or ``"cosine"`` (1 - cos pi u), of mean 1.

    Raises:
        ValueError: for another name, or where a factor is not finite.

    Reference:
        Wang et al. 2024, arXiv:2404.13040, section 4 (increasing schedules).
    """

    factor: str | Callable[[float], float]

    def __post_init__(self) -> None:
        known = self.factor in SCHEDULES if isinstance(self.factor, str) else callable(self.factor)
        if not known:
            raise ValueError(
                f"unknown schedule {self.factor!r}; known: {', '.join(SCHEDULES)}, or a function"
            )

    def shape(self, base: Tensor, direction: Direction, ctx: Context) -> Direction:
        function = SCHEDULES[self.factor] if isinstance(self.factor, str) else self.factor
        factor = float(function(1 - ctx.time_fraction))
        if not math.isfinite(factor):
            raise ValueError(
                f"the factor of ScaleSchedule is {factor} at time {ctx.level.time:g}; it must be "
                "finite for all u in [0, 1]"
            )
        return Direction(direction.delta, factor * direction.strength)


@dataclass(frozen=True)
class CFGpp(Modifier):
    """CFG++ by the scale that makes CFG take the same step, lam sigma~ / (sigma~ - sigma~_next).

    CFG++ mixes the noise predictions as u + lam (c - u) for the data, and adds back the
    unconditional noise. A step of first order with that is DDIM under plain CFG of this scale,
    sigma~ = sigma / alpha; the source's own scale is replaced.

    Args:
        lam: lambda in [0, 1].

    Raises:
        ValueError: for another lambda, behind anything but one contrast, and before sampling with a
            solver that is not first order without noise, for which no such scale exists.

    Reference:
        Chung et al. 2024, arXiv:2406.08070, algorithm 2; the equivalence is ours.
    """

    lam: float = 0.6
    is_field = False

    def __post_init__(self) -> None:
        if not 0 <= self.lam <= 1:
            raise ValueError(f"lambda of CFGpp must lie in [0, 1], got {self.lam}")

    def fits(self, left: Expression) -> None:
        source = only_contrast(left, "CFGpp")
        if source.scale == 1:
            raise ValueError(
                f"{source} | CFGpp(...): a scale of 1 is off; CFGpp replaces any other scale, so "
                "write CFG(2) | CFGpp(0.6)"
            )

    def check(self, run: RunFacts) -> None:
        if run.reads > 1 or run.noisy:
            raise ValueError(
                "CFGpp is exact only for steps of first order without noise: use the sampler ddim "
                "or euler, or CFG alone"
            )

    def shape(self, base: Tensor, direction: Direction, ctx: Context) -> Direction:
        if ctx.level.next_rho == ctx.level.rho:
            return direction  # the step goes nowhere, whatever the scale
        scale = self.lam / (1 - ctx.level.next_rho / ctx.level.rho)
        return Direction(direction.delta, scale - 1)


def only_contrast(left: Expression, who: str) -> Contrast | Autoguidance:
    """The one contrast on the left of a modifier.

    Raises:
        ValueError: if there is another source, or more than one.
    """
    sources = list(left.sources())
    if len(sources) != 1 or not isinstance(sources[0], Contrast | Autoguidance):
        raise ValueError(
            f"{who} reshapes one contrast such as CFG(3), got {left}: write (CFG(3) | {who}(...)) "
            "+ the rest"
        )
    for modifier in left.modifiers():
        if type(modifier).shape not in (Modifier.shape, ScaleSchedule.shape):
            raise ValueError(
                f"{who} reads the two predictions of a contrast, and {modifier} has changed their "
                f"difference: write {who}(...) first, as in CFG(3) | {who}(...) | "
                f"{type(modifier).__name__}(...)"
            )
    return sources[0]
