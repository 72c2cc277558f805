"""Precision, recall, density and coverage of generated samples among real ones.

Each set is taken for the union of balls around its samples, which reach to their k-th nearest other
sample of that set::

    precision = share of generated samples in some ball of the real ones
    recall    = share of real samples in some ball of the generated ones
    density   = balls of the real ones that a generated sample is in, on average, divided by k
    coverage  = share of real samples with a generated one in their ball

Precision, recall and coverage are 0 to 1; density may pass 1. They depend on the features, on k,
and on both counts, which belong to the result: ADM takes 10,000 real samples, 50,000 generated ones
and k = 3.

Reference: Kynkaanniemi et al. 2019, arXiv:1904.06991, eqs. 1 and 2 (k = 3); Naeem et al. 2020,
arXiv:2002.09797, eqs. 3 and 4 (k = 5). We take one k for both, and balls without their surface, as
the latter's code does; the former's includes it, which matters for samples that are copies.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fewstep.eval.metrics.neighbours import checked, nearest, tiles

K = 3
# Squared distances of tiles are off by 4 eps (|x|^2 + |p|^2) at most, in 2 to 2048 dimensions.
ROUNDING = 8
CLOSE = 2**22  # elements of the differences that settle what is closer than that to a surface


@dataclass(frozen=True)
class Manifold:
    """The four shares; see the module."""

    precision: float
    recall: float
    density: float
    coverage: float


def manifold(generated: Tensor, real: Tensor, k: int = K) -> Manifold:
    """All four in one pass over the distances, of which one tile is in memory at a time.

    Args:
        generated: (n, d), finite, n > k.
        real: (m, d), finite, m > k; float64 stays, others become float32.
        k: which neighbour a ball reaches to, >= 1.

    Raises:
        ValueError: if the shapes do not fit, a value is not finite, or k is out of range.
    """
    generated, real = checked(generated, real)
    inner = nearest(real, real, k, others=True)[0][:, -1]
    outer = nearest(generated, generated, k, others=True)[0][:, -1]
    precise, inside = 0, 0
    recalled, covered = (torch.zeros(len(real), dtype=torch.bool, device=real.device),) * 2
    for rows, squared in tiles(generated, real):
        in_real = _within(squared, inner, generated[rows], real)
        precise += int(in_real.any(1).sum())
        inside += int(in_real.sum())
        covered = covered | in_real.any(0)
        in_generated = _within(squared, outer[rows, None], generated[rows], real)
        recalled = recalled | in_generated.any(0)
    n = len(generated)
    return Manifold(
        precise / n, float(recalled.double().mean()), inside / (k * n),
        float(covered.double().mean()),
    )  # fmt: skip


def _within(squared: Tensor, radii: Tensor, x: Tensor, real: Tensor) -> Tensor:
    """(n, m) whether pairs of x and ``real`` are closer than radii, (m,) or (n, 1).

    A sample and a copy of it have the same neighbours, one of them on the surface of their ball:
    the rounding of a tile would put it on either side.
    """
    found, eps, centre = squared < radii.square(), torch.finfo(x.dtype).eps, real.mean(0)
    lengths = [(part - centre).square().sum(1) for part in (x, real)]
    off = torch.add(lengths[0][:, None], lengths[1]).mul_(ROUNDING * eps)
    unsure = ((squared - radii.square()).abs_() <= off).nonzero()
    radii = radii.expand(found.shape)
    for pairs in unsure.split(max(1, CLOSE // x.shape[1])):
        i, j = pairs.T
        exact = torch.linalg.vector_norm(x[i] - real[j], dim=-1)
        found[i, j] = exact < (1 - ROUNDING * eps) * radii[i, j]
    return found
