r"""Exact denoisers: data whose E[x0 | x] is known in closed form.

For x = alpha x0 + sigma noise and Gaussian data x0 ~ N(mu, s^2), with v = alpha^2 s^2 + sigma^2::

    E[x0 | x] = mu + (alpha s^2 / v) (x - alpha mu)

A mixture weighs this over its components k with their posterior probabilities, which are
proportional to w_k N(x; alpha mu_k, v_k). Everything is finite at alpha = 0 and at sigma = 0.
"""

import math

import torch
from torch import Tensor

from fewstep.schedules import NoiseProcess
from fewstep.types import Level

CHUNK_ELEMENTS = 2**22  # rows times components held at once: 32 MiB in float64
VARIANCE_FLOOR = 1e-30  # keeps the posterior of point masses at sigma = 0 finite in float32 too


class GaussianDenoiser:
    """Gaussian data with independent elements.

    Args:
        process: noise process of the levels.
        mean: of the data; broadcasts against one sample.
        std: of the data, >= 0; broadcasts against one sample.

    Raises:
        ValueError: if a standard deviation is negative.
    """

    def __init__(self, process: NoiseProcess, mean: Tensor | float, std: Tensor | float) -> None:
        self.process = process
        self.mean = torch.as_tensor(mean, dtype=torch.float64)
        self.std = torch.as_tensor(std, dtype=torch.float64)
        if bool((self.std < 0).any()):
            raise ValueError(f"std must be >= 0, got a minimum of {float(self.std.min()):g}")

    def __call__(self, x: Tensor, level: Level, cond: None = None) -> Tensor:
        if cond is not None:
            raise ValueError("GaussianDenoiser has no classes: cond must be None")
        mean, std = self.mean.to(x), self.std.to(x)
        variance = self._variance(std, level)
        # A point mass at sigma = 0 has variance 0, and its prediction is the point.
        gain = torch.where(variance > 0, level.alpha * std**2 / variance, 0.0)
        return mean + gain * (x - level.alpha * mean)

    def flow_map(self, x: Tensor, start: Level, end: Level) -> Tensor:
        """The exact probability-flow solution at ``end`` of the state ``x`` at ``start``.

        (x_end - alpha_end mu) / (x - alpha mu) = sqrt(v_end / v).
        """
        mean, std = self.mean.to(x), self.std.to(x)
        ratio = (self._variance(std, end) / self._variance(std, start)).sqrt()
        return end.alpha * mean + ratio * (x - start.alpha * mean)

    def sample_data(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Clean float64 samples of ``shape`` (n, ...)."""
        noise = torch.randn(shape, generator=generator, dtype=torch.float64)
        return self.mean + self.std * noise

    @staticmethod
    def _variance(std: Tensor, level: Level) -> Tensor:
        return (level.alpha * std) ** 2 + level.sigma**2


class MixtureDenoiser:
    """A mixture of isotropic Gaussians, class-conditional if its components have labels.

    ``cond`` is an (n,) integer tensor of classes, where the class ``num_classes`` means "any", or
    None for the whole mixture.

    Args:
        process: noise process of the levels.
        means: (K, ...) component means; the trailing shape is that of one sample.
        stds: (K,) or a float, standard deviations >= 0.
        weights: (K,) probabilities; scaled to sum to one. None means equal.
        labels: (K,) integer class of each component, 0 .. num_classes - 1.
        dtype: of the arithmetic; results come back in the dtype of ``x``. In float32 the squared
            distances of 256-dimensional images are good to about 1e-4.

    Raises:
        ValueError: if sizes disagree, or a weight or standard deviation is negative.
    """

    def __init__(
        self,
        process: NoiseProcess,
        means: Tensor,
        stds: Tensor | float,
        weights: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        count = means.shape[0]
        weights = torch.ones(count) if weights is None else weights
        stds = torch.as_tensor(stds, dtype=dtype, device=means.device).expand(count)
        sizes = [len(weights), *([] if labels is None else [len(labels)])]
        if any(size != count for size in sizes):
            raise ValueError(f"{count} means need as many weights and labels, got {sizes}")
        if bool((stds < 0).any()) or bool((weights < 0).any()):
            raise ValueError("stds and weights of a mixture must be >= 0")
        self.process, self.dtype = process, dtype
        self.shape = tuple(means.shape[1:])
        self.means = means.reshape(count, -1).to(dtype)
        # About their centre, squared distances from dot products cancel least.
        self.centre = self.means.mean(dim=0)
        self._offsets = self.means - self.centre
        self._lengths = self._offsets.square().sum(1)
        self.stds = stds
        self.log_weights = (weights.to(self.means) / weights.sum()).log()
        self.labels = labels
        self.num_classes = 0 if labels is None else int(labels.max()) + 1

    def to(self, device: torch.device | str) -> "MixtureDenoiser":
        """This mixture on another device."""
        return MixtureDenoiser(
            self.process,
            self.means.reshape(-1, *self.shape).to(device),
            self.stds.to(device),
            self.log_weights.exp().to(device),
            labels=None if self.labels is None else self.labels.to(device),
            dtype=self.dtype,
        )

    def __call__(self, x: Tensor, level: Level, cond: Tensor | None = None) -> Tensor:
        return self.denoise(x, level, cond)

    def null_cond(self, cond: Tensor) -> Tensor:
        """The condition "any class" of the shape of ``cond``."""
        return torch.full_like(cond, self.num_classes)

    def posterior(self, x: Tensor, level: Level, cond: Tensor | None = None) -> Tensor:
        """(n, K) probabilities that each sample came from each component."""
        return self._logits(x, level, cond).softmax(dim=1).to(x.dtype)

    def class_log_probs(self, x: Tensor, level: Level) -> Tensor:
        """(n, num_classes) log posterior probabilities of the classes, differentiable by x.

        Raises:
            ValueError: without classes.
        """
        if self.labels is None:
            raise ValueError("this mixture has no classes; pass labels=")
        logits = self._logits(x, level, None).log_softmax(dim=1)
        parts = [logits[:, self.labels == k].logsumexp(1) for k in range(self.num_classes)]
        return torch.stack(parts, dim=1).to(x.dtype)

    def denoise(self, x: Tensor, level: Level, cond: Tensor | None = None) -> Tensor:
        """E[x0 | x], of the shape and dtype of ``x`` (n, ...), in pieces of bounded memory.

        Raises:
            TypeError: for a condition that is no tensor.
            ValueError: for samples of another shape than the means', and labels that are not (n,).
        """
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(
                f"x has the shape {tuple(x.shape)}, and samples of this mixture (n, "
                f"{', '.join(map(str, self.shape))})"
            )
        rows = max(1, CHUNK_ELEMENTS // len(self.means))
        pieces = [slice(start, start + rows) for start in range(0, len(x), rows)]
        labels = cond if isinstance(cond, Tensor) else None
        if cond is not None and labels is None:
            raise TypeError(f"cond must be an (n,) tensor of classes, got {type(cond).__name__}")
        parts = [self._denoise(x[p], level, None if labels is None else labels[p]) for p in pieces]
        return torch.cat(parts).to(x.dtype) if parts else torch.empty_like(x)

    def _denoise(self, x: Tensor, level: Level, cond: Tensor | None) -> Tensor:
        share = self._logits(x, level, cond).softmax(dim=1)
        variance = self._variances(level)
        # mu + g (x - alpha mu) = (sigma^2 / v) mu + g x, without the cancellation in 1 - alpha g.
        keep = torch.where(variance > 0, level.sigma**2 / variance, 1.0)
        gain = torch.where(variance > 0, level.alpha * self.stds**2 / variance, 0.0)
        flat = x.flatten(1).to(self.dtype)
        return ((share * keep) @ self.means + (share @ gain)[:, None] * flat).view(x.shape)

    def score(self, x: Tensor, level: Level, cond: Tensor | None = None) -> Tensor:
        """Gradient of the log density of noisy data, (alpha E[x0 | x] - x) / sigma^2; sigma > 0."""
        return (level.alpha * self.denoise(x, level, cond) - x) / level.sigma**2

    def log_density(self, x: Tensor, level: Level, cond: Tensor | None = None) -> Tensor:
        """(n,) log density of the noisy data at x, in nats."""
        total = torch.logsumexp(self._logits(x, level, cond), dim=1)
        allowed = self._allowed(cond)
        if allowed is not None:
            prior = self.log_weights.expand_as(allowed).masked_fill(~allowed, -torch.inf)
            total = total - torch.logsumexp(prior, dim=1)
        return (total - 0.5 * self.means.shape[1] * math.log(2 * math.pi)).to(x.dtype)

    def sample_data(self, n: int, generator: torch.Generator, cond: Tensor | None = None) -> Tensor:
        """Clean samples (n, ...) in the mixture's dtype, of the classes ``cond`` if given."""
        prior = self.log_weights.expand(n, -1)
        allowed = self._allowed(cond)
        if allowed is not None:
            prior = prior.masked_fill(~allowed, -torch.inf)
        pick = torch.multinomial(prior.exp(), 1, generator=generator)[:, 0]
        noise = torch.randn(
            (n, self.means.shape[1]), generator=generator, dtype=self.dtype, device=pick.device
        )
        return (self.means[pick] + self.stds[pick, None] * noise).view(n, *self.shape)

    def _variances(self, level: Level) -> Tensor:
        return (level.alpha * self.stds) ** 2 + level.sigma**2

    def _allowed(self, cond: Tensor | None) -> Tensor | None:
        """(n, K): whether a component belongs to the class asked for."""
        if cond is None:
            return None
        if self.labels is None:
            raise ValueError("this mixture has no classes: cond must be None, or pass labels=")
        if cond.ndim != 1:
            raise ValueError(f"cond must be (n,) classes, got the shape {tuple(cond.shape)}")
        return (cond[:, None] == self.labels) | (cond[:, None] == self.num_classes)

    def _logits(self, x: Tensor, level: Level, cond: Tensor | None) -> Tensor:
        """(n, K) log of w_k N(x; alpha mu_k, v_k) without the factors of 2 pi."""
        centred = x.flatten(1).to(self.dtype) - level.alpha * self.centre
        distance = centred.square().sum(1, keepdim=True) + level.alpha**2 * self._lengths
        distance = (distance - (2 * level.alpha * centred) @ self._offsets.T).clamp_min(0)
        variance = self._variances(level).clamp_min(VARIANCE_FLOOR)
        dim = self.means.shape[1]
        logits = self.log_weights - 0.5 * (distance / variance + dim * variance.log())
        allowed = self._allowed(cond)
        return logits if allowed is None else logits.masked_fill(~allowed, -torch.inf)
