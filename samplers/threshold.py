"""Dynamic thresholding of data predictions (Imagen, arXiv:2205.11487, section 2.3)."""

from collections.abc import Callable

import torch
from torch import Tensor


def dynamic_threshold(ratio: float, cap: float) -> Callable[[Tensor], Tensor]:
    """Clips each sample to its own quantile s of |x0| and divides by s, where s > 1.

    Args:
        ratio: the quantile, in (0, 1].
        cap: largest s. diffusers' default of 1 would make this a plain clip to [-1, 1], which is
            not the method: a cap of 1 or less means none here.

    Raises:
        ValueError: if ratio is outside (0, 1].
    """
    if not 0 < ratio <= 1:
        raise ValueError(f"dynamic_thresholding_ratio must lie in (0, 1], got {ratio}")

    def clamp(data: Tensor) -> Tensor:
        flat = data.flatten(1)
        bound = torch.quantile(flat.abs(), ratio, dim=1, keepdim=True).clamp(min=1.0)
        if cap > 1:
            bound = bound.clamp(max=cap)
        return (flat.clamp(-bound, bound) / bound).view_as(data)

    return clamp
