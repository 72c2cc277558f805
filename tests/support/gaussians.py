"""Features of known statistics, and their distance by another formula."""

import torch
from torch import Tensor

Gaussian = tuple[Tensor, Tensor]


def randn(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def features(n: int, dim: int, seed: int, decay: float = 0.5) -> Tensor:
    """Features about 1 whose standard deviations fall like i^-decay along random directions."""
    basis = torch.linalg.qr(randn(dim, dim, seed=seed))[0]
    return randn(n, dim, seed=seed + 1) * torch.arange(1, dim + 1) ** -decay @ basis + 1


def gaussian(rows: Tensor) -> Gaussian:
    return rows.mean(0), rows.T.cov()


def by_singular_values(first: Tensor, second: Tensor) -> float:
    """Distance of features, with tr((S_1 S_2)^1/2) as the singular values of X_1 X_2^T."""
    roots = [(x - x.mean(0)) / (len(x) - 1) ** 0.5 for x in (first, second)]
    traces = sum(float(root.square().sum()) for root in roots)
    cross = float(torch.linalg.svdvals(roots[0] @ roots[1].T).sum())
    return float((first.mean(0) - second.mean(0)).square().sum()) + traces - 2 * cross


def trace(*covariances: Tensor) -> float:
    return sum(float(covariance.trace()) for covariance in covariances)
