"""Restart sampling: go back up in noise, and down again, around any solver."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fewstep.samplers.core.ops import Evaluation
from fewstep.samplers.core.plan import Plan
from fewstep.samplers.solvers.effects import warn_of_plan
from fewstep.samplers.solvers.multistep import check_noise_scale, climb, finish
from fewstep.samplers.solvers.restart_recipes import AUTO_FROM, Interval, Recipe, recipe
from fewstep.schedules.breaks import snap, within
from fewstep.schedules.grids import Grid, grid_from_rho

POWER = 7.0  # of the grid inside an interval (EDM's)


def restart(
    grid: Grid,
    *,
    nfe: int | None = None,
    intervals: str | Sequence[Sequence[float]] = "auto",
    solver: str = "unipc",
    inner: str = "",
    noise_scale: float = 1.0,
    preset: str = "",
) -> Plan:
    """Restart (arXiv:2306.14878, algorithm 1) around any solver.

    Where the main run comes by the ratio ``low`` of an interval (at its nearest node), noise lifts
    the sample to ``high`` and the inner solver brings it down again, ``times`` over::

        x <- (alpha_high / alpha_low) x + alpha_high S sqrt(rho_high^2 - rho_low^2) noise

    Each part of the run is a plan of its own: history does not cross an interval. Breaks of the
    grid are those of every pass as well; an automatic interval with too few nodes for them starts
    lower.

    Args:
        grid: of the main run, in steps of ``solver``.
        nfe: network calls in all; None means as many as the grid takes.
        intervals: ``[[points, times, low, high], ...]`` in ratios sigma / alpha, or ``"auto"``:
            what the calls pay for.
        solver: spec of the main run.
        inner: spec of the solver within intervals; ``""`` means ``solver``.
        noise_scale: S, the paper's S_noise.
        preset: name of one of the paper's configurations, ``restart_recipes.PRESETS``, in place of
            the four above.

    Raises:
        ValueError: for intervals that do not fit the grid or the calls, fall on the same node, or
            have fewer nodes than breakpoints.
    """
    check_noise_scale(noise_scale)
    made = recipe(intervals, solver, inner, noise_scale, preset)
    chosen = made.chosen(nfe if nfe is not None else grid.nfe)
    if not chosen and made.intervals == "auto":
        warn_of_plan(
            f"{nfe} calls do not pay for a Restart interval (from {AUTO_FROM} on they may): "
            f"{made.solver} runs alone",
        )
    stops = _snap(grid, chosen, moves=made.intervals == "auto")
    cuts = [0, *sorted(stops), grid.nfe]
    parts = [grid.part(i, j) for i, j in itertools.pairwise(cuts)]
    calls = [made.main.calls(part) for part in parts]
    if nfe is not None:
        calls = _spared(parts, calls, sum(calls) - nfe + made.extra(chosen))
    rows: list[Evaluation] = []
    for part, n, node in zip(parts, calls, cuts[1:], strict=True):
        rows += made.main.plan(part, n).evaluations
        if node in stops:
            rows += _passes(rows.pop(), grid, node, stops[node], made)
    return finish(grid, rows, f"restart:solver={made.solver}")


def _spared(parts: Sequence[Grid], calls: Sequence[int], surplus: int) -> list[int]:
    """The calls of each part without ``surplus`` of them, taken from the end where steps allow."""
    left = []
    for part, n in reversed(list(zip(parts, calls, strict=True))):
        taken = min(surplus, n - part.nfe)
        left.append(n - taken)
        surplus -= taken
    if surplus:
        raise ValueError(f"the main run of Restart needs {surplus} more calls for its grid")
    return left[::-1]


def _passes(
    last: Evaluation, grid: Grid, node: int, interval: Interval, made: Recipe
) -> list[Evaluation]:
    """``last``, which led to the node, and every climb and way down from there."""
    low = float(grid.rho[node])
    roots = np.linspace(interval.high ** (1 / POWER), low ** (1 / POWER), interval.points)
    levels = np.append(roots[:-1] ** POWER, low)
    down = snap(grid_from_rho(grid.process, levels, "restart"), _edges(grid))
    top = float(down.alpha[0]), interval.high
    up = climb((float(grid.alpha[node]), low), top, made.noise_scale)
    way = made.inside.plan(down, made.inside.calls(down)).evaluations
    rows = [last]
    for _ in range(interval.times):
        rows[-1] = replace(rows[-1], ops=(*rows[-1].ops, up))
        rows += way
    return rows


def _edges(grid: Grid) -> list[float]:
    return [float(grid.rho[b]) for b in sorted(grid.breaks)]


def _snap(grid: Grid, chosen: Sequence[Interval], moves: bool) -> dict[int, Interval]:
    """Which interval starts at which node of the main run.

    One that ``moves`` takes the nearest node that is free and keeps high / low.
    """
    stops: dict[int, Interval] = {}
    for interval in chosen:
        if grid.nfe < 2:
            raise ValueError("a Restart interval needs a main run of two steps: use more calls")
        nearest = 1 + np.argsort(np.abs(grid.rho[1:-1] - interval.low), kind="stable")
        node = next((int(k) for k in nearest if not moves or k not in stops), int(nearest[0]))
        level = float(grid.rho[node])
        if moves:
            top = min(level * interval.high / interval.low, float(grid.rho[0]))
            between = within([top, level], _edges(grid))[::-1]
            if len(between) > interval.points - 2:
                top = between[interval.points - 2]
            interval = replace(interval, low=level, high=top)
        if node in stops:
            raise ValueError(
                f"the Restart intervals from {stops[node].low:g} and {interval.low:g} both fall "
                f"on the node at {level:.3g}: join them, move one, or use more calls"
            )
        if level >= interval.high or interval.high > grid.rho[0]:
            raise ValueError(
                f"the Restart interval [{interval.low:g}, {interval.high:g}] does not fit: its "
                f"node is at {level:.3g}, the run starts at {grid.rho[0]:.3g}"
            )
        stops[node] = interval
    return stops


def restart_steps(nfe: int, without_signal: bool, ends_at_zero: bool, **options: Any) -> int:
    """Steps of the main run that nfe calls pay for beside the intervals.

    Raises:
        ValueError: if they do not pay for the intervals, or fit no preset.
    """
    made = recipe(**options)
    chosen = made.chosen(nfe)
    extra = made.extra(chosen)
    least = 1 + bool(chosen)
    if nfe - extra < least:
        raise ValueError(
            f"these Restart intervals take {extra} calls and the main run {least} or more, but "
            f"only {nfe} are asked for: use more calls, or intervals='auto'"
        )
    spread = nfe - extra + made.main.lost * len(chosen)
    return min(nfe - extra, made.main.steps(spread, without_signal, ends_at_zero))
