"""Classifier-free guidance: x0 = x0_uncond + scale (x0_cond - x0_uncond).

Ho and Salimans 2022, arXiv:2207.12598, eq. 6, with scale = 1 + w of the paper, so that 1 is off. As
x0 is affine in every prediction type, guiding x0 is guiding epsilon or v.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from fewstep.schedules import NoiseProcess
from fewstep.types import Denoiser, Level


@runtime_checkable
class HasNullCond(Protocol):
    """A denoiser that can write "no condition" as a condition, which lets it batch both."""

    def null_cond(self, cond: Any) -> Any: ...


def join(first: Any, second: Any) -> Any:
    """Two conditions as one of twice the rows: tensors, or dicts of them with equal keys."""
    if isinstance(first, Mapping):
        return {key: join(first[key], second[key]) for key in first}
    if isinstance(first, Tensor):
        return torch.cat([first, second])
    return second


def predict_both(denoiser: Denoiser, x: Tensor, level: Level, cond: Any) -> tuple[Tensor, Tensor]:
    """The unconditional and the conditional prediction, in one call of 2n rows where possible."""
    null = denoiser.null_cond(cond) if isinstance(denoiser, HasNullCond) else None
    if null is None:
        return denoiser(x, level, None), denoiser(x, level, cond)
    uncond, with_cond = denoiser(torch.cat([x, x]), level, join(null, cond)).chunk(2)
    return uncond, with_cond


class GuidedDenoiser:
    """A denoiser under classifier-free guidance; without a condition it is the plain denoiser."""

    def __init__(self, denoiser: Denoiser, scale: float) -> None:
        self.denoiser, self.scale = denoiser, scale

    @property
    def process(self) -> NoiseProcess:
        return self.denoiser.process

    def __call__(self, x: Tensor, level: Level, cond: Any = None) -> Tensor:
        if cond is None:
            return self.denoiser(x, level, None)
        uncond, with_cond = predict_both(self.denoiser, x, level, cond)
        return torch.lerp(uncond, with_cond, self.scale)


@dataclass(frozen=True)
class CFG:
    """Classifier-free guidance of a constant scale.

    Args:
        scale: 1 is the conditional prediction alone, 0 the unconditional one; above 1 guides.

    Raises:
        ValueError: if the scale is not finite.
    """

    scale: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale):
            raise ValueError(f"the scale of CFG must be finite, got {self.scale}")

    def wrap(self, denoiser: Denoiser) -> Denoiser:
        """The guided denoiser; at scale 1 the denoiser itself, which calls the network once."""
        return denoiser if self.scale == 1 else GuidedDenoiser(denoiser, self.scale)


def parse_guidance(text: str | None) -> CFG | None:
    """Guidance from its written form: ``"none"`` or ``"cfg:SCALE"``, as in ``"cfg:3"``.

    Raises:
        ValueError: for anything else.
    """
    if text is None or text == "none":
        return None
    kind, _, value = text.partition(":")
    try:
        scale = float(value)
    except ValueError:
        scale = math.nan
    if kind != "cfg" or not math.isfinite(scale):
        raise ValueError(f"unknown guidance {text!r}; write none or cfg:SCALE, for example cfg:3")
    return CFG(scale)
