"""Scores of samples of data that is known in closed form: no network, no features, no files.

``w2_gauss``
    W2 distance between the Gaussians of the samples' and of the data's moments, the root of the
    Frechet distance, in the unit of the data. The data's moments are exact::

        m = sum of w_k mu_k,    C = sum of w_k (s_k^2 I + (mu_k - m) (mu_k - m)^T)

``sw2``
    Sliced W2 distance to as many exact draws, 1,000 directions.
``mmd2``
    Unbiased squared MMD to the same draws with k(x, y) = exp(-|x - y|^2 / (2 tr C)): a bandwidth of
    the data, since |x - y|^2 is 2 tr C on average. Its expectation is 0 for a perfect sampler.

The first two have a floor that goes like 1/sqrt(n). For more than 10,000 samples, the last two take
the first 10,000.
"""

import torch
from torch import Tensor

from fewstep.eval.metrics.frechet import FrechetReference
from fewstep.eval.metrics.kid import unbiased_mmd2
from fewstep.eval.metrics.sliced import sliced_wasserstein
from fewstep.eval.problems import Problem
from fewstep.models.exact import GaussianDenoiser, MixtureDenoiser
from fewstep.types import Level

MOST = 10_000
PART = 512  # samples drawn at once: the draws of components take (n, K)
Exact = GaussianDenoiser | MixtureDenoiser


def exact_scores(
    problem: Problem, samples: Tensor, labels: Tensor | None = None, *, seed: int = 0
) -> dict[str, float]:
    """``w2_gauss``, ``sw2`` and ``mmd2`` of samples; see the module.

    Args:
        problem: that they are samples of, without guidance, which changes the distribution.
        samples: (n, ...), n >= 2; computed in float64 on the CPU.
        labels: (n,) classes that they were asked for; by default ``problem.labels(n)``.
        seed: of the exact draws and the directions.

    Returns:
        The scores by name; none for a problem without a closed form, or a run that diverged.

    Raises:
        ValueError: for fewer than two samples, or of another shape than the problem's.
    """
    denoiser = problem.denoiser
    if not isinstance(denoiser, Exact):
        return {}
    if tuple(samples.shape[1:]) != tuple(problem.shape):
        raise ValueError(
            f"samples of {problem.name} must be (n, {', '.join(map(str, problem.shape))}), got "
            f"{tuple(samples.shape)}"
        )
    if not bool(samples.isfinite().all()):
        return {}
    labels = problem.labels(len(samples)) if labels is None else labels
    x = samples.flatten(1).to("cpu", torch.float64)
    mean, covariance = exact_moments(denoiser, problem.shape, labels)
    gaussian = FrechetReference(mean, covariance).distance_of_features(x)
    x, labels = x[:MOST], None if labels is None else labels[:MOST]
    y = exact_draws(denoiser, problem.shape, len(x), labels, seed=seed).flatten(1)
    width = float(covariance.trace())
    return {
        "w2_gauss": gaussian**0.5,
        "sw2": sliced_wasserstein(x, y, seed=seed),
        "mmd2": unbiased_mmd2(
            x, y, lambda a, b: (torch.cdist(a, b).square_() / (-2 * width)).exp_()
        ),
    }


def exact_moments(
    denoiser: Exact, shape: tuple[int, ...], labels: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Mean (d,) and covariance (d, d) of the data, float64 on the CPU, in closed form.

    Args:
        denoiser: of the data.
        shape: of one sample, of d elements.
        labels: classes, of which the data is in the same shares; None for all of it.
    """
    if isinstance(denoiser, GaussianDenoiser):
        mean, std = (part.expand(shape).flatten().cpu() for part in (denoiser.mean, denoiser.std))
        return mean, std.square().diag()
    weights = denoiser.log_weights.exp()
    if labels is not None:
        classes, counts = labels.to(weights.device).unique(return_counts=True)
        # Each class is the components that carry it, in their own proportions.
        noise = Level(1.0, 0.0, 1.0)  # of which nothing can be told of the data
        origin = weights.new_zeros(len(classes), *shape)
        weights = counts.to(weights) / counts.sum() @ denoiser.posterior(origin, noise, classes)
    mean = weights @ denoiser.means
    about = denoiser.means - mean
    covariance = (about * weights[:, None]).T @ about
    covariance.diagonal().add_(weights @ denoiser.stds.square())
    return mean.double().cpu(), covariance.double().cpu()


def exact_draws(
    denoiser: Exact, shape: tuple[int, ...], n: int, labels: Tensor | None = None, *, seed: int = 0
) -> Tensor:
    """(n, ...) independent samples of the data, float64 on the CPU.

    Args:
        denoiser: of the data.
        shape: of one sample.
        n: how many, >= 1.
        labels: (n,) classes of the samples; None for any.
        seed: of the draws.
    """
    generator = torch.Generator().manual_seed(seed)
    if isinstance(denoiser, GaussianDenoiser):
        return denoiser.sample_data((n, *shape), generator)
    mixture = denoiser.to("cpu")
    parts = []
    for start in range(0, n, PART):
        stop = min(start + PART, n)
        classes = None if labels is None else labels[start:stop].cpu()
        parts.append(mixture.sample_data(stop - start, generator, classes).double())
    return torch.cat(parts)
