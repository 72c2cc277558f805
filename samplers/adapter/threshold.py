"""Dynamic thresholding of data predictions (Imagen, arXiv:2205.11487, section 2.3)."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class DynamicThreshold:
    """Clips each sample to its own quantile s of |x0| and divides by s, where s > 1.

    Args:
        ratio: the quantile, in [0, 1].
        cap: largest s. diffusers' default of 1 would make this a plain clip to [-1, 1], which is
            not the method: a cap of 1 or less means none here.

    Raises:
        ValueError: if ratio is outside [0, 1].
    """

    ratio: float = 0.995
    cap: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.ratio <= 1:
            raise ValueError(f"dynamic_thresholding_ratio must lie in [0, 1], got {self.ratio}")

    def __call__(self, data: Tensor) -> Tensor:
        flat = data.reshape(len(data), -1)  # flatten(1) refuses samples that are single numbers
        bound = torch.quantile(flat.abs(), self.ratio, dim=1, keepdim=True).clamp(min=1.0)
        if self.cap > 1:
            bound = bound.clamp(max=self.cap)
        return (flat.clamp(-bound, bound) / bound).view_as(data)
