"""Exact problems under guidance: classes on a ring, pairs of Gaussians, a rare mode, networks."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.models.exact import MixtureDenoiser
from fewstep.samplers import sample
from fewstep.schedules import VE, ContinuousVP, NoiseProcess
from fewstep.types import Level

F64 = torch.float64
LEVEL = Level(0.4, 0.6, 0.8)
Spec = str


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=F64)


def ring(radius: float = 2.06, classes: int = 8, process: NoiseProcess | None = None):
    """Classes of unit variance on a ring; with 8 the data's own accuracy is .57, at 2.77 .71."""
    angle = torch.arange(classes) * (2 * math.pi / classes)
    means = radius * torch.stack([angle.cos(), angle.sin()], dim=1).to(F64)
    return MixtureDenoiser(process or VE(), means, 1.0, labels=torch.arange(classes))


def class_logits(model: MixtureDenoiser, x: Tensor, level: Level) -> Tensor:
    """log p(y, x) of one isotropic component a class, up to a constant; written out apart."""
    variance = (level.alpha * model.stds) ** 2 + level.sigma**2
    distance = (x[:, None] - level.alpha * model.means).square().sum(2)
    return model.log_weights - distance / (2 * variance) - model.means.shape[1] / 2 * variance.log()


def clean_logits(model: MixtureDenoiser):
    """The exact classifier of clean samples."""
    return lambda x: class_logits(model, x, Level(0.0, 1.0, 0.0))


def accuracy(model: MixtureDenoiser, x: Tensor, labels: Tensor) -> float:
    """The share that the exact classifier puts into the class asked for."""
    return float((clean_logits(model)(x).argmax(1) == labels).double().mean())


def shift(model: MixtureDenoiser, x: Tensor, labels: Tensor) -> float:
    """How much farther out than the class mean the samples are, along its direction."""
    means = model.means[labels]
    out = means / means.norm(dim=1, keepdim=True)
    return float(((x - means) * out).sum(1).mean())


class Blurred:
    """Conditional predictions mixed with ``share`` of the unconditional one."""

    def __init__(self, inner: MixtureDenoiser, share: float = 0.35) -> None:
        self.inner, self.share = inner, share
        self.process, self.num_classes = inner.process, inner.num_classes
        self.null_cond = inner.null_cond

    def __call__(self, x: Tensor, level: Level, cond: Any = None) -> Tensor:
        # Not lerp, whose rounding depends on the place in the batch.
        c, u = self.inner(x, level, cond), self.inner(x, level)
        return (1 - self.share) * c + self.share * u


class Pair:
    """One class, N(m1, v1), whose "unconditional" prediction is that of N(m0, v0)."""

    num_classes = 1

    def __init__(
        self, m0: float, v0: float, m1: float, v1: float, process: NoiseProcess | None = None
    ) -> None:
        self.means = torch.tensor([m1, m0], dtype=F64)
        self.variances = torch.tensor([v1, v0], dtype=F64)
        self.process = process or ContinuousVP()

    def null_cond(self, cond: Tensor) -> Tensor:
        return torch.ones_like(cond)

    def __call__(self, x: Tensor, level: Level, cond: Tensor | None = None) -> Tensor:
        which = torch.ones(len(x), dtype=torch.long) if cond is None else cond
        mean, variance = self.means[which][:, None], self.variances[which][:, None]
        gain = level.alpha * variance / (level.alpha**2 * variance + level.sigma**2)
        return mean + gain * (x - level.alpha * mean)


class Watched:
    """A denoiser that records the rows and conditions of its calls."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.process = inner, inner.process
        self.rows: list[int] = []
        self.levels: list[Level] = []
        self.conds: list[Any] = []
        for name in ("num_classes", "null_cond", "network", "latent"):
            if hasattr(inner, name):
                setattr(self, name, getattr(inner, name))

    def __call__(self, x: Tensor, level: Level, cond: Any = None) -> Tensor:
        self.rows.append(len(x))
        self.levels.append(level)
        self.conds.append(cond)
        return self.inner(x, level, cond)


class TimedGaussian(nn.Module):
    """The exact denoiser of N(0, v), told ln sigma through an embedding linear in it."""

    def __init__(self, variance: float = 0.7, width: int = 6) -> None:
        super().__init__()
        self.variance = variance
        self.time_embedding = nn.Linear(1, width, dtype=F64)
        direction = noise(width, seed=3)
        self.register_buffer("reading", direction / direction.square().sum())
        with torch.no_grad():
            self.time_embedding.weight.copy_(direction[:, None])
            offset = noise(width, seed=4)
            offset -= (offset @ self.reading) * direction  # is not read
            self.time_embedding.bias.copy_(offset)

    def forward(self, x: Tensor, log_sigma: Tensor) -> Tensor:
        told = self.time_embedding(log_sigma[:, None]) @ self.reading
        return self.variance / (self.variance + (2 * told).exp())[:, None] * x


class Timed:
    """Its denoiser."""

    process = VE(time_is="log")

    def __init__(self, variance: float = 0.7) -> None:
        self.network = TimedGaussian(variance).eval()

    def __call__(self, x: Tensor, level: Level, cond: Any = None) -> Tensor:
        return self.network(x, torch.full((len(x),), math.log(level.rho), dtype=F64))


def log_density(model: MixtureDenoiser, x: Tensor) -> Tensor:
    """Of clean data."""
    return torch.logsumexp(class_logits(model, x, Level(0.0, 1.0, 0.0)), dim=1)


def rare_mode(std: float = 0.4, half: float = 1.0, height: float = 1.5) -> MixtureDenoiser:
    """Two modes of 47.5 % each at (+-half, 0), and one of 5 % at (0, height)."""
    means = torch.tensor([[-half, 0.0], [half, 0.0], [0.0, height]], dtype=F64)
    return MixtureDenoiser(ContinuousVP(), means, std, torch.tensor([0.475, 0.475, 0.05]))


class Judge:
    """Shares of low density, off the support, and in the rare mode."""

    def __init__(self, model: MixtureDenoiser) -> None:
        self.model = model
        found = log_density(model, model.sample_data(200_000, generator(9)))
        self.bounds = {"low": found.quantile(0.1), "off": found.quantile(0.001)}

    def __call__(self, x: Tensor) -> dict[str, float]:
        found = log_density(self.model, x)
        shares = {k: float((found < bound).double().mean()) for k, bound in self.bounds.items()}
        nearest = (x[:, None] - self.model.means).square().sum(2).argmin(1)
        return {**shares, "rare": float((nearest == 2).double().mean())}


def draw(denoiser: Any, spec: Spec, nfe: int, n: int, **options: Any) -> Tensor:
    """n two-dimensional samples in float64, without gradients."""
    shape: Sequence[int] = options.pop("shape", (n, 2))
    with torch.no_grad():
        return sample(denoiser, spec, nfe, shape=shape, dtype=F64, **options)


class Images:
    """A smooth made-up denoiser of (n, 3, 4, 4), for what is a formula in two predictions."""

    num_classes = 8

    def __init__(self, process: NoiseProcess | None = None) -> None:
        self.process = process or ContinuousVP()

    def null_cond(self, cond: Tensor) -> Tensor:
        return torch.full_like(cond, 8)

    def __call__(self, x: Tensor, level: Level, cond: Tensor | None = None) -> Tensor:
        label = torch.full((len(x),), 8) if cond is None else cond
        gain = 1 + 0.3 * label.to(x)[:, None, None, None]
        return torch.tanh(gain * level.alpha * x + level.sigma * x.flip(1))
