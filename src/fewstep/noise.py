"""Noise that belongs to a sample: it depends on the sample's key, and on nothing else in the batch.

It is drawn on the CPU in float32, so that it is the same on every device.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

SPREAD = 0x9E3779B97F4A7C15  # odd: it spreads small numbers over all 64 bits of a key


def keyed_noise(
    keys: Iterable[int], shape: Sequence[int], device: Any = None, dtype: Any = None
) -> Tensor:
    """Returns (n, *shape) unit noise; row i depends on the i-th key, modulo 2^63, alone."""
    generator = torch.Generator()
    rows = []
    for key in keys:
        generator.manual_seed(key % 2**63)
        rows.append(torch.randn(tuple(shape), generator=generator))
    return torch.stack(rows).to(device=device, dtype=dtype)


def seeded_noise(
    seeds: Sequence[int], shape: Sequence[int], key: int, device: Any = None, dtype: Any = None
) -> Tensor:
    """Returns (len(seeds), *shape) unit noise; row i depends on ``seeds[i]`` and ``key`` alone.

    Args:
        seeds: one for each sample.
        shape: of one sample.
        key: tells the draws of one seed apart: 0 for the start, k for the k-th noise after it.
        device: where it is put.
        dtype: of what is returned.
    """
    return keyed_noise((seed + key * SPREAD for seed in seeds), shape, device, dtype)
