"""Neighbours of samples among real ones, exactly and in bounded memory: AvgkNN, LOF, rarity.

Higher where real samples (features, (m, d)) are sparser. N_k(x) are the k real samples nearest to
x, by Euclidean distance, and r_k(p) the distance of a real p to its k-th other::

    AvgkNN(x) = mean of |x - p| over N_k(x)
    LOF(x)    = mean of lrd(p) over N_k(x), divided by lrd(x),
                where lrd(x) = 1 / mean of max(|x - p|, r_k(p)) over N_k(x)
    rarity(x) = min of r_k(p) over the real p with |x - p| < r_k(p)

A broken sampler raises all of them too: :mod:`fewstep.eval.metrics.density` gives them only
together with the share of samples off the support.

The papers on minority generation (arXiv:2301.12334, 2407.11555) name these measures. Their k could
not be confirmed: 5 for AvgkNN is what one public reimplementation takes, 20 for LOF the default of
scikit-learn and PyOD. 3 for rarity is what its authors' code takes.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

AVERAGE_K, LOF_K, RARITY_K = 5, 20, 3
TILE = 2**24  # squared distances in memory at once


def average_knn(x: Tensor, real: Tensor, k: int = AVERAGE_K) -> Tensor:
    """AvgkNN: mean distance to the k nearest real samples.

    Args:
        x: (n, d) new samples; one that is itself a row of ``real`` finds itself at distance 0.
        real: (m, d), finite, of the same dtype and device; float64 stays, others become float32.
        k: 1 to m.

    Returns:
        (n,), >= 0; nan or infinite where x is not finite.

    Raises:
        ValueError: if the shapes do not fit or k is out of range.

    Reference:
        Angiulli and Pizzuti, PKDD 2002; for generated images Sehwag et al., arXiv:2203.17260.
    """
    return nearest(x, real, k)[0].mean(1)


def local_outlier_factor(x: Tensor, real: Tensor, k: int = LOF_K) -> Tensor:
    """LOF of new samples: about 1 inside a cluster of any density, more outside.

    Args, returns and raises as :func:`average_knn`; k is 1 to m - 1.

    Reference:
        Breunig et al., SIGMOD 2000, definitions 5-7. N_k has k members also where distances tie,
        and densities are capped, as in scikit-learn: this is minus the ``score_samples`` of its
        ``LocalOutlierFactor(k, novelty=True)``.
    """
    return factor(*nearest(x, real, k), *reachability(real, k))


def rarity_score(x: Tensor, real: Tensor, k: int = RARITY_K) -> Tensor:
    """Radius of the smallest ball around a real sample, up to its k-th other, that contains x.

    Args and raises as :func:`average_knn`; k is 1 to m - 1.

    Returns:
        (n,), >= 0; **nan for a sample in no ball**, so that ``score.isnan()`` counts those and
        ``score.nanmean()`` leaves them out, as the paper does (its code gives them 0).

    Reference:
        Han et al., arXiv:2206.08549; checked against github.com/hichoe95/Rarity-Score.
    """
    return smallest_ball(x, real, nearest(real, real, k, others=True)[0][:, -1])


def tiles(x: Tensor, real: Tensor, most_rows: int = TILE) -> Iterator[tuple[slice, Tensor]]:
    """Row ranges of x and their squared distances to all of ``real``, up to rounding.

    Args:
        x, real: (n, d) and (m, d), as :func:`checked` returns them.
        most_rows: of a range, >= 1.
    """
    # Rounding is relative to the norms: measured from the centre, they are as small as they get.
    centre = real.mean(0)
    x, real = x - centre, real - centre
    squares, step = real.square().sum(1), max(1, min(most_rows, TILE // len(real)))
    for start in range(0, len(x), step):
        rows = slice(start, start + step)
        products = torch.addmm(squares, x[rows], real.T, alpha=-2)
        yield rows, products.add_(x[rows].square().sum(1, keepdim=True))


def nearest(x: Tensor, real: Tensor, k: int, *, others: bool = False) -> tuple[Tensor, Tensor]:
    """(n, k) distances to the nearest real samples, ascending, and their (n, k) indices.

    With ``others``, x is ``real`` and no sample is its own neighbour.
    """
    x, real = checked(x, real)
    most = len(real) - others
    if not 1 <= k <= most:
        raise ValueError(f"k must be 1 to {most} for {len(real)} real samples, got {k}")
    distances, indices = x.new_empty(len(x), k), x.new_empty(len(x), k, dtype=torch.int64)
    # The differences of a tile, below, are to be no larger than its distances.
    most_rows = max(1, TILE // (min(k + 8, most) * x.shape[1]))
    for rows, squared in tiles(x, real, most_rows):
        if others:
            squared.diagonal(rows.start).fill_(torch.inf)
        # A few more than k, then from differences: what the tiles round cannot change the answer.
        near = squared.topk(min(k + 8, most), largest=False).indices
        exact = torch.linalg.vector_norm(x[rows, None] - real[near], dim=-1)
        distances[rows], order = exact.topk(k, largest=False)
        indices[rows] = near.gather(1, order)
    return distances, indices


def checked(x: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Both on one device and in one precision: float64 if ``real`` is, else float32."""
    if x.ndim != 2 or real.ndim != 2 or x.shape[1] != real.shape[1] or not len(real):
        raise ValueError(
            f"samples and real samples must be (n, d) and (m, d) with the same d and m >= 1, got "
            f"{tuple(x.shape)} and {tuple(real.shape)}; flatten them first"
        )
    if not bool(real.isfinite().all()):
        raise ValueError("real samples must be finite, got nan or inf; drop those rows")
    dtype = torch.float64 if real.dtype == torch.float64 else torch.float32
    return x.detach().to(real.device, dtype), real.detach().to(dtype)


def reachability(real: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """r_k and lrd of every real sample, both (m,)."""
    distances, indices = nearest(real, real, k, others=True)
    radii = distances[:, -1]
    return radii, _density(distances, radii[indices])


def _density(distances: Tensor, radii: Tensor) -> Tensor:
    # The small number caps the density of k duplicates, as scikit-learn does.
    return 1 / (torch.maximum(distances, radii).mean(1) + 1e-10)


def factor(distances: Tensor, indices: Tensor, radii: Tensor, densities: Tensor) -> Tensor:
    return densities[indices].mean(1) / _density(distances, radii[indices])


def smallest_ball(x: Tensor, real: Tensor, radii: Tensor) -> Tensor:
    x, real = checked(x, real)
    # The smallest ball first: then the first that contains a sample is the one asked for.
    radii, order = radii.sort()
    smallest, limits = x.new_empty(len(x)), radii.square()
    for rows, squared in tiles(x, real[order]):
        inside = squared < limits
        smallest[rows] = radii[inside.byte().argmax(1)].where(inside.any(1), torch.nan)
    return smallest
