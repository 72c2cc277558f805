"""Multistep predictors and predictor-correctors in the data form: one compiler for the family.

DDIM, DPM-Solver++ (multistep), UniPC and SA-Solver differ only in the options here: how many nodes
predict and correct, how a pair of nodes weighs its slope, and how much noise is added.
"""

import math
from collections.abc import Callable, Collection, Sequence

from fewstep.samplers.plan import Evaluation, Op, Plan
from fewstep.samplers.weights import Rule, exponential_weights, official_third_order
from fewstep.schedules.grids import Grid

Tau = float | Sequence[float]


def transfer(grid: Grid, i: int, tau: float = 0.0) -> tuple[float, float, float, float]:
    """(a, b, z, nu) of the step from node i to i + 1 (see :mod:`fewstep.samplers.weights`)."""
    h = float(grid.lam[i + 1] - grid.lam[i])
    sigma_s, sigma_t = float(grid.sigma[i]), float(grid.sigma[i + 1])
    decay = math.exp(-(tau**2) * h) if tau else 1.0
    nu = sigma_t * math.sqrt(-math.expm1(-2 * tau**2 * h)) if tau else 0.0
    return sigma_t / sigma_s * decay, float(grid.alpha[i + 1]), (1 + tau**2) * h, nu


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

    A step to sigma = 0 has h = inf, where only one node is meaningful.
    """
    n = grid.nfe
    counts = [min(order, i + 1, n - i if lower_order_final else order) for i in range(n)]
    if grid.rho[-1] == 0:
        counts[-1] = 1
    return counts


def levels(grid: Grid) -> list[tuple[float, float, float]]:
    """(time, alpha, sigma) of the nodes, as Python floats."""
    columns = grid.time, grid.alpha, grid.sigma
    return [(float(t), float(a), float(s)) for t, a, s in zip(*columns, strict=True)][:-1]


def finish(grid: Grid, rows: Sequence[Evaluation], name: str) -> Plan:
    end = float(grid.alpha[-1]), float(grid.sigma[-1])
    return Plan(tuple(rows), end, grid.process.identity(), name)


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
    corrects: Callable[[int], bool] = lambda e: False,
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
        corrects: whether evaluation e > 0 corrects the step that led to it.
        rule: of node pairs.
        official: DPM-Solver++(3M) with the published half weight.
        tau: noise scale of each step, or of all.
        lower_order_final: fewer nodes towards the end.
    """
    n = grid.nfe
    taus = [tau] * n if isinstance(tau, int | float) else list(tau)
    counts = orders(grid, order, lower_order_final)
    # Correcting is pointless where the next step forgets the sample (a = 0),
    # or where the step began without signal.
    corrected = [
        e > 0 and corrects(e) and grid.rho[e + 1] > 0 and grid.alpha[e - 1] > 0 for e in range(n)
    ] + [False]
    rows = []
    for e, level in enumerate(levels(grid)):
        ops: list[Op] = []
        if corrected[e]:
            _, b, z, _ = transfer(grid, e - 1, taus[e - 1])
            nodes = data_nodes(grid, e - 1, counts[e - 1])
            correcting = corrector_weights(nodes, z, rule)
            ops.append(Op("x", c_b=1.0, w=tuple(b * w for w in correcting)))
        a, b, z, nu = transfer(grid, e, taus[e])
        nodes = data_nodes(grid, e, counts[e])
        if official and len(nodes) == 3:
            predicting = official_third_order(nodes, z)
        else:
            predicting = exponential_weights(nodes, z, rule)
        scaled = tuple(float(b * w) for w in predicting)
        if corrected[e + 1]:
            ops += [Op("base", c_x=a, nu=nu), Op("x", c_b=1.0, w=scaled)]
        else:
            ops.append(Op("x", c_x=a, w=scaled, nu=nu))
        rows.append(Evaluation(*level, ops=tuple(ops)))
    return finish(grid, rows, name)


def corrector_weights(nodes: Sequence[float], z: float, rule: Rule) -> list[float]:
    """Weights with the target as a further node, newest output first: [target, present, ...]."""
    present, target, *older = exponential_weights([nodes[0], 1.0, *nodes[1:]], z, rule)
    return [float(target), float(present), *map(float, older)]


