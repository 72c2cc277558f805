"""Methods that start afresh at every step: DPM-Solver++ singlestep and Runge-Kutta in rho.

A block of k calls goes from one outer node to another and looks back at nothing. n calls are
spread over a grid of n steps: a block of k calls spans k of them, and puts its inner nodes where
its formula has them.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fewstep.samplers.core.ops import Evaluation, Op
from fewstep.samplers.core.plan import Plan
from fewstep.samplers.solvers.multistep import check_order, check_tau, finish
from fewstep.samplers.solvers.weights import Rule, exponential_weights
from fewstep.schedules.grids import Grid
from fewstep.schedules.prediction import Form


@dataclass(frozen=True)
class Node:
    """A level that a block visits: its network time, and x = alpha x0 + sigma noise."""

    time: float
    alpha: float
    sigma: float

    @property
    def rho(self) -> float:
        return self.sigma / self.alpha if self.alpha else math.inf

    def evaluation(self, form: Form, *ops: Op, stage: int = 0) -> Evaluation:
        return Evaluation(self.time, self.alpha, self.sigma, ops, form, stage=stage)


def blocks(nfe: int, order: int, first_alone: bool, last_alone: bool) -> list[int]:
    """Calls of each block: ``order`` where they go, and nearly so in the blocks left over.

    A start without signal and a step to sigma = 0 are of first order, and get one call.
    """
    head = [1] * first_alone
    tail = [1] * (last_alone and nfe > len(head))
    middle = nfe - len(head) - len(tail)
    count = math.ceil(middle / order)
    sizes = [middle // count + (i < middle % count) for i in range(count)] if count else []
    return head + sizes + tail


Block = Callable[[Grid, Node, Node, int], list[Evaluation]]


def in_blocks(grid: Grid, order: int, block: Block, name: str) -> Plan:
    """The plan whose block of k calls from node s to node t is ``block(grid, s, t, k)``.

    Blocks end at the breaks of the grid.
    """
    rows: list[Evaluation] = []
    start = 0
    for i, j in itertools.pairwise([0, *sorted(grid.breaks), grid.nfe]):
        first_alone = i == 0 and bool(grid.alpha[0] == 0)
        last_alone = j == grid.nfe and bool(grid.rho[-1] == 0)
        for k in blocks(j - i, order, first_alone, last_alone):
            rows += block(grid, _outer(grid, start), _outer(grid, start + k), k)
            start += k
    return finish(grid, rows, name)


def _outer(grid: Grid, i: int) -> Node:
    return Node(float(grid.time[i]), float(grid.alpha[i]), float(grid.sigma[i]))


def _inner(grid: Grid, rho: float) -> Node:
    alpha, sigma = grid.process.from_rho(rho)
    return Node(float(grid.process.time(rho)), float(alpha), float(sigma))


def singlestep(grid: Grid, *, order: int = 3, solver_type: str = "heun", tau: float = 0.0) -> Plan:
    """DPM-Solver++ singlestep, 2S and 3S, and their SDE forms (arXiv:2211.01095, appendix B).

    Stages lie at the fractions 1/2, or 1/3 and 2/3, of the step in lambda, wherever the grid puts
    the outer nodes. The noise of the SDE form is one Brownian path: each stage adds its own
    increment to those of the stages before, and the step ends with their sum.

    Args:
        grid: noise levels; a block of k calls spans k steps.
        order: 1, 2 (2S) or 3 (3S) calls a block.
        solver_type: ``"heun"`` weighs the outputs of the stages by exact integrals (3S: through
            all three), ``"midpoint"`` as DPM-Solver does (2S: the middle one alone; 3S: the first
            and the last).
        tau: noise scale; 0 the ODE, 1 the reverse SDE.

    Raises:
        ValueError: for a value outside these.
    """
    check_order(order, range(1, 4), "DPMSolverPPSinglestep", "DEISRungeKutta(order=4)")
    if solver_type not in ("midpoint", "heun"):
        raise ValueError(f"solver_type must be 'midpoint' or 'heun', got {solver_type!r}")
    check_tau(tau)

    def block(grid: Grid, s: Node, t: Node, k: int) -> list[Evaluation]:
        return _exponential_block(grid, s, t, k, solver_type, tau)

    name = f"singlestep:order={order},solver_type={solver_type},tau={tau:g}"
    return in_blocks(grid, order, block, name)


def _exponential_block(
    grid: Grid, s: Node, t: Node, k: int, solver_type: str, tau: float
) -> list[Evaluation]:
    h = math.log(s.rho / t.rho) if t.sigma and s.alpha else math.inf
    z = (1 + tau**2) * h
    fractions = [j / k for j in range(k)]
    nodes = [s, *(_inner(grid, s.rho * math.exp(-r * h)) for r in fractions[1:])]
    rows = []
    for j, (here, there) in enumerate(zip(nodes, [*nodes[1:], t], strict=True)):
        share = 1 / k  # of the step, between two stages
        a = there.sigma / here.sigma * (math.exp(-(tau**2) * h * share) if tau else 1.0)
        nu = there.sigma * math.sqrt(-math.expm1(-2 * tau**2 * h * share)) if tau else 0.0
        weights = _stage_weights(fractions[: j + 1], (j + 1) / k, z, k, solver_type)
        w = tuple(there.alpha * x for x in reversed(weights))
        # Between stages base holds the start of the step, decayed, with the noise so far.
        keep = Op("base", c_b=a, nu=nu) if j else Op("base", c_x=a, nu=nu)
        ops = [keep, Op("x", c_b=1.0, w=w)] if j + 1 < k else [replace(keep, reg="x", w=w)]
        rows.append(here.evaluation("data", *ops, stage=j))
    return rows


def _stage_weights(
    visited: Sequence[float], target: float, z: float, k: int, solver_type: str
) -> list[float]:
    """Weights of the outputs at the ``visited`` fractions for the part of the step up to target."""
    last = target == 1
    used = [0.0, visited[-1]] if last and k == 3 and solver_type == "midpoint" else list(visited)
    half = last and k == 2 and solver_type == "midpoint"
    rule: Rule = "half-moment" if half else "exact"
    nodes = [r / target for r in used]
    found = dict(zip(used, exponential_weights(nodes, z * target, rule), strict=True))
    return [float(found.get(r, 0.0)) for r in visited]


# (c, A) of the explicit Runge-Kutta methods with 1 to 4 stages; the last row of A is b.
TABLEAUS: tuple[tuple[tuple[float, ...], tuple[tuple[float, ...], ...]], ...] = (
    ((0.0,), ((1.0,),)),
    ((0.0, 1.0), ((1.0,), (1 / 2, 1 / 2))),
    ((0.0, 1 / 2, 1.0), ((1 / 2,), (-1.0, 2.0), (1 / 6, 4 / 6, 1 / 6))),
    (
        (0.0, 1 / 2, 1 / 2, 1.0),
        ((1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0), (1 / 6, 2 / 6, 2 / 6, 1 / 6)),
    ),
)


def rho_rk(grid: Grid, *, order: int = 3) -> Plan:
    """DEIS' rhoRK: a Runge-Kutta method on d(x / alpha) / drho = eps (arXiv:2204.13902, eq. 17).

    Heun's, Kutta's and the classical method of fourth order, of as many calls as their order.

    Args:
        grid: noise levels; a block of k calls spans k steps.
        order: 1 to 4.

    Raises:
        ValueError: for a value outside these.
    """
    check_order(order, range(1, 5), "DEISRungeKutta")
    return in_blocks(grid, order, _runge_kutta_block, f"rho_rk:order={order}")


def _runge_kutta_block(grid: Grid, s: Node, t: Node, k: int) -> list[Evaluation]:
    if s.alpha == 0:  # no noise form without signal; x_t = sigma_t x + alpha_t m is exact
        op = Op("x", c_x=t.sigma / s.sigma, w=(t.alpha,))
        return [s.evaluation("data", op)]
    c, weights = TABLEAUS[k - 1]
    end = t.rho if t.sigma else 0.0
    inner = (t if x == 1 else _inner(grid, s.rho + x * (end - s.rho)) for x in c[1:])
    nodes = [s, *inner]
    rows = []
    for j, (here, there) in enumerate(zip(nodes, [*nodes[1:], t], strict=True)):
        scale = there.alpha * (end - s.rho)
        w = tuple(float(scale * x) for x in np.flip(weights[j]))
        keep = there.alpha / s.alpha
        if k == 1:
            ops = [Op("x", c_x=keep, w=w)]
        else:
            ops = [Op("base", c_x=1.0)] if j == 0 else []
            ops.append(Op("x", c_b=keep, w=w))
        rows.append(here.evaluation("noise", *ops, stage=j))
    return rows
