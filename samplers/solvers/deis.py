"""Adams-Bashforth methods in the noise form: DEIS and iPNDM.

With y = x / alpha and rho = sigma / alpha the probability flow ODE is dy/drho = eps, so

    x_t = alpha_t (x_s / alpha_s + sum_j w_j eps_j),    sum_j w_j = rho_t - rho_s,

and a method is a choice of the polynomial through the noise predictions.
"""

from collections.abc import Callable, Sequence

import numpy as np

from fewstep.samplers.core.ops import Evaluation, Op
from fewstep.samplers.core.plan import Plan
from fewstep.samplers.solvers.multistep import check_order, finish, levels
from fewstep.samplers.solvers.weights import lagrange
from fewstep.schedules.grids import Grid
from fewstep.schedules.process import Array

ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
Weigh = Callable[[Grid, int, int], Sequence[float]]
_POINTS, _POINT_WEIGHTS = np.polynomial.legendre.leggauss(48)
_SCALE = 0.05  # below this ratio the quadrature is uniform in rho, above it in ln(rho)


def noise_form(grid: Grid, weigh: Weigh, name: str) -> Plan:
    """The plan of a noise-form multistep method; ``weigh(grid, e, usable)`` gives its weights.

    The first step from a point without signal has no noise form: there x_t = sigma_t x + alpha_t m
    is exact, and later steps do not look back at it, nor across a break of the grid.
    """
    rows = []
    first = 0 if grid.alpha[0] > 0 else 1
    for e, (time, alpha, sigma) in enumerate(levels(grid)):
        sigma_t, alpha_t = float(grid.sigma[e + 1]), float(grid.alpha[e + 1])
        if alpha == 0:
            op = Op("x", c_x=sigma_t / sigma, w=(alpha_t,))
            rows.append(Evaluation(time, alpha, sigma, (op,), form="data"))
            continue
        weights = [float(alpha_t * w) for w in weigh(grid, e, e - max(first, grid.since(e)) + 1)]
        op = Op("x", c_x=alpha_t / alpha, w=tuple(weights))
        rows.append(Evaluation(time, alpha, sigma, (op,), form="noise"))
    return finish(grid, rows, name)


def deis_weights(grid: Grid, e: int, count: int, variable: str) -> Sequence[float]:
    """int l_j(v) drho over step e, l_j the Lagrange basis on the last ``count`` nodes in v.

    Gauss-Legendre in asinh(rho / 0.05): exact to rounding for smooth v over steps of any size, the
    step to rho = 0 included. Nothing cancels, since the weights of the older nodes are integrals
    of polynomials that vanish at the newest.
    """
    start, end = float(grid.rho[e]), float(grid.rho[e + 1])
    if count == 1 or (variable == "log_rho" and end == 0):
        return [end - start]
    low, high = np.arcsinh(start / _SCALE), np.arcsinh(end / _SCALE)
    u = (low + high) / 2 + (high - low) / 2 * _POINTS
    rho, measure = _SCALE * np.sinh(u), _SCALE * np.cosh(u) * _POINT_WEIGHTS * (high - low) / 2
    labels = _label(grid, grid.rho[e - count + 1 : e + 1][::-1], variable)
    unit = labels[0] - labels[-1]
    s = (_label(grid, rho, variable) - labels[0]) / unit
    basis = lagrange([float(x) for x in (labels - labels[0]) / unit])
    values = basis @ np.vander(s, count, increasing=True).T
    weights = values @ measure
    weights[0] = end - start - weights[1:].sum()
    return [float(w) for w in weights]


def _label(grid: Grid, rho: Array, variable: str) -> Array:
    if variable == "t":
        return grid.process.label(rho)
    return rho if variable == "rho" else np.log(rho)


def deis(grid: Grid, *, order: int = 3, variable: str = "t") -> Plan:
    """DEIS: exponential Adams-Bashforth on a polynomial of the noise prediction.

    arXiv:2204.13902, eq. 14-15. Orders count nodes, which is the classical order: the paper's
    tAB-r is ``order = r + 1`` here, as in diffusers. ``variable`` is what the polynomial runs in:
    the time (tAB), rho (rhoAB, iPNDM with exact weights) or ln(rho) (diffusers' only form, which is
    DPM-Solver's noise prediction).

    Args:
        grid: noise levels.
        order: nodes, 1 to 4.
        variable: ``"t"``, ``"rho"`` or ``"log_rho"``.

    Raises:
        ValueError: for a value outside these.
    """
    check_order(order, range(1, 5), "DEIS")
    if variable not in ("t", "rho", "log_rho"):
        raise ValueError(f"variable must be 't', 'rho' or 'log_rho', got {variable!r}")

    def weigh(grid: Grid, e: int, usable: int) -> Sequence[float]:
        return deis_weights(grid, e, min(order, usable), variable)

    return noise_form(grid, weigh, f"deis:order={order},variable={variable}")


def ipndm(grid: Grid, *, order: int = 3) -> Plan:
    """iPNDM: the fixed Adams-Bashforth weights on DDIM's transfer, whatever the spacing.

    arXiv:2204.13902, appendix H.2. Needs to know nothing of the schedule but sigma / alpha; of
    second order at most on grids of uneven steps, and among the best at few calls all the same.

    Args:
        grid: noise levels.
        order: outputs, 1 to 4. The fourth lies far back: it helps on some problems from 15 calls
            on, and hurts under guidance.

    Raises:
        ValueError: if order is outside 1 to 4.
    """
    check_order(order, range(1, 5), "IPNDM")

    def weigh(grid: Grid, e: int, usable: int) -> Sequence[float]:
        step = float(grid.rho[e + 1] - grid.rho[e])
        return [step * w for w in ADAMS_BASHFORTH[min(order, usable) - 1]]

    return noise_form(grid, weigh, f"ipndm:order={order}")
