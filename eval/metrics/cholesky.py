"""Factors of covariances that may be singular, and the product F^T S F.

Singular covariances are ordinary: of fewer samples than dimensions, or with features that never
fire. Pivoting finds their rank, so that square roots of what is only rounding stay out.

Reference: Higham 2002, "Accuracy and Stability of Numerical Algorithms", section 10.3, and LAPACK's
``dpstrf`` for the stopping rule. Unlike there, nothing is swapped: rows that are done leave.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fewstep.finite import finite

EPS = 2.0**-52
# Columns a block: many enough for matrix products to dominate, few enough to skip most zeros.
BLOCK = 256
MIN_SIZE = 64
# Covariances summed in float32 have eigenvalues this far below zero, relative to the largest.
SLACK = 1e-6


@dataclass(frozen=True)
class Factor:
    """F with ``sigma = F @ F.T``.

    Attributes:
        matrix: (d, rank).
        lower: whether it is square and zero above the diagonal.
    """

    matrix: Tensor
    lower: bool = False

    @property
    def rank(self) -> int:
        return self.matrix.shape[1]

    @property
    def full(self) -> bool:
        """Whether sigma is regular."""
        return self.rank == len(self.matrix)


def factorise(sigma: Tensor) -> Factor:
    """Factor of a positive semidefinite matrix, with as many columns as its rank.

    Directions whose variance, given those before, is below d eps max(sigma_ii) (d taken as 64 at
    least, because the products that sigma is made of have rounding too) count as absent.

    Args:
        sigma: (d, d), float64, exactly symmetric, of entries whose squares neither overflow nor
            vanish.

    Raises:
        ValueError: if it is not finite, or an eigenvalue is below zero by more than 1e-6 of the
            largest.
    """
    not_finite = "sigma has values that are nan or infinite; use finite features"
    triangle, failed = torch.linalg.cholesky_ex(finite(sigma, not_finite))
    tolerance = max(len(sigma), MIN_SIZE) * EPS * float(sigma.diagonal().max())
    if not int(failed) and _smallest_eigenvalue(triangle) > tolerance:
        return Factor(triangle, lower=True)
    matrix, rest = _pivoted(sigma, tolerance)
    if rest <= 2 * tolerance:
        return Factor(matrix)
    return Factor(_semidefinite_root(sigma))


def congruence(factor: Factor, sigma: Tensor) -> Tensor:
    """F^T sigma F in the lower triangle, which is what ``eigvalsh`` reads; above it, undefined.

    Args:
        factor: F, (d, r).
        sigma: (d, d), symmetric.

    Returns:
        (r, r). Blocks that are zero, or above the diagonal, are not computed: for a triangular F
        that leaves 4/3 d^3 of the 4 d^3 operations of two matrix products.
    """
    matrix, size = factor.matrix, factor.rank
    product, out = torch.empty_like(matrix), sigma.new_zeros(size, size)
    for start in range(0, size, BLOCK):
        columns, first = slice(start, start + BLOCK), start if factor.lower else 0
        product[:, columns] = sigma[:, first:] @ matrix[first:, columns]
    for start in range(0, size, BLOCK):
        columns, first = slice(start, start + BLOCK), start if factor.lower else 0
        left = slice(0, start + BLOCK)
        out[columns, left] = matrix[first:, columns].T @ product[first:, left]
    return out


def _smallest_eigenvalue(triangle: Tensor) -> float:
    """Estimate of that of L L^T, by inverse iteration; it never comes out below it.

    Of a singular matrix, L may exist by rounding, with no pivot that is suspiciously small: that of
    a row with little part in the null space is not.
    """
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(len(triangle), 1, generator=generator, dtype=triangle.dtype)
    for _ in range(2):
        vector = torch.cholesky_solve(vector / vector.norm(), triangle)
    return 1 / float(vector.norm())


def _pivoted(sigma: Tensor, tolerance: float) -> tuple[Tensor, float]:
    """(d, r) with sigma = F F^T, and the largest entry of what is left of sigma."""
    rest, rows, blocks = sigma, torch.arange(len(sigma)), [sigma[:0]]
    while len(rows):
        panel, used = _panel(rest, tolerance)
        block = sigma.new_zeros(len(panel), len(sigma))
        block[:, rows] = panel
        blocks.append(block)
        keep = torch.ones(len(rows), dtype=torch.bool)
        keep[used] = False
        left = keep.nonzero()[:, 0]
        panel, rows = panel[:, left], rows[left]
        rest = rest.index_select(0, left).index_select(1, left)
        rest.addmm_(panel.T, panel, alpha=-1)
        if len(used) < BLOCK:
            break
    return torch.cat(blocks).T, float(rest.abs().max()) if len(rows) else 0.0


def _panel(rest: Tensor, tolerance: float) -> tuple[Tensor, list[int]]:
    """The next rows of F^T, at most a block of them, and the pivots they belong to."""
    panel = rest.new_zeros(min(BLOCK, len(rest)), len(rest))
    variance = rest.diagonal().clone()  # what the rows so far do not explain
    remaining, used = torch.ones_like(variance), list[int]()
    for k in range(len(panel)):
        pivot = int(variance.argmax())
        size = float(variance[pivot])
        if not size > tolerance:  # or nan, after rounding far above that of float64
            break
        row = torch.addmv(rest[pivot], panel[:k].T, panel[:k, pivot], alpha=-1)
        panel[k] = row * (remaining / size**0.5)
        variance.addcmul_(panel[k], panel[k], value=-1)
        variance[pivot], remaining[pivot] = -torch.inf, 0.0
        used.append(pivot)
    return panel[: len(used)], used


def _semidefinite_root(sigma: Tensor) -> Tensor:
    """Factor of the nearest semidefinite matrix, for covariances with the rounding of float32."""
    values, vectors = torch.linalg.eigh(sigma)  # finite, as `factorise` has seen
    smallest, largest = float(values[0]), float(values[-1])
    if smallest < -SLACK * largest or largest <= 0:
        raise ValueError(
            f"sigma has the eigenvalue {smallest:.3g} (largest {largest:.3g}), so it is not a "
            "covariance; compute it in float64 from (n, d) features"
        )
    keep = values > len(sigma) * EPS * largest
    root: Tensor = vectors[:, keep] * values[keep].sqrt()
    return root
