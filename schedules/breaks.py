"""Nodes on the noise levels where the denoiser may jump, as guidance that is switched on or off.

A multistep method loses its order where a step crosses such a level, or where it looks back across
it. So nodes are moved onto the levels, and the nodes are marked as breaks of the grid.
"""

import math
import warnings
from collections.abc import Sequence

import numpy as np

from fewstep.schedules.grids import Grid
from fewstep.schedules.process import Array

TOLERANCE = 1e-6  # relative; a level this close to a ratio lies on it


def snap(grid: Grid, ratios: Sequence[float]) -> Grid:
    """The grid of as many steps with a node on each ratio, and a break there.

    The first node and the end stay. Node i of the rest goes to where the old grid has the
    fractional index q(i), with q linear between the nodes that are placed: the steps before a ratio
    change alike, and so do those behind it, while to move single nodes would leave a long step
    beside a short one.

    Args:
        grid: of n steps.
        ratios: sigma / alpha; those not between the ends of the grid are ignored.

    Returns:
        The grid itself if no ratio lies between its ends.

    Raises:
        ValueError: if there are fewer nodes between the ends than ratios.
    """
    inside = within(grid.rho, ratios)
    if not inside:
        return grid
    steps, count = grid.nfe, len(inside)
    if count >= steps:
        raise ValueError(
            f"a grid of {steps} steps has too few nodes for {count} breakpoints (sigma/alpha "
            f"{', '.join(f'{r:g}' for r in inside)}): use more calls, for at least {count + 1} "
            "steps, or fewer breakpoints"
        )
    where = [_index(grid.rho, ratio) for ratio in inside]
    nodes: list[int] = []
    for j, index in enumerate(where):
        least = nodes[-1] + 1 if nodes else 1
        nodes.append(min(max(round(index), least), steps - count + j))
    warped = np.interp(np.arange(steps + 1), [0, *nodes, steps], [0.0, *where, steps])
    rho = np.array([_ratio(grid.rho, q) for q in warped])
    rho[nodes] = inside
    rho[[0, -1]] = grid.rho[[0, -1]]
    time = np.where(rho == grid.rho, grid.time, grid.process.time(rho))
    return Grid(grid.process, rho, time, grid.name, frozenset(nodes))


def snap_or_mark(grid: Grid, ratios: Sequence[float]) -> Grid:
    """:func:`snap`; with fewer nodes than ratios the nodes stay, with a warning."""
    if len(within(grid.rho, ratios)) < grid.nfe:
        return snap(grid, ratios)
    warn_unsnapped("what is left of the run", grid.rho.tolist(), ratios)
    return mark(grid, ratios)


def mark(grid: Grid, ratios: Sequence[float]) -> Grid:
    """The grid with breaks at the nodes that lie on a ratio already; nothing is moved."""
    inside = within(grid.rho, ratios)
    on = [i for i, rho in enumerate(grid.rho) if any(_near(float(rho), r) for r in inside)]
    return Grid(grid.process, grid.rho, grid.time, grid.name, frozenset(on)) if on else grid


def warn_unsnapped(what: str, levels: Sequence[float], ratios: Sequence[float]) -> None:
    """Warns of ratios between the ends of falling ``levels`` that lie on none of them."""
    inside = within(levels, ratios)
    missed = [ratio for ratio in inside if not any(_near(level, ratio) for level in levels)]
    if missed:
        warnings.warn(
            f"{what} is unsnapped: it has no level at sigma/alpha "
            f"{', '.join(f'{r:g}' for r in missed)}, where guidance or a hook needs one, and loses "
            "accuracy there: let a spec make the levels, or put some there",
            stacklevel=3,
        )


def within(levels: Sequence[float] | Array, ratios: Sequence[float]) -> list[float]:
    """The ratios strictly between the first and the last level, falling, each once."""
    first, last = float(levels[0]), float(levels[-1])
    found: list[float] = []
    for ratio in sorted(map(float, ratios), reverse=True):
        if not last < ratio < first or any(_near(ratio, x) for x in (first, last, *found)):
            continue
        found.append(ratio)
    return found


def _near(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=TOLERANCE)


def _index(rho: Array, ratio: float) -> float:
    """The fractional index of a ratio: linear in ln(rho) within a step.

    Within the first step from rho = inf it is linear in 1 / rho, within the last to 0 in rho.
    """
    i = int(np.searchsorted(-rho, -ratio, side="right")) - 1
    high, low = float(rho[i]), float(rho[i + 1])
    if low == 0:
        return i + 1 - (ratio / high if high < math.inf else 1 / (1 + 1 / ratio))
    if high == math.inf:
        return i + low / ratio
    return i + math.log(high / ratio) / math.log(high / low)


def _ratio(rho: Array, index: float) -> float:
    """The ratio at a fractional index."""
    i = min(int(index), len(rho) - 2)
    part = index - i
    high, low = float(rho[i]), float(rho[i + 1])
    if part == 0:
        return high
    if low == 0:
        return high * (1 - part) if high < math.inf else (1 - part) / part
    return low / part if high == math.inf else high * (low / high) ** part
