"""The Frechet distance without its bias by the number of samples, and how much it varies.

A distance of n samples is too large by about c / n, whoever made them::

    FD(n) = FD_infinity + c / n

so that a straight line in 1/n through several n meets the axis at FD_infinity.

Reference: Chong and Forsyth 2020, arXiv:1911.07023, section 4 (15 points from 5,000 samples up).
We take points evenly in 1/n, from half the samples up: with fewer than two samples a dimension the
bias no longer goes like 1/n. And we weigh them: a random m of n samples vary about all n with a
variance that goes like 1/m - 1/n.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fewstep.eval.metrics.frechet import Array, FrechetReference, as_features
from fewstep.eval.metrics.spread import BLOCKS, deviation, replicates, student

POINTS = 15


@dataclass(frozen=True)
class Extrapolation:
    """A line in 1/n fitted to distances.

    Attributes:
        value: at infinitely many samples. By chance it may lie below 0 where the truth is near 0.
        slope: c; the bias at n samples is about c / n. Much noisier than ``value`` where the
            distance is far above its bias.
        counts: n of the points.
        distances: of random subsets of that many samples.
    """

    value: float
    slope: float
    counts: tuple[int, ...]
    distances: tuple[float, ...]


@dataclass(frozen=True)
class Interval:
    """An estimate and the ends of its 95 % confidence interval."""

    value: float
    low: float
    high: float


def smallest_count(dim: int) -> int:
    """How many samples :func:`fd_infinity` needs for features of size ``dim``."""
    return max(4 * dim, 2 * POINTS)


def fd_infinity(
    features: Array, reference: FrechetReference, *, points: int = POINTS, seed: int = 0
) -> Extrapolation:
    """Extrapolates the distance to infinitely many samples, by weighted least squares.

    Args:
        features: (n, d), finite, n >= :func:`smallest_count` of d.
        reference: that the distances are from; its own bias, of its n, stays.
        points: of the line, >= 2.
        seed: of the subsets.

    Raises:
        ValueError: for too few samples or points.
    """
    rows = as_features(features)
    n, dim = rows.shape
    least = smallest_count(dim)
    if n < least:
        raise ValueError(
            f"fd_infinity needs 4 samples a dimension, {least} of {dim}, got {n}; raise n, or "
            "leave it out"
        )
    if points < 2:
        raise ValueError(f"points must be at least 2, got {points}; the default is {POINTS}")
    generator = torch.Generator().manual_seed(seed)
    counts = (1 / torch.linspace(2 / n, 1 / n, points, dtype=torch.float64)).round().long()
    distances = [
        reference.distance_of_features(rows[torch.randperm(n, generator=generator)[:count]])
        for count in counts.tolist()
    ]
    # The last point, of all samples, has no such variance: the line goes through it. With weights
    # 1/u of the others, u = 1/m - 1/n, the normal equation of the slope is that of two sums.
    rises = sum(distances) - points * distances[-1]
    slope = rises / float((1 / counts - 1 / n).sum())
    return Extrapolation(distances[-1] - slope / n, slope, tuple(counts.tolist()), tuple(distances))


def jackknife(features: Tensor, estimate: Callable[[Tensor], float], *, seed: int = 0) -> Interval:
    """A 95 % interval for the expectation of an estimate at this number of samples.

    That expectation holds the bias: an interval of a distance at n samples is for FD(n), not for
    FD_infinity. Each of 20 random blocks of the samples is left out in turn: 20 more evaluations.
    Samples of classes in fixed shares vary less than this says.

    Args:
        features: (n, d) with n >= 40.
        estimate: such as ``reference.distance_of_features``.
        seed: of the blocks.

    Raises:
        ValueError: for fewer samples.

    Reference:
        Efron and Stein 1981, Annals of Statistics 9:586; with Student's t of 19 degrees of freedom.
    """
    if len(features) < 2 * BLOCKS:
        raise ValueError(
            f"an interval needs at least {2 * BLOCKS} samples, got {len(features)}; raise n"
        )
    value = estimate(features)
    half = student(BLOCKS - 1) * deviation(replicates(features, estimate, seed=seed))
    return Interval(value, value - half, value + half)
