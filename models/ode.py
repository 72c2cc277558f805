r"""The probability-flow ODE solved by a general-purpose solver: references and a baseline.

One pair of variables serves every process, also where sampling starts without signal. With
rho = sigma / alpha, z = x / sqrt(alpha^2 + sigma^2) and w = -asinh(1 / rho)::

    dz/dw = -tanh(w) z - D(x)

It follows from dy/drho = (y - D) / rho for y = x / alpha. w is 0 at rho = inf, and behaves as
-1/rho at high and as ln(rho / 2) at low noise, where the solution has its features.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from fewstep.schedules import NoiseProcess
from fewstep.schedules.breaks import within
from fewstep.types import Denoiser, Level


def level_at(process: NoiseProcess, rho: float) -> Level:
    """The level at the ratio ``rho`` = sigma / alpha of a process."""
    alpha, sigma = process.from_rho(rho)
    return Level(float(process.time(rho)), float(alpha), float(sigma))


class FlowField:
    """dz/dw of the module docstring; counts the evaluations in ``calls``.

    ``step_rho`` is that of the levels at which the denoiser is asked.
    """

    def __init__(self, denoiser: Denoiser, cond: object = None) -> None:
        self.denoiser, self.cond, self.calls = denoiser, cond, 0
        self.step_rho: float | None = None

    def __call__(self, w: Tensor, z: Tensor) -> Tensor:
        level = level_at(self.denoiser.process, ratio_at(float(w)))
        x = math.hypot(level.alpha, level.sigma) * z
        return -math.tanh(float(w)) * z - self.denoise(x, level)

    def denoise(self, x: Tensor, level: Level) -> Tensor:
        """The denoiser's answer."""
        self.calls += 1
        return self.denoiser(x, replace(level, step_rho=self.step_rho), self.cond)


def ratio_at(w: float) -> float:
    """rho = -1 / sinh(w) for w <= 0."""
    return math.inf if w == 0 else -1 / math.sinh(w)


@torch.no_grad()
def reference_solution(
    denoiser: Denoiser,
    noise: Tensor,
    cond: object = None,
    *,
    method: str = "dopri8",
    tolerance: float = 1e-6,
    rho_end: float | None = None,
    breakpoints: Sequence[float] = (),
) -> tuple[Tensor, int]:
    """Solves the probability-flow ODE from the start of the denoiser's process to sigma -> 0.

    Args:
        denoiser: wrapped in its guidance, if there is any.
        noise: (n, ...) the state at the process's start. It is the integration dtype, float64 for
            references; float32 cannot meet tolerances below about 1e-6.
        cond: handed to the denoiser.
        method: an adaptive solver of torchdiffeq: ``dopri8``, ``dopri5``, ``bosh3`` ...
        tolerance: relative and absolute, on the root mean square over the batch of each step.
        rho_end: ratio where the integration ends and a last call predicts x0, with an error of
            order ``rho_end^2``; by default a hundredth of the least trained ratio. Networks should
            not be asked below ``process.rho_min``.
        breakpoints: ratios where the denoiser may jump, as guidance that is switched on there. The
            solver starts anew at each, and asks for a whole piece as one step of a sampler does:
            with ``Level.step_rho`` where the piece begins.

    Returns:
        The samples (n, ...) and the number of denoiser calls.
    """
    # Loads scipy, which nothing else here needs.
    from torchdiffeq import odeint

    process = denoiser.process
    rho_end = 0.01 * process.rho_min if rho_end is None else rho_end
    start, end = level_at(process, process.rho_max), level_at(process, rho_end)
    inside = within((process.rho_max, rho_end), breakpoints)
    field = FlowField(denoiser, cond)
    z = noise / math.hypot(start.alpha, start.sigma)
    for piece in pairwise([process.rho_max, *inside, rho_end]):
        field.step_rho = piece[0] if inside else None
        span = -np.arcsinh(1 / np.array(piece))
        times = torch.as_tensor(span, dtype=torch.float64, device=noise.device)
        z = odeint(field, z, times, method=method, rtol=tolerance, atol=tolerance)[-1]
    return field.denoise(math.hypot(end.alpha, end.sigma) * z, end), field.calls
