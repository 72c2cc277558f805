"""Kernel distances between sets of features, unbiased, and tiled so that memory does not grow.

::

    MMD^2 = mean over i != j of k(x_i, x_j) + mean over i != j of k(y_i, y_j)
            - 2 mean over i, j of k(x_i, y_j)

The kernel inception distance has the cubic kernel k(x, y) = (x.y / d + 1)^3. Its expectation is 0
for equal distributions, at any number of samples; single values may lie below 0.

Reference: Binkowski et al. 2018, arXiv:1801.01401, section 4 and appendix A; Gretton et al. 2012,
JMLR 13:723, eq. 3.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from fewstep.eval.metrics.frechet import Array, as_features

SUBSETS, SIZE = 100, 1000
TILE = 1024  # rows of a block of the kernel matrix
Kernel = Callable[[Tensor, Tensor], Tensor]  # (a, d) and (b, d) to (a, b)


def kid(
    x: Array, y: Array, *, subsets: int = SUBSETS, size: int = SIZE, seed: int = 0
) -> tuple[float, float]:
    """KID as it is published: the mean over random subsets, of the same size of both sets.

    Args:
        x, y: (n, d) and (m, d) features, finite; computed in float64 on the CPU.
        subsets: how many, >= 2.
        size: samples in each, drawn without replacement, 2 to min(n, m).
        seed: of the draws.

    Returns:
        Mean and standard deviation (divisor ``subsets`` - 1) over the subsets. The second tells how
        much one subset varies: it is not the error of the mean, as subsets share samples.

    Raises:
        ValueError: for other shapes, or a size that is out of range.
    """
    x, y = _pair(x, y)
    most = min(len(x), len(y))
    if not 2 <= size <= most or subsets < 2:
        raise ValueError(
            f"kid needs subsets >= 2 of a size of 2 to {most}, got {subsets} of {size}; raise n or "
            "lower the size"
        )
    generator = torch.Generator().manual_seed(seed)
    values = torch.empty(subsets, dtype=torch.float64)
    for i in range(subsets):
        picked = [s[torch.randperm(len(s), generator=generator)[:size]] for s in (x, y)]
        values[i] = unbiased_mmd2(picked[0], picked[1], cubic)
    return float(values.mean()), float(values.std())


def kid_all_pairs(x: Array, y: Array) -> float:
    """The same expectation from all pairs at once: the estimate of least variance.

    Args and raises as :func:`kid`; n and m are at least 2. Takes O(n m d) time.
    """
    x, y = _pair(x, y)
    return unbiased_mmd2(x, y, cubic)


def cubic(x: Tensor, y: Tensor) -> Tensor:
    """(a, b) values of (x.y / d + 1)^3."""
    return (x @ y.T / x.shape[1]).add_(1).pow_(3)


def unbiased_mmd2(x: Tensor, y: Tensor, kernel: Kernel, tile: int = TILE) -> float:
    """Unbiased squared maximum mean discrepancy; see the module for the formula.

    Args:
        x, y: (n, d) and (m, d), n and m >= 2.
        kernel: symmetric.
        tile: rows of a block; blocks of tile^2 values are in memory at once.
    """
    return _among(x, kernel, tile) + _among(y, kernel, tile) - 2 * _between(x, y, kernel, tile)


def _among(x: Tensor, kernel: Kernel, tile: int) -> float:
    """Mean over ordered pairs of different rows; blocks below the diagonal equal those above."""
    parts, total = x.split(tile), 0.0
    for i, rows in enumerate(parts):
        own = kernel(rows, rows)
        total += float(own.sum() - own.diagonal().sum())
        total += sum(2 * float(kernel(rows, later).sum()) for later in parts[i + 1 :])
    return total / (len(x) * (len(x) - 1))


def _between(x: Tensor, y: Tensor, kernel: Kernel, tile: int) -> float:
    pairs = ((a, b) for a in x.split(tile) for b in y.split(tile))
    return sum(float(kernel(a, b).sum()) for a, b in pairs) / (len(x) * len(y))


def _pair(x: Array, y: Array) -> tuple[Tensor, Tensor]:
    x, y = as_features(x), as_features(y)
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"features of sizes {x.shape[1]} and {y.shape[1]} cannot be compared; take both from "
            "one extractor"
        )
    return x, y
