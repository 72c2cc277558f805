"""Multistep predictors and predictor-correctors in the data form: one compiler for the family.

DDIM, DPM-Solver++ (multistep), UniPC and SA-Solver differ only in the options here: how many nodes
predict and correct, how a pair of nodes weighs its slope, and how much noise is added.
"""

import math
from collections.abc import Callable, Collection, Sequence

from fewstep.samplers.core.ops import Evaluation, Op
from fewstep.samplers.core.plan import Plan
from fewstep.samplers.solvers.weights import (
    Rule,
    exponential_weights,
    moments,
    official_third_order,
)
from fewstep.schedules.grids import Grid
from fewstep.schedules.told import ToldFlow

Tau = float | Sequence[float]
MAX_TAU, MAX_NOISE_SCALE = 100.0, 100.0


def transfer(grid: Grid, i: int, tau: float = 0.0) -> tuple[float, float, float, float]:
    """(a, b, z, nu) of the step from node i to i + 1 (see :mod:`.weights`)."""
    h = float(grid.lam[i + 1] - grid.lam[i])
    sigma_s, sigma_t = float(grid.sigma[i]), float(grid.sigma[i + 1])
    decay = math.exp(-(tau**2) * h) if tau else 1.0
    nu = sigma_t * math.sqrt(-math.expm1(-2 * tau**2 * h)) if tau else 0.0
    return sigma_t / sigma_s * decay, float(grid.alpha[i + 1]), (1 + tau**2) * h, nu


def climb(low: tuple[float, float], high: tuple[float, float], scale: float = 1.0) -> Op:
    """Fresh noise that lifts a sample from one (alpha, rho) to a noisier one.

    x <- (alpha_high / alpha_low) x + alpha_high scale sqrt(rho_high^2 - rho_low^2) noise
    """
    (alpha_low, rho_low), (alpha, rho) = low, high
    nu = alpha * scale * math.sqrt(rho**2 - rho_low**2)
    return Op("x", c_x=alpha / alpha_low, nu=nu)


def data_nodes(grid: Grid, i: int, count: int) -> list[float]:
    """Positions, in units of step i -> i + 1, of node i and up to count - 1 earlier ones.

    Nodes without signal (lambda = -inf) cannot carry an interpolant and are left out.
    """
    lam = grid.lam[max(0, i - count + 1) : i + 1][::-1]
    if not math.isfinite(lam[0]) or not math.isfinite(grid.lam[i + 1]):
        return [0.0]
    h = grid.lam[i + 1] - lam[0]
    return [float((x - lam[0]) / h) for x in lam if math.isfinite(x)]


def orders(grid: Grid, order: int, lower_order_final: bool) -> list[int]:
    """Nodes of each step: 1, 2, .. at the start and, if asked for, .., 2, 1 at the end.

    So it is from each break of the grid on, since no step looks back across one. A step to
    sigma = 0 has h = inf, where only one node is meaningful.
    """
    n = grid.nfe
    known = [i + 1 - grid.since(i) for i in range(n)]
    counts = [min(order, known[i], n - i if lower_order_final else order) for i in range(n)]
    if grid.rho[-1] == 0:
        counts[-1] = 1
    return counts


def levels(grid: Grid) -> list[tuple[float, float, float]]:
    """(time, alpha, sigma) of the nodes, as Python floats."""
    columns = grid.time, grid.alpha, grid.sigma
    return [(float(t), float(a), float(s)) for t, a, s in zip(*columns, strict=True)][:-1]


def finish(grid: Grid, rows: Sequence[Evaluation], name: str) -> Plan:
    end = float(grid.alpha[-1]), float(grid.sigma[-1])
    own = {"times": "own"} if isinstance(grid.process, ToldFlow) else {}
    return Plan(tuple(rows), end, grid.process.identity(), name, own)


def check_tau(tau: float) -> None:
    """Passes a noise scale.

    Raises:
        ValueError: outside 0 .. ``MAX_TAU``; at the limit all but new noise is gone after a step.
    """
    if not 0 <= tau <= MAX_TAU:
        raise ValueError(f"tau must be a number from 0 to {MAX_TAU:g}, got {tau}")


