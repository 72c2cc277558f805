r"""Noise processes: x_t = alpha_t x_0 + sigma_t noise.

Each process answers two questions in float64: the pair (alpha, sigma) at a network time, and the
network time at a noise-to-signal ratio ``rho = sigma / alpha = exp(-lambda)``. Between levels that
share a process everything a solver needs is a function of ``rho``, so grids are made of ratios:

======== ======================= ===========================================
process  alpha, sigma from rho   network time
======== ======================= ===========================================
VP       1/sqrt(1+rho^2), rho a  index of the training schedule, 0 .. N-1
VE       1, rho                  sigma, ln(sigma)/4 (EDM) or 2 atan(sigma)/pi
flow     1/(1+rho), rho a        N sigma, 0 .. N
======== ======================= ===========================================

``rho = 0`` (no noise) and ``rho = inf`` (no signal) are legal and exact.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from fewstep.schedules.base import Array, NoiseProcess, variance_preserving
from fewstep.schedules.discrete import DiscreteVP, betas, discrete_vp
from fewstep.schedules.limits import check_train_times

__all__ = [
    "VE",
    "Array",
    "ContinuousVP",
    "DiscreteVP",
    "Flow",
    "NoiseProcess",
    "betas",
    "discrete_vp",
]


@dataclass(frozen=True)
class ContinuousVP(NoiseProcess):
    """Variance preserving with beta linear in time (ScoreSDE, arXiv:2011.13456, eq. 33).

    ln(alpha) = -t^2 (beta_max - beta_min) / 4 - t beta_min / 2 for t in [t_min, 1]; the network
    is told ``time_scale`` t.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-3
    time_scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.beta_min < self.beta_max:
            raise ValueError(f"need 0 < beta_min < beta_max, got {self.beta_min}, {self.beta_max}")
        if not (0 < self.t_min < 1 and 0 < self.time_scale < np.inf):
            raise ValueError(
                f"need 0 < t_min < 1 and time_scale > 0, got {self.t_min}, {self.time_scale}"
            )

    @property
    def rho_max(self) -> float:
        return float(self.rho(self.time_scale))

    @property
    def rho_min(self) -> float:
        return float(self.rho(self.t_min * self.time_scale))

    def from_rho(self, rho: ArrayLike) -> tuple[Array, Array]:
        return variance_preserving(rho)

    def rho(self, time: ArrayLike) -> Array:
        t = np.asarray(time, np.float64) / self.time_scale
        return np.sqrt(np.expm1(t**2 * (self.beta_max - self.beta_min) / 2 + t * self.beta_min))

    def time(self, rho: ArrayLike) -> Array:
        # The positive root of the quadratic in t; written so that nothing cancels near t = 0.
        target = np.log1p(np.asarray(rho, np.float64) ** 2)
        slope = self.beta_max - self.beta_min
        t = 2 * target / (self.beta_min + np.sqrt(self.beta_min**2 + 2 * slope * target))
        return np.asarray(t * self.time_scale)

    def identity(self) -> dict[str, Any]:
        return {
            "process": "vp-continuous", "beta_min": self.beta_min, "beta_max": self.beta_max,
            "t_min": self.t_min, "time_scale": self.time_scale,
        }  # fmt: skip


@dataclass(frozen=True)
class VE(NoiseProcess):
    """Variance exploding: alpha = 1 (ScoreSDE; EDM, arXiv:2206.00364).

    ``time_is`` says what the network is told: ``"sigma"``, EDM's ``"log"`` = ln(sigma) / 4, or
    ``"atan"`` = 2 atan(sigma) / pi (Stable Audio).
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    time_is: Literal["sigma", "log", "atan"] = "sigma"

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max < np.inf:
            raise ValueError(
                f"need 0 < sigma_min < sigma_max, got {self.sigma_min}, {self.sigma_max}"
            )
        if self.time_is not in ("sigma", "log", "atan"):
            raise ValueError(f"time_is must be 'sigma', 'log' or 'atan', got {self.time_is!r}")

    @property
    def rho_max(self) -> float:
        return self.sigma_max

    @property
    def rho_min(self) -> float:
        return self.sigma_min

    @property
    def start_scale(self) -> float:
        return self.sigma_max

    def from_rho(self, rho: ArrayLike) -> tuple[Array, Array]:
        rho = np.asarray(rho, np.float64)
        return np.ones_like(rho), rho

    def rho(self, time: ArrayLike) -> Array:
        time = np.asarray(time, np.float64)
        if self.time_is == "atan":
            return np.asarray(np.tan(np.pi / 2 * time))
        return time if self.time_is == "sigma" else np.asarray(np.exp(4 * time))

    def time(self, rho: ArrayLike) -> Array:
        rho = np.asarray(rho, np.float64)
        if self.time_is == "atan":
            return np.asarray(2 / np.pi * np.arctan(rho))
        if self.time_is == "sigma":
            return rho
        # ln(0) has no place in a grid; the end point is not called.
        return np.asarray(np.log(np.maximum(rho, self.sigma_min)) / 4)

    def label(self, rho: ArrayLike) -> Array:
        return np.asarray(rho, np.float64)

    def identity(self) -> dict[str, Any]:
        return {
            "process": "ve", "sigma_min": self.sigma_min, "sigma_max": self.sigma_max,
            "time_is": self.time_is,
        }  # fmt: skip


@dataclass(frozen=True)
class Flow(NoiseProcess):
    """Rectified flow: alpha = 1 - sigma (arXiv:2209.03003), started from pure noise at sigma = 1.

    The network is told ``num_train_timesteps`` times sigma. ``sigma_min`` is the least sigma of
    training; a shift belongs to the grid, not to the process.
    """

    num_train_timesteps: int = 1000
    sigma_min: float = 1e-3

    def __post_init__(self) -> None:
        check_train_times(self.num_train_timesteps, 1)
        if not 0 < self.sigma_min < 1:
            raise ValueError(f"sigma_min of a flow must lie in (0, 1), got {self.sigma_min}")

    @property
    def rho_max(self) -> float:
        return float("inf")

    @property
    def rho_min(self) -> float:
        return self.sigma_min / (1 - self.sigma_min)

    def from_rho(self, rho: ArrayLike) -> tuple[Array, Array]:
        rho = np.asarray(rho, np.float64)
        alpha = 1 / (1 + rho)
        with np.errstate(invalid="ignore"):
            return alpha, np.where(np.isinf(rho), 1.0, rho * alpha)

    def rho(self, time: ArrayLike) -> Array:
        sigma = np.asarray(time, np.float64) / self.num_train_timesteps
        with np.errstate(divide="ignore"):
            return sigma / (1 - sigma)

    def time(self, rho: ArrayLike) -> Array:
        return self.num_train_timesteps * self.from_rho(rho)[1]

    def identity(self) -> dict[str, Any]:
        return {"process": "flow", "num_train_timesteps": self.num_train_timesteps}