def ddim(grid: Grid, *, eta: float = 0.0) -> Plan:
    """DDIM: x_t = alpha_t m + sqrt(sigma_t^2 - s^2) eps + s noise.

    s = eta sigma_t sqrt(1 - exp(-2 h)) (arXiv:2010.02502, eq. 12 and 16, for any process). eta = 0
    is the deterministic sampler and Euler's method in sigma / alpha; eta = 1 is ancestral.

    Args:
        grid: noise levels.
        eta: share of the ancestral noise, in [0, 1].

    Raises:
        ValueError: if eta is outside [0, 1].
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must lie in [0, 1], got {eta}")
    rows = []
    for e, level in enumerate(levels(grid)):
        h = float(grid.lam[e + 1] - grid.lam[e])
        sigma_t, alpha_t = float(grid.sigma[e + 1]), float(grid.alpha[e + 1])
        noise = eta * sigma_t * math.sqrt(-math.expm1(-2 * h))
        a = math.sqrt(max(sigma_t**2 - noise**2, 0.0)) / level[2]
        # alpha_t - alpha_s a cancels for small steps without noise; M_0 does not.
        b = -alpha_t * math.expm1(-h) if eta == 0 else alpha_t - level[1] * a
        rows.append(Evaluation(*level, ops=(Op("x", c_x=a, w=(b,), nu=noise),)))
    return finish(grid, rows, f"ddim:eta={eta:g}")


def dpmpp(
    grid: Grid,
    *,
    order: int = 2,
    variant: str = "official",
    solver_type: str = "midpoint",
    tau: float = 0.0,
    lower_order_final: bool | None = None,
) -> Plan:
    """DPM-Solver++ multistep, 1M, 2M and 3M, and their SDE forms (arXiv:2211.01095, section 4).

    Args:
        grid: noise levels.
        order: 1, 2 or 3 outputs a step.
        variant: ``"official"`` third order halves the second difference, as the authors' code and
            every published "3M" figure do, and is of second order; ``"exact"`` is of third.
        solver_type: how two outputs weigh their slope, ``"midpoint"`` or ``"heun"``.
        tau: noise scale; 0 the ODE, 1 the reverse SDE ("2M SDE"; k-diffusion's eta is tau^2).
        lower_order_final: fewer outputs in the last steps; None means below 15 calls.

    Raises:
        ValueError: for a value outside these.
    """
    check_order(order, range(1, 4), "DPMSolverPP", "DEIS(order=4)")
    if variant not in ("official", "exact"):
        raise ValueError(f"variant must be 'official' or 'exact', got {variant!r}")
    if solver_type not in ("midpoint", "heun"):
        raise ValueError(f"solver_type must be 'midpoint' or 'heun', got {solver_type!r}")
    if tau < 0:
        raise ValueError(f"tau must not be negative, got {tau}")
    return predictor_corrector(
        grid,
        order=order,
        rule="half-moment" if solver_type == "midpoint" else "exact",
        official=variant == "official",
        tau=tau,
        lower_order_final=grid.nfe < 15 if lower_order_final is None else lower_order_final,
        name=f"dpmpp:order={order},variant={variant},solver_type={solver_type},tau={tau:g}",
    )


def unipc(
    grid: Grid,
    *,
    order: int = 3,
    solver_type: str = "bh2",
    disable_corrector: Collection[int] = (),
    lower_order_final: bool = True,
) -> Plan:
    """UniPC: UniP-p with UniC-p, which adds the next output to the same step at no call.

    arXiv:2302.04867, algorithms 5-8 in the data form. Order p with the predictor alone, p + 1 with
    the corrector. B(h) matters for pairs of nodes only; with more the weights are the exact ones.

    Args:
        grid: noise levels.
        order: p, 1 to 4.
        solver_type: ``"bh1"``, B(h) = h, or ``"bh2"``, B(h) = exp(h) - 1.
        disable_corrector: numbers of the steps (from 0) that are not corrected; -1 means all.
        lower_order_final: fewer outputs in the last steps.

    Raises:
        ValueError: for a value outside these.
    """
    check_order(order, range(1, 5), "UniPC")
    if solver_type not in ("bh1", "bh2"):
        raise ValueError(f"solver_type must be 'bh1' or 'bh2', got {solver_type!r}")
    return predictor_corrector(
        grid,
        order=order,
        corrects=lambda e: -1 not in disable_corrector and e - 1 not in disable_corrector,
        rule="half-step" if solver_type == "bh1" else "half-moment",
        lower_order_final=lower_order_final,
        name=f"unipc:order={order},solver_type={solver_type}",
    )
