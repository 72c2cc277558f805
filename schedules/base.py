"""The interface of a noise process; see ``process.py`` for the idea and the members."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


class NoiseProcess(ABC):
    """Base class. ``rho_max`` is where sampling starts, ``rho_min`` the least trained ratio."""

    @property
    @abstractmethod
    def rho_max(self) -> float: ...

    @property
    @abstractmethod
    def rho_min(self) -> float: ...

    @abstractmethod
    def from_rho(self, rho: ArrayLike) -> tuple[Array, Array]:
        """(alpha, sigma) of the shape of ``rho``."""

    @abstractmethod
    def time(self, rho: ArrayLike) -> Array:
        """The network time at ratio ``rho``, of its shape.

        Outside the trained range the nearest trained time where the formula ends there (a table,
        ln(sigma)), and the formula itself elsewhere.
        """

    @abstractmethod
    def rho(self, time: ArrayLike) -> Array:
        """The ratio at a network time: the inverse of :meth:`time`."""

    def label(self, rho: ArrayLike) -> Array:
        """A time that stays smooth and strictly monotone down to rho = 0 (unlike ``time``)."""
        return self.time(rho)

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """A JSON description that tells this process from every other one."""

    def alpha_sigma(self, time: ArrayLike) -> tuple[Array, Array]:
        """(alpha, sigma) at network times."""
        return self.from_rho(self.rho(time))

    @property
    def start_scale(self) -> float:
        """Standard deviation of the noise that sampling starts from: 1, or sigma_max if VE."""
        return 1.0


def variance_preserving(rho: ArrayLike) -> tuple[Array, Array]:
    """(alpha, sigma) with alpha^2 + sigma^2 = 1, exact at rho = 0 and inf."""
    rho = np.asarray(rho, np.float64)
    alpha = 1 / np.hypot(1.0, rho)
    with np.errstate(invalid="ignore"):
        return alpha, np.where(np.isinf(rho), 1.0, rho * alpha)
