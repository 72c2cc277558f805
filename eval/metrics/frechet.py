"""Squared Frechet distance between two Gaussians, in float64 and without scipy.

::

    d = |mu_1 - mu_2|^2 + tr(S_1) + tr(S_2) - 2 tr((S_1 S_2)^1/2)

With S_1 = F F^T the last trace is the sum of the square roots of the eigenvalues of F^T S_2 F,
which is symmetric: nothing here can become complex. How it is taken:

1. equal covariances: it is tr(S_1);
2. features kept, no more of them than dimensions: F^T is the centred features;
3. otherwise F is a Cholesky factor of the covariance of lower rank, pivoted if that is singular;
4. both singular: the singular values of F_1^T F_2, because F^T S F may then be singular too, and
   the root of a zero that is off by eps is off by 1e-8.

Cholesky factors have their large columns first, and ``eigvalsh`` finds the small eigenvalues of
such graded matrices to far more digits than its general bound says: 1e-12 of the trace for
covariances of condition 1e12. Features have no such order, so rung 2 gives way to 3 when it meets
eigenvalues that it cannot tell from rounding.

Every factorisation is of covariances in units of about their largest deviation: products of those
in units of 1e80 would pass the largest float64, and LAPACK does with infinities as it likes.

Reference: Dowson and Landau 1982, J. Multivariate Analysis 12:450; arXiv:1706.08500, eq. 6. Unlike
the usual ``scipy.linalg.sqrtm(S_1 @ S_2)``, no root of a non-symmetric matrix is taken; of singular
covariances that root has errors of some 1e-6.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewstep.eval.metrics.cholesky import EPS, SLACK, Factor, congruence, factorise
from fewstep.finite import finite

Array = NDArray[np.floating] | Tensor

# What rounding may leave below zero, of the size of what is subtracted, or absolute below 1.
BELOW_ZERO = 1e-10
ASYMMETRY_BLOCK = 256


def frechet_distance(mu1: Array, sigma1: Array, mu2: Array, sigma2: Array) -> float:
    """Distance between N(mu1, sigma1) and N(mu2, sigma2); see the module for the formula.

    Args:
        mu1, mu2: (d,) means, any floating dtype; computed in float64 on the CPU.
        sigma1, sigma2: (d, d) covariances, symmetric and positive semidefinite to rounding.

    Returns:
        The squared distance, >= 0; inf where squares pass the largest float64.

    Raises:
        ValueError: wrong shapes or dtypes, values that are not finite, a covariance that is not
            symmetric or has eigenvalues clearly below zero.
    """
    return FrechetReference(mu2, sigma2).distance(mu1, sigma1)


def frechet_distance_low_rank(features: Array, mu2: Array, sigma2: Array) -> float:
    """Distance of the Gaussian fitted to ``features`` from N(mu2, sigma2), cheap for n < d.

    Args:
        features: (n, d) with n >= 2, any floating dtype. Their covariance has divisor n - 1.
        mu2, sigma2: (d,) and (d, d), as in :func:`frechet_distance`.

    Returns:
        The squared distance, >= 0.

    Raises:
        ValueError: as :func:`frechet_distance`, or fewer than two samples.
    """
    return FrechetReference(mu2, sigma2).distance_of_features(features)


class FrechetReference:
    """Statistics that others are compared with, checked and factorised once.

    Its factor is not kept in files: 2048 dimensions take 0.15 s to factorise, and 32 MiB to store.

    Args:
        mu: (d,) mean.
        sigma: (d, d) covariance.

    Raises:
        ValueError: as :func:`frechet_distance`.
    """

    def __init__(self, mu: Array, sigma: Array) -> None:
        self.mu, self.sigma = as_gaussian(mu, sigma, "the reference")
        self._trace = float(self.sigma.trace())
        self._unit = _unit(self.sigma.diagonal())
        self._scaled = _divided(self.sigma, self._unit**2)
        self._factor: Factor | None = None

    @property
    def factor(self) -> Factor:
        """F with sigma = F F^T, in units of about the largest deviation."""
        if self._factor is None:
            self._factor = factorise(self._scaled)
        return self._factor

    def distance(self, mu: Array, sigma: Array) -> float:
        """Distance of N(mu, sigma) from the reference; see :func:`frechet_distance`."""
        mean, covariance = as_gaussian(mu, sigma, "the samples")
        self._check_size(len(mean))
        unit = _unit(covariance.diagonal())

        def root() -> float:
            return unit * self._cross_trace(_divided(covariance, unit**2))

        return self._total(mean, float(covariance.trace()), root)

    def distance_of_features(self, features: Array) -> float:
        """Distance of (n, d) features; see :func:`frechet_distance_low_rank`."""
        rows = as_features(features)
        n, dim = rows.shape
        self._check_size(dim)
        centred = _centred(rows) / (n - 1) ** 0.5

        def root() -> float:
            unit = _unit(centred.square().sum(0))
            scaled = centred / unit
            low_rank = self._low_rank_trace(scaled) if n <= dim else None
            return unit * (self._cross_trace(scaled.T @ scaled) if low_rank is None else low_rank)

        return self._total(rows.mean(0), float(centred.square().sum()), root)

    def _cross_trace(self, covariance: Tensor) -> float:
        """tr((sigma covariance)^1/2) by rungs 1, 3 and 4; of both in their units."""
        if torch.equal(covariance, self._scaled):
            return float(covariance.trace())
        factor = factorise(covariance)
        if not factor.full and not self.factor.full:
            return _sum(torch.linalg.svdvals(factor.matrix.T @ self.factor.matrix))
        pair = (self.factor, covariance) if factor.full else (factor, self._scaled)
        return _sum_of_roots(torch.linalg.eigvalsh(congruence(*pair)))

    def _low_rank_trace(self, centred: Tensor) -> float | None:
        """Rungs 2 and 4; None if 2 fails."""
        if not self.factor.full:
            return _sum(torch.linalg.svdvals(centred @ self.factor.matrix))
        values = torch.linalg.eigvalsh(congruence(Factor(centred.T), self._scaled))
        if float(values[0]) <= len(values) * EPS * float(values[-1]):
            return None
        return _sum_of_roots(values)

    def _total(self, mean: Tensor, trace: float, root: Callable[[], float]) -> float:
        """The distance; ``root`` gives the trace of the root but for the unit of the reference."""
        positive = float((mean - self.mu).square().sum()) + trace + self._trace
        if not math.isfinite(positive):  # as everything was, its squares or sums are too large
            return math.inf
        total = positive - 2 * self._unit * root()
        if not total >= -BELOW_ZERO * max(1.0, positive):  # or nan
            raise ValueError(
                f"the distance came out as {total:.3g}, below zero beyond rounding; compute the "
                "statistics again in float64"
            )
        return max(0.0, total)

    def _check_size(self, dim: int) -> None:
        if dim != len(self.mu):
            raise ValueError(
                f"features of sizes {dim} and {len(self.mu)} cannot be compared; use statistics of "
                "the same extractor"
            )


def as_gaussian(mu: Array, sigma: Array, name: str) -> tuple[Tensor, Tensor]:
    """A mean (d,) and a covariance (d, d), checked, in float64, the latter exactly symmetric.

    Args:
        mu, sigma: numpy arrays or tensors.
        name: whose statistics these are, for the errors.

    Raises:
        ValueError: in one line that names the statistics and the remedy.
    """
    mean, covariance = _double(mu, f"mu of {name}"), _double(sigma, f"sigma of {name}")
    if mean.ndim != 1 or not len(mean) or covariance.shape != (len(mean), len(mean)):
        raise ValueError(
            f"mu and sigma of {name} must be (d,) and (d, d), got {tuple(mean.shape)} and "
            f"{tuple(covariance.shape)}; compute them from (n, d) features, one row a sample"
        )
    # A nan or an infinite entry makes the difference nan or infinite: one pass tests both.
    gap, largest = _asymmetry(covariance), float(covariance.diagonal().abs().max())
    if not np.isfinite(gap + largest) or not bool(mean.isfinite().all()):
        raise ValueError(
            f"mu or sigma of {name} has values that are nan or infinite; statistics need at least "
            "2 samples, all of them finite"
        )
    if gap > SLACK * largest:
        raise ValueError(
            f"sigma of {name} is not symmetric (entries differ by up to {gap:.3g}); use the "
            "covariance matrix of the features"
        )
    return mean, covariance if gap == 0 else (covariance + covariance.T) / 2


def as_features(features: Array, least: int = 2) -> Tensor:
    """Checked (n, d) features in float64 on the CPU.

    Raises:
        ValueError: not two-dimensional, n below ``least``, or values that are not finite.
    """
    rows = _double(features, "features")
    if rows.ndim != 2 or not rows.shape[1]:
        raise ValueError(
            f"features must be (n, d), one row a sample, got shape {tuple(rows.shape)}; use "
            "features.reshape(n, -1)"
        )
    if len(rows) < least:
        raise ValueError(f"statistics need at least {least} samples, got {len(rows)}; raise n")
    return finite(rows, "features have values that are nan or infinite; leave those samples out")


def _double(array: Array, name: str) -> Tensor:
    floating = (
        array.is_floating_point()
        if isinstance(array, Tensor)
        else np.asarray(array).dtype.kind == "f"
    )
    if not floating:
        raise ValueError(f"{name} must be floating point, got {array.dtype}; convert to float64")
    if isinstance(array, Tensor):
        return array.detach().to("cpu", torch.float64)
    return torch.from_numpy(np.require(array, np.float64, ["C", "W"]))


def _asymmetry(matrix: Tensor) -> float:
    """Largest |m_ij - m_ji|; in blocks, as reading a whole matrix down its columns is slow."""
    starts, block = range(0, len(matrix), ASYMMETRY_BLOCK), ASYMMETRY_BLOCK
    gaps = [
        (matrix[i : i + block, j : j + block] - matrix[j : j + block, i : i + block].T).abs().max()
        for i in starts
        for j in starts
        if j <= i
    ]
    return float(torch.stack(gaps).max())


def _centred(rows: Tensor) -> Tensor:
    """(n - 1, d) with the same sums of products as the n rows about their mean.

    Subtracting the mean would leave one combination of rows that is zero but for rounding. A
    reflection that takes (1, ..., 1) to the first axis puts the mean there, and it is dropped.
    """
    n = len(rows)
    axis = rows.new_full((n,), -(n**-0.5))
    axis[0] += 1
    about = rows - rows.mean(0)  # so that the reflection has no large mean to cancel
    return torch.addr(about, axis, axis @ about, alpha=-2 / float(axis @ axis))[1:]


def _unit(variances: Tensor) -> float:
    """A power of two near the largest deviation, by which numbers are divided without rounding."""
    size = float(variances.abs().max()) ** 0.5
    return 2.0 ** (math.frexp(size)[1] - 1) if size else 1.0


def _divided(covariance: Tensor, square: float) -> Tensor:
    return covariance if square == 1 else covariance / square


def _sum_of_roots(values: Tensor) -> float:
    # Those below zero are rounding: F^T S F is semidefinite, as both covariances are by now.
    return float(values.clamp_min(0).sqrt().sum())


def _sum(values: Tensor) -> float:
    return float(values.sum())
