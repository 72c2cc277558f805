"""The variance preserving process of a table of training times, and the tables diffusers names."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fewstep.schedules.base import Array, NoiseProcess, variance_preserving
from fewstep.schedules.limits import check_train_times


@dataclass(frozen=True)
class DiscreteVP(NoiseProcess):
    """Variance preserving, trained at N discrete times 0 .. N-1.

    Continuous in time: ln(alpha) is interpolated linearly between the training times (DPM-Solver,
    arXiv:2206.00927, appendix D.4, counts them from 1/N; here they keep the index that the network
    was trained with). A last level without signal (zero terminal SNR, arXiv:2305.08891) is
    reached by interpolating alpha itself over the last interval.

    Args:
        alphas_cumprod: squares of alpha, falling strictly within [0, 1]; only the last may be 0.
    """

    alphas_cumprod: tuple[float, ...]

    def __post_init__(self) -> None:
        levels = np.asarray(self.alphas_cumprod)
        if len(levels) < 2 or not np.all(np.isfinite(levels)):
            raise ValueError("alphas_cumprod needs at least two finite entries")
        if levels[0] > 1 or levels[-1] < 0 or np.any(np.diff(levels) >= 0):
            raise ValueError(
                "alphas_cumprod must fall strictly from at most 1 to at least 0; "
                f"got {levels[0]:g} .. {levels[-1]:g}"
            )

    @cached_property
    def _rhos(self) -> Array:
        squares = np.asarray(self.alphas_cumprod)
        with np.errstate(divide="ignore"):
            return np.asarray(np.sqrt((1 - squares) / squares))

    @cached_property
    def _log_alphas(self) -> Array:
        # Of the ratios, as in ``time``: so that the training levels map to whole times exactly.
        return np.asarray(-0.5 * np.log1p(self._rhos**2))

    @cached_property
    def alphas(self) -> Array:
        """(N,) factors 1 - beta of which ``alphas_cumprod`` is the running product."""
        products = np.asarray(self.alphas_cumprod)
        return np.append(products[:1], products[1:] / products[:-1])

    @property
    def num_train_timesteps(self) -> int:
        return len(self.alphas_cumprod)

    @property
    def rho_max(self) -> float:
        return float(self._rhos[-1])

    @property
    def rho_min(self) -> float:
        return float(self._rhos[0])

    def from_rho(self, rho: ArrayLike) -> tuple[Array, Array]:
        return variance_preserving(rho)

    def rho(self, time: ArrayLike) -> Array:
        time = np.clip(np.asarray(time, np.float64), 0, len(self.alphas_cumprod) - 1)
        index = np.minimum(time.astype(np.int64), len(self.alphas_cumprod) - 2)
        part = time - index
        low, high = self._log_alphas[index], self._log_alphas[index + 1]
        with np.errstate(invalid="ignore", divide="ignore"):
            log_alpha = np.where(part == 0, low, low + part * (high - low))
            alpha = np.where(np.isinf(high), (1 - part) * np.exp(low), np.exp(log_alpha))
            rho = np.sqrt(-np.expm1(2 * np.log(alpha))) / alpha
        # At the training times themselves the ratio is the schedule's, to the last bit.
        return np.where(
            part == 0, self._rhos[index], np.where(part == 1, self._rhos[index + 1], rho)
        )

    def time(self, rho: ArrayLike) -> Array:
        rho = np.clip(np.asarray(rho, np.float64), self._rhos[0], self._rhos[-1])
        last = len(self.alphas_cumprod) - 1
        log_alpha = -0.5 * np.log1p(rho**2)
        if np.isfinite(self._rhos[-1]):
            return np.asarray(np.interp(-log_alpha, -self._log_alphas, np.arange(last + 1.0)))
        inside = np.interp(-log_alpha, -self._log_alphas[:-1], np.arange(float(last)))
        ending = last - np.exp(log_alpha - self._log_alphas[-2])
        return np.asarray(np.where(rho > self._rhos[-2], ending, inside))

    def label(self, rho: ArrayLike) -> Array:
        # One unit further, where DPM-Solver's time i / N is 0, alpha is 1; without signal, N.
        rho = np.asarray(rho, np.float64)
        last = len(self.alphas_cumprod) - (0 if np.isfinite(self._rhos[-1]) else 1)
        log_alpha = -0.5 * np.log1p(rho**2)
        logs = self._log_alphas[:last]
        inside = np.interp(-log_alpha, np.append(0.0, -logs), np.arange(last + 1.0))
        silent = last + 1 - np.exp(log_alpha - logs[-1])
        return np.asarray(np.where(log_alpha < logs[-1], silent, inside))

    def identity(self) -> dict[str, Any]:
        # Rounded, since the last bits of a cumulative product differ between machines.
        text = " ".join(f"{level:.9e}" for level in self.alphas_cumprod)
        digest = hashlib.sha256(text.encode()).hexdigest()
        return {"process": "vp-discrete", "times": len(self.alphas_cumprod), "sha256": digest}


@dataclass(frozen=True)
class RangedVP(DiscreteVP):
    """A :class:`DiscreteVP` whose grids run between other levels than those of the table.

    Args:
        low: the least ratio.
        high: the greatest.
    """

    low: float = 0.0
    high: float = math.inf

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.low < self.high:
            raise ValueError(
                f"need 0 < sigma_min < sigma_max (sigma/alpha), got {self.low} and {self.high}"
            )

    @property
    def rho_max(self) -> float:
        return self.high

    @property
    def rho_min(self) -> float:
        return self.low


def ranged(table: DiscreteVP, low: float | None, high: float | None) -> DiscreteVP:
    """The table with the given ends; None leaves one where it is."""
    if low is None and high is None:
        return table
    ends = table.rho_min if low is None else low, table.rho_max if high is None else high
    return RangedVP(table.alphas_cumprod, *ends)


def _laplace(t: float) -> float:
    # Laplace log-SNR of arXiv:2407.03297; the outer root is that of diffusers, kept since models
    # were trained with it.
    half_log_snr = -0.5 * math.copysign(1.0, 0.5 - t) * math.log(1 - 2 * abs(0.5 - t) + 1e-6)
    return math.sqrt(1 / (1 + math.exp(-half_log_snr)))


# alpha squared as a function of time in [0, 1], from which betas are differences.
_ALPHA_BARS: dict[str, Callable[[float], float]] = {
    # Nichol and Dhariwal 2021, arXiv:2102.09672, eq. 17.
    "squaredcos_cap_v2": lambda t: math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2,
    "laplace": _laplace,
    "exp": lambda t: math.exp(-12 * t),
}


def betas(name: str, n: int, beta_start: float, beta_end: float) -> Array:
    """The n betas of a schedule that diffusers names, each in (0, 1).

    ``beta_start`` and ``beta_end`` count for linear, scaled_linear and sigmoid only; the others
    are differences of a function of time, capped at 0.999.

    Raises:
        ValueError: for an unknown name.
    """
    if name == "linear":
        return np.linspace(beta_start, beta_end, n)
    if name == "scaled_linear":
        return np.asarray(np.linspace(beta_start**0.5, beta_end**0.5, n) ** 2)
    if name == "sigmoid":
        return np.asarray(
            beta_start + (beta_end - beta_start) / (1 + np.exp(-np.linspace(-6, 6, n)))
        )
    level_at = _ALPHA_BARS.get("squaredcos_cap_v2" if name == "cosine" else name)
    if level_at is None:
        known = ", ".join(["linear", "scaled_linear", "sigmoid", *_ALPHA_BARS])
        raise ValueError(f"unknown beta_schedule {name!r}; known: {known}, or pass trained_betas")
    level = np.array([level_at(i / n) for i in range(n + 1)])
    return np.asarray(np.minimum(1 - level[1:] / level[:-1], 0.999))


def rescaled_to_zero_snr(alphas_cumprod: ArrayLike) -> Array:
    """Shift and scale alpha so that the last is exactly 0 (arXiv:2305.08891, algorithm 1)."""
    alpha = np.sqrt(np.asarray(alphas_cumprod, np.float64))
    return np.asarray(((alpha - alpha[-1]) * (alpha[0] / (alpha[0] - alpha[-1]))) ** 2)


def discrete_vp(
    beta_schedule: str = "linear",
    *,
    num_train_timesteps: int = 1000,
    beta_start: float = 1e-4,
    beta_end: float = 0.02,
    trained_betas: ArrayLike | None = None,
    zero_terminal_snr: bool = False,
) -> DiscreteVP:
    """A :class:`DiscreteVP` from betas, as diffusers writes them in its configs.

    Args:
        beta_schedule: linear, scaled_linear, squaredcos_cap_v2, sigmoid, laplace or exp.
        num_train_timesteps: length of the table, 2 to 100,000; that of ``trained_betas`` wins.
        beta_start: first beta, in (0, 1).
        beta_end: last beta, in (0, 1).
        trained_betas: the betas themselves, shape (N,), in place of a schedule.
        zero_terminal_snr: shift and scale alpha so that the last is exactly 0
            (arXiv:2305.08891, algorithm 1).

    Raises:
        ValueError: for an unknown schedule, another length, or betas that do not make alpha fall
            strictly.
    """
    if trained_betas is None:
        count = check_train_times(num_train_timesteps, 2)
        values = betas(beta_schedule, count, beta_start, beta_end)
    else:
        values = np.asarray(trained_betas, np.float64)
    squares = np.cumprod(1 - values)
    squares = rescaled_to_zero_snr(squares) if zero_terminal_snr else squares
    return DiscreteVP(tuple(squares.tolist()))
