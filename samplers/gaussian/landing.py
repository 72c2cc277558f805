"""Where a Gaussian explains a model: down to which noise level its flow may stand in for it."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fewstep.noise import seeded_noise
from fewstep.samplers.gaussian.gaussian import Gaussian, level_of
from fewstep.schedules.base import Array
from fewstep.schedules.process import NoiseProcess
from fewstep.types import Denoiser

LEVELS_PER_DECADE = 6
HIGHEST, LOWEST = 100.0, 0.5  # where a landing is looked for, in units of the data's deviation


def unexplained(
    fit: Gaussian,
    denoiser: Denoiser,
    samples: Tensor,
    rhos: ArrayLike,
    *,
    cond: Any = None,
    labels: Tensor | None = None,
    seed: int = 0,
) -> Array:
    """E|D_G - D|^2 / E|D - m|^2 at noise levels: what of a model the Gaussian does not explain.

    m is the mean over all classes. The ratio falls to 0 at both ends for an exact model: far up
    both predict the mean, far down both return what they are given.

    Args:
        fit: predicts D_G.
        denoiser: the model D, with its guidance if there is any.
        samples: (n, ...) clean ones, of data or of the model; one batch of the denoiser.
        rhos: (k,) ratios sigma / alpha > 0; one call of the denoiser each.
        cond: handed to the denoiser.
        labels: (n,) classes, for fits by class.
        seed: of the noise, the same at all levels.

    Returns:
        (k,) ratios.
    """
    noise = seeded_noise(
        range(seed, seed + len(samples)), samples.shape[1:], 0, samples.device, samples.dtype
    )
    mean = fit.mean
    found = []
    for rho in np.atleast_1d(np.asarray(rhos, np.float64)):
        level = level_of(denoiser.process, float(rho))
        x = level.alpha * samples + level.sigma * noise
        with torch.no_grad():
            given = denoiser(x, level, cond).to(mean.dtype)
        gaussian = fit.denoise(x, level, labels).to(given)
        spread = (given - mean.to(given)).square().sum()
        found.append(float((gaussian - given).square().sum() / spread))
    return np.array(found)


def explained_level(
    fit: Gaussian,
    denoiser: Denoiser,
    samples: Tensor,
    *,
    threshold: float = 0.01,
    cond: Any = None,
    labels: Tensor | None = None,
    seed: int = 0,
) -> float | None:
    """The default rule: the lowest level down to which the Gaussian explains all but 1 %.

    Levels are tried from the noisiest down, six a decade, from 100 to 0.5 times the data's
    deviation. The first ones that fail are passed over (networks are poor where they were hardly
    trained); after the first that passes, the last before one that fails is refined on a straight
    line of the logarithms. The level does not depend on the number of calls, while the best one
    does: the more calls, the higher. Where a search is possible, prefer it.

    Args:
        threshold: of :func:`unexplained`, > 0.
        fit, denoiser, samples, cond, labels, seed: as there; up to 15 calls of the denoiser.

    Returns:
        sigma / alpha, or None if no level passes.
    """
    process = denoiser.process
    rhos = _searched(process, fit.std)
    before: tuple[float, float] | None = None
    for rho in rhos:
        share = float(
            unexplained(fit, denoiser, samples, rho, cond=cond, labels=labels, seed=seed)[0]
        )
        if share >= threshold:
            if before is None:
                continue
            upper, least = before
            part = math.log(threshold / max(least, 1e-300)) / math.log(share / max(least, 1e-300))
            return float(upper * (rho / upper) ** part)
        before = float(rho), share
    return None if before is None else before[0]


def _searched(process: NoiseProcess, std: float) -> Array:
    # Rounded down from the start of the process, which is no landing.
    high = min(HIGHEST * std, process.rho_max * 0.999)
    low = min(max(LOWEST * std, process.rho_min), high)
    count = 1 + math.ceil(LEVELS_PER_DECADE * math.log10(high / low))
    return np.geomspace(high, low, count)
