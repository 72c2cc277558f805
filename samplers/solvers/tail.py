"""A plan entered in the middle, as image-to-image pipelines do."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from fewstep.samplers.core.ops import Evaluation, Op
from fewstep.samplers.core.plan import Plan
from fewstep.samplers.core.run import levels, start_scale
from fewstep.samplers.solvers.multistep import climb
from fewstep.samplers.solvers.spec import parse_spec
from fewstep.schedules.breaks import TOLERANCE, mark
from fewstep.schedules.grids import Grid
from fewstep.schedules.process import NoiseProcess

Rebuild = Callable[[Grid, int], Plan]


def tail(plan: Plan, k: int, rebuild: Rebuild, process: NoiseProcess) -> Plan:
    """The plan that starts at evaluation ``k`` and calls the network where the whole one does.

    Rows that look back at nothing before k are taken as they are. Those that do are planned anew:
    a multistep method starts up again at their levels; what is left of a step of several calls is
    walked at first order.

    Args:
        plan: the whole.
        k: where to start, 0 <= k < plan.nfe.
        rebuild: the solver on the levels of such rows, for a number of calls.
        process: the noise process of the plan.
    """
    rows, end = plan.evaluations, (0.0, *plan.end)
    r = _stands_alone_from(plan, k)
    if r == k:
        return replace(plan, evaluations=rows[k:])
    marks = [*map(_level, rows), end]
    if anew := _anew(marks[k:], rebuild, process):
        return replace(plan, evaluations=anew)
    # Of two calls at a level (PECE's) the first has nothing to correct yet.
    if k + 1 < plan.nfe and marks[k] == marks[k + 1]:
        later = tail(plan, k + 1, rebuild, process).evaluations
        return replace(plan, evaluations=_first_order(marks[k : k + 2], rows[k : k + 1]) + later)
    # A climb (Restart's) closes the stretch: the call before it is only a stop on the way.
    climbs = _rho(marks[r]) > _rho(marks[r - 1])
    stretch = marks[k : r if climbs else r + 1]
    head = _anew(stretch, rebuild, process) or _first_order(stretch, rows[k:r])
    if climbs:
        low, high = ((mark[1], _rho(mark)) for mark in marks[r - 1 : r + 1])
        head += (replace(rows[r - 1], ops=(climb(low, high),), store="push", stage=0),)
    return replace(plan, evaluations=(*head, *rows[r:]))


def _stands_alone_from(plan: Plan, k: int) -> int:
    """The first row from k on after which nothing is read that earlier ones wrote."""
    read_until = -1
    pending = False  # whether base will be read before it is written again, seen from the end
    base_pending = [False] * (plan.nfe + 1)
    for e in range(plan.nfe - 1, -1, -1):
        for op in reversed(plan.evaluations[e].ops):
            pending = bool(op.c_b) or (pending and op.reg != "base")
        base_pending[e] = pending
    for e, (_, last) in enumerate(plan.reads):
        if e >= k and read_until < e and not base_pending[e]:
            return e
        read_until = max(read_until, last)
    return plan.nfe


Mark = tuple[float, float, float]  # time, alpha, sigma
Rows = tuple[Evaluation, ...]


def _level(row: Evaluation) -> Mark:
    return row.time, row.alpha, row.sigma


def _rho(mark: Mark) -> float:
    return mark[2] / mark[1] if mark[1] else math.inf


def _anew(marks: Sequence[Mark], rebuild: Rebuild, process: NoiseProcess) -> Rows:
    """The solver on these levels; nothing if it would call the network elsewhere."""
    calls = len(marks) - 1
    distinct = [mark for i, mark in enumerate(marks) if i == 0 or mark != marks[i - 1]]
    rho, time = np.array([_rho(m) for m in distinct]), np.array([m[0] for m in distinct])
    try:
        rows = rebuild(Grid(process, rho, time), calls).evaluations
    except ValueError:  # levels or a count that the solver cannot walk
        return ()
    placed = [(row.time, row.sigma) for row in rows]
    wanted = [(time, sigma) for time, _, sigma in marks[:-1]]
    same = len(placed) == calls and np.allclose(placed, wanted, rtol=1e-9, atol=1e-12)
    return rows if same else ()


def _first_order(marks: Sequence[Mark], rows: Rows) -> Rows:
    """DDIM from level to level; a level that is called twice is left as it is the first time."""
    made = []
    for row, (_, alpha, sigma) in zip(rows, marks[1:], strict=False):
        if (alpha, sigma) == (row.alpha, row.sigma):
            warnings.warn(
                f"the run starts at the second call of a step, t = {row.time:g}, which has nothing "
                "to do then: start one entry earlier or later to save it",
                stacklevel=2,
            )
        shrink = sigma / row.sigma
        op = Op("x", c_x=shrink, w=(alpha - shrink * row.alpha,))
        if row.form == "noise":
            keep = alpha / row.alpha
            op = Op("x", c_x=keep, w=(sigma - keep * row.sigma,))
        made.append(replace(row, ops=(op,), store="push", stage=0))
    return tuple(made)


def enter(
    plan: Plan, rho: float, process: NoiseProcess, breakpoints: Sequence[float] = ()
) -> tuple[Plan, float]:
    """The part of a plan from a ratio sigma / alpha on, and the deviation of its start noise.

    It starts at the first solver step from there or below. Without a level above, that is the whole
    plan and its usual start; else the state is taken for data of unit variance with the noise of
    the level.

    Args:
        plan: the whole.
        rho: where to start.
        process: the noise process of the plan.
        breakpoints: ratios across which no step may look back.

    Raises:
        ValueError: if nothing is left.
    """
    limit = rho * (1 + TOLERANCE)
    begins = [row.stage == 0 for row in plan.evaluations]
    first = next((x.index for x in levels(plan) if begins[x.index] and x.rho <= limit), None)
    if first is None:
        least = min(plan.sigmas(native=False)[:-1])
        raise ValueError(
            f"no call is left of {plan.name!r} from sigma/alpha = {rho:g}, its last is at "
            f"{least:g}: start higher, or use more calls"
        )
    if first == 0:
        return plan, start_scale(plan)
    plan = tail(plan, first, _solver_of(plan, breakpoints), process)
    return plan, math.hypot(plan.evaluations[0].alpha, plan.evaluations[0].sigma)


def _solver_of(plan: Plan, breakpoints: Sequence[float]) -> Rebuild:
    """The solver that a plan is named after, for the steps that would look back too far."""
    try:
        spec = parse_spec(plan.name)
    except ValueError:  # a plan by hand: the solver that needs to know least
        spec = parse_spec("ipndm")

    def rebuild(grid: Grid, nfe: int) -> Plan:
        return spec.sampler.plan(mark(grid, breakpoints), nfe, spec.options)

    return rebuild
