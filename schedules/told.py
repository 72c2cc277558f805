"""A flow whose network is told something else than N sigma, by example: pairs of level and time.

CogView4 and GLM-Image give both. Their network is told t for the level that t / N becomes when it
is shifted, and a shift multiplies the ratio: (t / N) / (1 - t / N) is rho divided by the shift. So
ln of those odds is ln(rho) plus a constant between any two pairs, and is interpolated as a
function of ln(rho).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from fewstep.schedules.grids import Grid
from fewstep.schedules.process import Array, Flow


@dataclass(frozen=True)
class ToldFlow(Flow):
    """A :class:`Flow` with network times of their own.

    Args:
        rhos: the ratios of the pairs, falling.
        told: what the network is told there, in [0, num_train_timesteps], falling.
    """

    rhos: tuple[float, ...] = ()
    told: tuple[float, ...] = ()

    def time(self, rho: ArrayLike) -> Array:
        rho = np.asarray(rho, np.float64)
        levels, told = np.array(self.rhos[::-1]), np.array(self.told[::-1])
        even = super().rho(told)
        inside = np.isfinite(levels) & np.isfinite(even) & (levels > 0) & (even > 0)
        if not inside.any():
            return super().time(rho)
        with np.errstate(divide="ignore", invalid="ignore"):
            offsets = np.log(even[inside]) - np.log(levels[inside])
            offset = np.interp(np.log(rho), np.log(levels[inside]), offsets)
            times = super().time(rho * np.exp(offset))
        for level, time in zip(levels, told, strict=True):  # the pairs themselves, exactly
            times = np.where(rho == level, time, times)
        return np.asarray(times)

    def label(self, rho: ArrayLike) -> Array:
        # Solvers reckon with the level, whatever the network is told.
        return super().time(rho)


def told_grid(process: Flow, rho: Array, times: Array) -> Grid:
    """The grid of n levels, as ratios, and of the n times told there; it ends at 0.

    Raises:
        ValueError: if there is not one time for each level, or either does not fall.
    """
    if len(times) != len(rho):
        raise ValueError(
            f"{len(times)} timesteps beside {len(rho)} sigmas: give one time for each level, or "
            "only one of the two lists"
        )
    top = process.num_train_timesteps
    if np.any(np.diff(times) >= 0) or times[0] > top or times[-1] < 0:
        raise ValueError(
            f"timesteps beside sigmas must fall from at most {top} to at least 0, got "
            f"{times.tolist()}: sort them, or leave them out"
        )
    told = ToldFlow(top, process.sigma_min, rhos=tuple(rho.tolist()), told=tuple(times.tolist()))
    return Grid(told, np.append(rho, 0.0), np.append(times, 0.0), "timesteps and sigmas")
