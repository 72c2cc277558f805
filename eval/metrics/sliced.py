"""Sliced Wasserstein distance: optimal transport along random lines, where sorting solves it.

::

    SW2^2 = mean over directions u of the squared W2 distance of {u.x} and {u.y}

In one dimension W2^2 is the integral of the squared difference of the quantile functions. Those are
steps, so that the integral is a finite sum, also for sets of different counts.

Reference: Bonneel et al. 2015, J. Math. Imaging and Vision 51:22, section 4.
"""

import math

import numpy as np
import torch
from torch import Tensor

PROJECTIONS = 1000
COLUMNS = 64  # directions projected and sorted at once


def sliced_wasserstein(
    x: Tensor, y: Tensor, *, projections: int = PROJECTIONS, seed: int = 0
) -> float:
    """The distance SW2, not its square, in the unit of the samples.

    Of a shift by a vector s of size |s| in d dimensions it is |s| / sqrt(d) on average.

    Args:
        x, y: (n, d) and (m, d), finite, n and m >= 1; computed in float64.
        projections: directions, >= 1, uniform on the sphere.
        seed: of the directions.

    Raises:
        ValueError: if the shapes do not fit or a value is not finite.
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or not len(x) or not len(y):
        raise ValueError(
            f"samples must be (n, d) and (m, d) with n, m >= 1, got {tuple(x.shape)} and "
            f"{tuple(y.shape)}; flatten them first"
        )
    if not bool(x.isfinite().all()) or not bool(y.isfinite().all()):
        raise ValueError("samples have values that are nan or infinite; leave those out")
    if projections < 1:
        raise ValueError(f"projections must be at least 1, got {projections}")
    x, y = x.double(), y.double().to(x.device)
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(x.shape[1], projections, generator=generator, dtype=torch.float64)
    directions = (directions / directions.norm(dim=0)).to(x.device)
    rows, others, widths = (part.to(x.device) for part in _steps(len(x), len(y)))
    total = 0.0
    for lines in directions.split(COLUMNS, dim=1):
        first, second = (samples.matmul(lines).sort(dim=0).values for samples in (x, y))
        total += float(widths @ (first[rows] - second[others]).square().sum(1))
    return math.sqrt(total / projections)


def _steps(n: int, m: int) -> tuple[Tensor, Tensor, Tensor]:
    """Intervals on which both quantile functions are constant: ranks in each set, and widths."""
    # In units of 1 / (n m) all ends are integers.
    ends = np.union1d(np.arange(n + 1) * m, np.arange(m + 1) * n)
    starts, widths = ends[:-1], np.diff(ends) / (n * m)
    return torch.from_numpy(starts // m), torch.from_numpy(starts // n), torch.from_numpy(widths)
