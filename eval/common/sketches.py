"""A few numbers that stand for many, compared within a tolerance and never hashed.

Devices and batch sizes round differently, and however coarsely one rounds before a hash, some
number lies at a boundary.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

SEED, VIEWS = 5, 3
# Of the numbers' root mean square. Networks in float32 agree to 1e-5 between devices.
TOLERANCE, EPSILONS = 1e-4, 8

Sketch = dict[str, Any]  # as JSON: "numbers" and the "tolerance" that they are compared within


def sketch(values: "Tensor", tolerance: float = TOLERANCE) -> Sketch:
    """Each row of (n, ...) values in the same random directions, in numbers as large as its own.

    What is not finite counts as 0: whoever samples from it refuses it by name.
    """
    import torch

    rows = values.detach().double().cpu().flatten(1).nan_to_num(0.0, 0.0, 0.0)
    size, generator = rows.shape[1], torch.Generator().manual_seed(SEED)
    directions = torch.randn(size, VIEWS, generator=generator, dtype=torch.float64)
    numbers = (rows @ directions / size**0.5).flatten()
    return {"numbers": numbers.tolist(), "tolerance": tolerance}


def agree(first: Mapping[str, Any] | None, second: Mapping[str, Any] | None) -> bool:
    """Whether two sketches are of the same values, up to rounding."""
    if first is None or second is None:
        return first is second
    ours, theirs = (np.array(one["numbers"], dtype=np.float64) for one in (first, second))
    if ours.shape != theirs.shape:
        return False
    scale = float(np.sqrt(np.mean(np.square([ours, theirs]))))
    tolerance = max(float(one["tolerance"]) for one in (first, second))
    return bool(np.abs(ours - theirs).max() <= tolerance * scale)


def tolerance_of(network: Any) -> float:
    """What rounding may change, by the least precise weights of a network."""
    import torch
    from torch import nn

    kinds = {w.dtype for w in network.parameters()} if isinstance(network, nn.Module) else set()
    sizes = [torch.finfo(kind).eps for kind in kinds if kind.is_floating_point]
    return max([TOLERANCE, *(EPSILONS * size for size in sizes)])
