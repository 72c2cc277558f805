"""First-order samplers: DDIM, and Euler's method under its own name."""

import math

from fewstep.samplers.core.ops import Evaluation, Op
from fewstep.samplers.core.plan import Plan
from fewstep.samplers.solvers.deis import ipndm
from fewstep.samplers.solvers.multistep import finish, levels
from fewstep.schedules.grids import Grid


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


def euler(grid: Grid) -> Plan:
    """Euler's method in sigma / alpha: DDIM without noise, written in the noise form."""
    return ipndm(grid, order=1).renamed("euler")


def euler_ancestral(grid: Grid, *, eta: float = 1.0) -> Plan:
    """Euler's method to a lower level than asked for, and noise back up: DDIM(eta).

    k-diffusion's and diffusers' ``Euler a``. In y = x / alpha it steps to rho_down and adds noise
    of deviation rho_up, where rho_up^2 = eta^2 rho_t^2 (1 - rho_t^2 / rho_s^2) and rho_down^2 =
    rho_t^2 - rho_up^2. That is what :func:`ddim` does, since rho_t / rho_s = exp(-h).

    Args:
        grid: noise levels.
        eta: share of the ancestral noise, in [0, 1].

    Raises:
        ValueError: if eta is outside [0, 1].
    """
    return ddim(grid, eta=eta).renamed(f"euler_a:eta={eta:g}")