def check_noise_scale(scale: float) -> None:
    """Passes a factor of added noise.

    Raises:
        ValueError: outside 0 .. ``MAX_NOISE_SCALE``.
    """
    if not 0 <= scale <= MAX_NOISE_SCALE:
        raise ValueError(f"noise_scale must be a number from 0 to {MAX_NOISE_SCALE:g}, got {scale}")


def check_order(order: int, allowed: range, solver: str, instead: str = "") -> None:
    if order not in allowed:
        words = [str(k) for k in allowed]
        listed = ", ".join(words[:-1]) + f" or {words[-1]}"
        hint = f"; for higher orders use {instead}" if instead else ""
        raise ValueError(f"order must be {listed} for {solver}, got {order}{hint}")


def predictor_corrector(
    grid: Grid,
    *,
    order: int,
    corrector_order: int | None = None,
    corrects: Callable[[int], bool] = lambda e: False,
    twice: Collection[int] = (),
    rule: Rule = "exact",
    official: bool = False,
    tau: Tau = 0.0,
    lower_order_final: bool = True,
    name: str = "",
) -> Plan:
    """The plan of an exponential multistep method in the data form.

    The corrector repeats the step that led to the present point from the same base (and with the
    same noise), with the new output as one node more; it costs no call.

    Args:
        order: nodes of the predictor.
        corrector_order: nodes of the corrector, the new one included; None means order + 1.
        corrects: whether evaluation e > 0 corrects the step that led to it.
        twice: levels that are evaluated again at the corrected point (PECE).
        rule: of node pairs.
        official: DPM-Solver++(3M) with the published half weight.
        tau: noise scale of each step, or of all.
        lower_order_final: fewer nodes towards the end.
    """
    n = grid.nfe
    taus = [tau] * n if isinstance(tau, int | float) else list(tau)
    counts = orders(grid, order, lower_order_final)
    others = order if corrector_order is None else corrector_order - 1
    mates = orders(grid, others, lower_order_final)  # nodes of the corrector beside the new one
    # Correcting is pointless where the next step forgets the sample (a = 0) and the network is
    # not called again, or where the step began without signal. The output at a break belongs to
    # the next step alone, unless the network is called twice there.
    useful = [e in twice or (grid.rho[e + 1] > 0 and e not in grid.breaks) for e in range(n)]
    corrected = [
        e > 0 and corrects(e) and useful[e] and grid.alpha[e - 1] > 0 for e in range(n)
    ] + [False]
    rows = []
    for e, level in enumerate(levels(grid)):
        ops: list[Op] = []
        if corrected[e]:
            ops.append(_correct(grid, e - 1, taus[e - 1], mates[e - 1], rule))
        if e in twice:
            rows.append(Evaluation(*level, ops=tuple(ops), stage=1))  # of the step that led here
            ops = []
        ops += _predict(grid, e, taus[e], counts[e], rule, official, corrected[e + 1])
        rows.append(Evaluation(*level, ops=tuple(ops), store="replace" if e in twice else "push"))
    return finish(grid, rows, name)


def _predict(
    grid: Grid, e: int, tau: float, count: int, rule: Rule, official: bool, keeps_base: bool
) -> list[Op]:
    a, b, z, nu = transfer(grid, e, tau)
    nodes = data_nodes(grid, e, count)
    if official and len(nodes) == 3:
        weights = official_third_order(nodes, z)
    else:
        weights = exponential_weights(nodes, z, rule)
    scaled = tuple(float(b * w) for w in weights)
    if keeps_base:
        return [Op("base", c_x=a, nu=nu), Op("x", c_b=1.0, w=scaled)]
    return [Op("x", c_x=a, w=scaled, nu=nu)]


def _correct(grid: Grid, step: int, tau: float, count: int, rule: Rule) -> Op:
    _, b, z, _ = transfer(grid, step, tau)
    nodes = data_nodes(grid, step, count) if count else []
    return Op("x", c_b=1.0, w=tuple(b * w for w in corrector_weights(nodes, z, rule)))


def corrector_weights(nodes: Sequence[float], z: float, rule: Rule) -> list[float]:
    """Weights with the target as a further node, newest output first: [target, present, ...]."""
    if not nodes:
        return [float(moments(z, 1)[0])]
    present, target, *older = exponential_weights([nodes[0], 1.0, *nodes[1:]], z, rule)
    return [float(target), float(present), *map(float, older)]
