"""KLUB(p), the cost of Align Your Steps, from predictions along forward paths of clean samples."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep.noise import seeded_noise
from fewstep.samplers.tuning.batches import finite_costs, parts, rows_of
from fewstep.schedules.grids import Grid
from fewstep.schedules.process import Array
from fewstep.types import Denoiser, Level


@torch.no_grad()
def prediction_distances(
    denoiser: Denoiser,
    samples: Tensor,
    fine: Grid,
    *,
    cond: Any = None,
    seed: int = 0,
    batch: int = 64,
) -> Array:
    """G[i, j] = E |D(x_i) - D(x_j)|^2 between the levels of a grid on common forward paths.

    Each sample follows one path, x / alpha = x0 + W(rho^2) with a Brownian motion W (Align Your
    Steps, arXiv:2404.14507: the earlier point is the later one with more noise). At
    rho = 0 the prediction is the sample itself.

    Args:
        denoiser: the model, guided if it will be.
        samples: (n, ...) clean data or samples of the model, in the dtype of the calls.
        fine: m levels, end included.
        cond: one row for each sample (a tensor or a mapping of them), or None.
        seed: of the paths; that of sample i depends on seed + i alone.
        batch: samples at a time; m times as many predictions are kept in float64.

    Returns:
        (m, m), symmetric, with zeros on the diagonal; a mean over elements too.

    Raises:
        ValueError: for no samples, or predictions that are not finite.
    """
    total = np.zeros((len(fine.rho), len(fine.rho)))
    for part in parts(samples, batch):
        rows = samples[part]
        seeds = range(seed + part.start, seed + part.stop)
        found = _on_paths(denoiser, rows, fine, rows_of(cond, part), seeds)
        total += _squared_distances(found) * len(rows)
    return finite_costs(total / len(samples))


def klub_cost(rho: Array, distances: Array, *, power: float = 3.0) -> Array:
    """KLUB(p): C[i, j] = integral of t^-p E |D(x_t) - D(x_i)|^2 dt from rho_j to rho_i.

    With p = 3 the sum over a grid bounds the divergence of a sampler that freezes the prediction
    over each step (Align Your Steps, arXiv:2404.14507, in rho = sigma / alpha). Other powers move
    the weight: low ones away from small noise. For Gaussian data of deviation s the best levels of
    p = 3 have equal gaps in ln(1 + s^2 / rho^2), and not equal angles atan(rho / s), which are best
    for DDIM itself.

    The rule is the trapezoid in ln t. Over a piece that ends at rho = 0 the squared difference is
    taken as the mean of its ends, and over one from rho = inf as falling like t^-2, as it does for
    data of finite variance.

    Args:
        rho: (m,) falling ratios; the first may be inf, the last may be 0.
        distances: (m, m) from :func:`prediction_distances`.
        power: p > -1; below 1 if the last ratio is 0.

    Raises:
        ValueError: for a power outside these.
    """
    if not power > -1 or (rho[-1] == 0 and not power < 1):
        allowed = "between -1 and 1 on levels that end at 0" if rho[-1] == 0 else "above -1"
        raise ValueError(
            f"the power of KLUB must be {allowed}, got {power}: end the fine grid at sigma_min "
            "for higher ones"
        )
    m = len(rho)
    pieces = np.zeros((m, m - 1))  # of the integral of t^-p G[i, t], by piece k -> k + 1
    for k, (high, low) in enumerate(pairwise(map(float, rho))):
        above, below = distances[:, k], distances[:, k + 1]
        if np.isinf(high):
            pieces[:, k] = below * low ** (1 - power) / (1 + power)
        elif low == 0:
            pieces[:, k] = (above + below) / 2 * high ** (1 - power) / (1 - power)
        else:
            ends = above * high ** (1 - power) + below * low ** (1 - power)
            pieces[:, k] = ends / 2 * np.log(high / low)
    return _from_pieces(pieces)


def _on_paths(
    denoiser: Denoiser, samples: Tensor, fine: Grid, cond: Any, seeds: Sequence[int]
) -> Tensor:
    """(m, n d) predictions in float64, from the least noise up."""
    found: list[Tensor] = []
    path = torch.zeros_like(samples)
    low = 0.0
    columns = (fine.rho, fine.time, fine.alpha, fine.sigma)
    levels = zip(*(column[::-1].tolist() for column in columns), strict=True)
    for key, (rho, time, alpha, sigma) in enumerate(levels):
        if rho == 0:
            found.append(samples)
            continue
        draw = seeded_noise(seeds, samples.shape[1:], key, samples.device, samples.dtype)
        if np.isinf(rho):
            x = draw  # unit noise; what the path was at finite levels is lost in it
        else:
            path, low = path + float(np.sqrt(rho**2 - low**2)) * draw, rho
            x = alpha * (samples + path)
        found.append(denoiser(x, Level(time, alpha, sigma), cond))
    return torch.stack([one.double().flatten() for one in reversed(found)])


def _squared_distances(rows: Tensor) -> Array:
    """(m, m) mean squared differences of the rows of an (m, k) tensor."""
    centred = rows - rows.mean(0)  # what all have in common would cancel
    gram = (centred @ centred.T / rows.shape[1]).cpu().numpy()
    squares = gram.diagonal()
    # A product with its own transpose is symmetric to rounding, on some processors no better.
    crossed = gram + gram.T
    return np.asarray(np.maximum(squares[:, None] + squares - crossed, 0.0))


def _from_pieces(pieces: Array) -> Array:
    """C[i, j] as the sum of pieces i .. j - 1 of row i; 0 on and below the diagonal."""
    upper = np.triu(np.ones(pieces.shape, bool))
    sums = np.cumsum(np.where(upper, pieces, 0.0), axis=1)
    return np.pad(sums, ((0, 0), (1, 0)))
