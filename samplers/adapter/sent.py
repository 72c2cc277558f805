"""What flow pipelines send in place of a number of steps.

Asked for n steps, most of them do not say n but write out n even levels, as an array, a tensor or a
list, in float64 or float32. That is no wish for these levels, so they are recognised by value.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fewstep.schedules.process import Array, Flow, NoiseProcess

TOLERANCE = 1e-6  # of a sigma in [0, 1]; float32 leaves 6e-8


@dataclass(frozen=True)
class Count:
    """n steps, written as the levels top (1 - i / n)."""

    n: int
    top: float

    def even(self, steps: int) -> Array:
        """The levels for another number of steps: a solver of two calls a step takes fewer."""
        return self.top * (1 - np.arange(steps) / steps)

    def __str__(self) -> str:
        return (
            f" (the sigmas sent are only num_inference_steps={self.n} written out as even levels; "
            "grid='diffusers' walks them)"
        )


@dataclass(frozen=True)
class Between:
    """n steps between the ``sigma_max`` and ``sigma_min`` that a flow's scheduler was assigned.

    Pipelines of Z-Image set ``sigma_min`` to 0 in some versions of diffusers.
    """

    n: int
    top: float
    least: float

    def even(self, steps: int) -> Array:
        """The levels for another number of steps: a solver of two calls a step takes fewer."""
        return np.linspace(self.top, self.least, steps)

    def __str__(self) -> str:
        return (
            f" (scheduler.sigma_max={self.top:g} and sigma_min={self.least:g}, as assigned, are "
            "the ends of grid='diffusers')"
        )


def count_in(process: NoiseProcess, timesteps: Any, sigmas: Any) -> Count | None:
    """The count that levels stand for, or None if they are a wish.

    ``linspace(1, 1 / n, n)`` and ``linspace(1, 0, n + 1)[:-1]`` are the same numbers, sent by the
    pipelines of Flux, Qwen-Image, HunyuanVideo, LTX, Z-Image and many more; Cosmos 3 starts at
    1 - 1/N. A last 0 may follow. Times beside them (CogView4) tell more than a count.
    """
    if sigmas is None or timesteps is not None or not isinstance(process, Flow):
        return None
    values = np.asarray([float(value) for value in sigmas])
    if len(values) > 1 and values[-1] == 0:
        values = values[:-1]
    for top in (1.0, 1 - 1 / process.num_train_timesteps):
        count = Count(len(values), top)
        if top and len(values) and np.abs(values - count.even(len(values))).max() <= TOLERANCE:
            return count
    return None


@dataclass(frozen=True)
class Pair:
    """n steps, written as whole times from N towards 1 and as the levels times / N.

    ``ends`` tells whether the last time is 1 (CogView4) or the one before it (GLM-Image).
    """

    n: int
    top: int
    ends: bool

    def even(self, steps: int) -> tuple[Array, Array]:
        """(times, levels) for another number of steps: a solver of two calls a step takes fewer."""
        points = np.linspace(self.top, 1.0, steps if self.ends else steps + 1)
        times = np.trunc(points[:steps])
        return times, times / self.top


def pair_in(process: NoiseProcess, timesteps: Any, sigmas: Any) -> Pair | None:
    """The count that times and levels together stand for, or None if they are a wish."""
    if sigmas is None or timesteps is None or not isinstance(process, Flow):
        return None
    given = [np.asarray([float(value) for value in values]) for values in (timesteps, sigmas)]
    n = len(given[0])
    for ends in (True, False):
        pair = Pair(n, process.num_train_timesteps, ends)
        same = (
            len(given[1]) == n
            and n > 0
            and [
                np.abs(values - even).max() <= TOLERANCE * scale
                for values, even, scale in zip(given, pair.even(n), (pair.top, 1), strict=True)
            ]
        )
        if same and all(same):
            return pair
    return None
