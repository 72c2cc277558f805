"""What a model does: its answers to fixed noise at two levels.

Weights and code do not tell all. What a file, a package or the environment gave a model shows in
nothing but what it does.
"""

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.eval.common.sketches import SEED, Sketch, agree, sketch, tolerance_of
from fewstep.eval.networks.micro_batches import strict_float32, strict_products
from fewstep.eval.problems.user_code import told_of
from fewstep.models.calls import returned
from fewstep.models.ode import level_at
from fewstep.schedules import NoiseProcess
from fewstep.types import Denoiser

ROWS = 2
# Beyond these ratios sigma / alpha a sample is all data, or all noise.
LEAST, MOST = 1e-3, 1e3


def answers(
    name: str, denoiser: Denoiser, shape: tuple[int, ...], classes: int, device: str,
    dtype: torch.dtype,
) -> Sketch | None:  # fmt: skip
    """A model's answers to two rows of noise at two levels; None, and a warning, if they vary.

    Three calls, whatever the model: the first one is made twice.

    Args:
        name: for messages.
        denoiser, shape, classes, device, dtype: of the problem.

    Raises:
        ValueError: in one line, if the model fails, or answers in another shape.
    """
    generator = torch.Generator().manual_seed(SEED)
    noise = torch.randn(2, ROWS, *shape, generator=generator, dtype=torch.float64)
    tolerance = tolerance_of(getattr(denoiser, "network", None))

    def asked(number: int, rho: float) -> Tensor:
        level = level_at(denoiser.process, rho)
        x = (math.hypot(level.alpha, level.sigma) * noise[number]).to(device, dtype)
        labels = torch.tensor([number, -1 - number], device=device) % classes if classes else None
        return _called(name, lambda: denoiser(x, level, labels), x)

    with torch.no_grad(), strict_float32(torch.device(device)), strict_products():
        first, second = _ratios(denoiser.process)
        once, again, other = asked(0, first), asked(0, first), asked(1, second)
    if agree(sketch(once, tolerance), sketch(again, tolerance)):
        return sketch(torch.cat([once, other]), tolerance)
    warnings.warn(
        f"{name} gives two answers to one input{_why(denoiser)}: nothing made with it can be made "
        "again, and no solution of it is kept",
        stacklevel=2,
    )
    return None


def _ratios(process: NoiseProcess) -> tuple[float, float]:
    """sigma / alpha at a third and two thirds of the way, where structure and details are made."""
    low, high = math.log(max(process.rho_min, LEAST)), math.log(min(process.rho_max, MOST))
    return math.exp((2 * low + high) / 3), math.exp((low + 2 * high) / 3)


def _called(name: str, call: Callable[[], Any], x: Tensor) -> Tensor:
    with told_of(name, f"calling it with {ROWS} samples"):
        return returned(call(), x, "the denoiser")


def _why(denoiser: Denoiser) -> str:
    network = getattr(denoiser, "network", None)
    if isinstance(network, nn.Module) and network.training:
        return " (its network is in training mode, where dropout draws: call .eval() on it)"
    return " (it draws, or keeps count)"
