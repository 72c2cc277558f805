"""Where each named grid puts its nodes, as noise-to-signal ratios.

A rule is called with the process, the number n of calls, the number k of levels wanted (n, or
n + 1 if the last is to be the least level of the process) and a power, and returns k ratios from
the noisiest on. ``make_grid`` sets both ends exactly.
"""

from collections.abc import Callable

import numpy as np

from fewstep.schedules.process import VE, Array, DiscreteVP, Flow, NoiseProcess

GridRule = Callable[[NoiseProcess, int, int, float], Array]
Axis = Callable[[Array], Array]


def _ends(process: NoiseProcess) -> tuple[float, float]:
    """Finite ends of the ratio axis; where sampling starts without signal, the last with some."""
    if np.isfinite(process.rho_max):
        return process.rho_max, process.rho_min
    if isinstance(process, DiscreteVP):
        return float(process.rho(process.num_train_timesteps - 2)), process.rho_min
    return 1 / process.rho_min, process.rho_min


def _power_times(process: NoiseProcess, n: int, power: float) -> Array:
    start, end = process.time([process.rho_max, process.rho_min])
    # Roots need times from 0; EDM's ln(sigma) / 4 is the one time that is negative.
    origin = min(end, 0.0)
    root = np.linspace((start - origin) ** (1 / power), (end - origin) ** (1 / power), n + 1)
    return process.rho(root**power + origin)


def linspace(process: NoiseProcess, n: int, k: int, power: float) -> Array:
    """n + 1 network times with equal gaps."""
    return _power_times(process, n, 1.0)[:k]


def quadratic(process: NoiseProcess, n: int, k: int, power: float) -> Array:
    """n + 1 times whose square roots have equal gaps (DEIS, arXiv:2204.13902, appendix H.3)."""
    return _power_times(process, n, 2.0)[:k]


def trailing(process: NoiseProcess, n: int, k: int, power: float) -> Array:
    """Times T, T - T/n, ..., T/n, where T is counted from the noiseless time, without rounding.

    A table of N training times counts from -1, as diffusers' "trailing" does; VE, whose noiseless
    time is none (EDM's ln(sigma) / 4) or far below the trained ones, from that of sigma_min.
    """
    start, end = process.time([process.rho_max, process.rho_min])
    noiseless = -1.0 if isinstance(process, DiscreteVP) else 0.0
    noiseless = end if isinstance(process, VE) else noiseless
    times = noiseless + (start - noiseless) * (1 - np.arange(k) / n)
    return process.rho(np.maximum(times, end))


def leading(process: NoiseProcess, n: int, k: int, power: float) -> Array:
    """Multiples of T/n from the top one, (n-1) T/n, down to 0, plus 1 (diffusers "leading")."""
    start, end = process.time([process.rho_max, process.rho_min])
    if isinstance(process, DiscreteVP):
        times = np.arange(n - 1, n - 1 - k, -1) * ((start + 1) / n) + 1
        return process.rho(np.clip(times, end, start))
    return process.rho(start + np.arange(1, k + 1) / (n + 1) * (end - start))


def _between(process: NoiseProcess, k: int, axis: Axis, back: Axis) -> Array:
    """k levels, equally spaced on ``axis``, from the noisiest to the least."""
    if isinstance(process, Flow):
        high, low = axis(np.array([1.0, process.sigma_min]))
        sigma = back(np.linspace(float(high), float(low), k))
        return process.rho(np.minimum(sigma, 1.0) * process.num_train_timesteps)
    high, low = axis(np.array(_ends(process)))
    return back(np.linspace(float(high), float(low), k))


def karras(process: NoiseProcess, n: int, k: int, power: float) -> Array:
    """EDM's grid: levels whose ``power``-th roots have equal gaps (arXiv:2206.00364, eq. 5)."""
    return _between(process, k, lambda s: s ** (1 / power), lambda u: u**power)


def exponential(process: NoiseProcess, n: int, k: int, power: float) -> Array:
    """Levels with equal gaps in ln(sigma/alpha) (a flow: in ln(sigma))."""
    return _between(process, k, np.log, np.exp)


def logsnr(process: NoiseProcess, n: int, k: int, power: float) -> Array:
    """Equal gaps in lambda (DPM-Solver, arXiv:2206.00927, section 3)."""
    high, low = _ends(process)
    return np.exp(np.linspace(np.log(high), np.log(low), k))


def beta_quantiles(k: int) -> Array:
    """k quantiles of Beta(0.6, 0.6) of equally spaced probabilities, from 1 down to 0."""
    # A dependency of torchdiffeq, slow to import.
    from scipy.special import betaincinv

    return np.asarray(betaincinv(0.6, 0.6, 1 - np.arange(k) / max(k - 1, 1)), np.float64)


def beta(process: NoiseProcess, n: int, k: int, power: float) -> Array:
    """Network times at the quantiles of Beta(0.6, 0.6) (arXiv:2407.12173)."""
    start, end = process.time([process.rho_max, process.rho_min])
    return process.rho(end + (start - end) * beta_quantiles(k))


def tan(process: NoiseProcess, n: int, k: int, power: float) -> Array:
    """rho = tan(angle) with equal angles: optimal for unit Gaussian data (arXiv:2404.14507)."""
    end = np.arctan(process.rho_min) if k > n else 0.0
    return np.asarray(np.tan(np.linspace(np.arctan(process.rho_max), end, n + 1))[:k])


def softlog_levels(
    process: NoiseProcess,
    n: int,
    low: float = 0.1,
    high: float = 16.0,
    end: float = 0.0,
    start: float | None = None,
    last: float | None = None,
) -> Array:
    """n + 1 ratios with equal gaps in g = ln((1 + rho / low) / (1 + rho / high)), from ``start``.

    Logarithmic between ``low`` and ``high``, uniform in rho below, where the last steps to zero
    are, and uniform in 1 / rho above, where data of unit scale are all but drowned and one step
    does for any range: g is bounded, so that a start without signal needs no special case, and
    linear in rho near 0, so that the grid ends there. A flow's uniform sigma is low = high = 1.

    Args:
        process: gives rho_max.
        n: steps, >= 1.
        low, high: the ratios between which gaps are logarithmic, 0 < low < high.
        end: the last ratio.
        start: the first ratio; None means rho_max.
        last: the ratio before it, of the last node; None leaves it to the rule.
    """
    first = process.rho_max if start is None else start

    def g(rho: float) -> float:
        if np.isinf(rho):
            return float(np.log(high / low))
        return float(np.log1p(rho / low) - np.log1p(rho / high))

    def between(least: float, count: int) -> Array:
        growth = np.expm1(np.linspace(g(first), g(least), count))
        with np.errstate(divide="ignore"):
            return np.asarray(growth / (1 / low - (1 + growth) / high))

    levels = between(end, n + 1)
    if last is None and levels[-2] < process.rho_min < first:
        last = process.rho_min  # no network was trained below: the last step to 0 starts there
    if last is None or n == 1 or not last < first:
        return levels
    return np.append(between(last, n), end)


def softlog(process: NoiseProcess, n: int, k: int, power: float) -> Array:
    """The grid of :func:`softlog_levels`."""
    return softlog_levels(process, n, end=process.rho_min if k > n else 0.0)[:k]


GRIDS: dict[str, GridRule] = {
    "linspace": linspace,
    "trailing": trailing,
    "leading": leading,
    "quadratic": quadratic,
    "logsnr": logsnr,
    "karras": karras,
    "exponential": exponential,
    "beta": beta,
    "tan": tan,
    "softlog": softlog,
}
