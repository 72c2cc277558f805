"""Sizes of samples, and ratios of them that are 1 where there is nothing to compare.

A network may return the same number everywhere, or the same under both conditions: then a norm or
a deviation is 0, or no more than the rounding of 0, and its ratio to another says nothing. The
ratio is 1 there, so that what it would scale stays as it is. Each sample is looked at alone, no
value is read from a device, and gradients at 0 are 0.
"""

import math

import torch
from torch import Tensor

Size = float | Tensor  # one for all samples, or (n,)


def rows_of(value: Tensor) -> Tensor:
    """(n, d) elements of samples (n, ...), in float32 at least: squares of halves overflow."""
    wide = value.to(torch.promote_types(value.dtype, torch.float32))
    return wide.flatten(1) if wide.ndim > 1 else wide[:, None]


def inner(a: Tensor, b: Tensor) -> Tensor:
    """(n,) inner products of the samples."""
    return (rows_of(a) * rows_of(b)).sum(dim=1)


def norm(value: Tensor) -> Tensor:
    """(n,) Euclidean norms of the samples."""
    # Its gradient at 0 is 0, where that of a square root is NaN.
    size: Tensor = torch.linalg.vector_norm(rows_of(value), dim=1)
    return size


def root_mean_square(value: Tensor) -> Tensor:
    """(n,) roots of the mean squares of the samples."""
    rows = rows_of(value)
    return norm(rows) / math.sqrt(max(rows.shape[1], 1))


def deviation(value: Tensor) -> Tensor:
    """(n,) standard deviations of the samples' elements; 0 for samples of one element."""
    rows = rows_of(value)
    return rows.std(dim=1, correction=min(1, rows.shape[1] - 1))


def ratio(above: Size, below: Tensor, grain: Size = 0.0) -> Tensor:
    """(n,) ratios of two sizes, 1 where either is 0.

    Args:
        above, below: norms or deviations, >= 0.
        grain: what rounding alone would make of a size of 0; no larger ones count as 0.
    """
    least = _least(grain, below)
    return _quotient(above, below, (below <= least) | (above <= least))


def share(value: Tensor, axis: Tensor, grain: Size = 0.0) -> Tensor:
    """(n,) coefficients <value, axis> / |axis|^2 of projections onto an axis, 1 where that is 0.

    Args:
        value, axis: (n, ...).
        grain: the norm that rounding alone would give an axis of 0.
    """
    square = inner(axis, axis)
    return _quotient(inner(value, axis), square, square <= _least(grain**2, square))


def _least(grain: Size, like: Tensor) -> Tensor:
    # The reciprocal of a smaller number overflows.
    return torch.as_tensor(grain, dtype=like.dtype).clamp_min(torch.finfo(like.dtype).tiny)


def _quotient(above: Size, below: Tensor, empty: Tensor) -> Tensor:
    # The inner ``where`` keeps the unused quotient, and so its gradient, finite.
    return torch.where(empty, 1.0, above / torch.where(empty, 1.0, below))
