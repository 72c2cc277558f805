"""Gaussians fitted to samples, of data or of a model, in memory that does not grow with n."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fewstep.finite import finite
from fewstep.samplers.gaussian.class_gaussians import ClassGaussians
from fewstep.samplers.gaussian.gaussian import GaussianFit

EXACT_ELEMENTS = 2048  # up to so many elements of a sample: the whole covariance, 32 MiB
RANK = 64  # axes kept; more change little, and of latents of 4x64x64 these take 8 MiB
CHUNK_ELEMENTS = 2**22  # of samples held in float64 at once: 32 MiB
OVERSAMPLING, POWERS = 16, 4  # of the randomised decomposition
TOO_LARGE = (
    "squares of samples pass the largest float64, so they have no covariance: scale them down"
)

Samples = Tensor | Sequence[Tensor]
Fit = Callable[[Samples], GaussianFit]


def fit_gaussian(samples: Samples, *, rank: int | None = None, seed: int = 0) -> GaussianFit:
    """Mean and covariance as ``rank`` principal axes and an isotropic rest.

    Statistics are float64 on the CPU, and the same for every device and batch size up to rounding.
    Up to 2,048 elements the covariance is decomposed exactly; above, by randomised subspace
    iteration, which reads the samples seven times. The rest has the variance that is left.

    Args:
        samples: (n, ...) in the units of the model, n >= 2, or a sequence of such batches, which
            may read them from a disk.
        rank: 0 <= rank <= d elements of a sample; None means 64, or d if that is less.
        seed: of the randomised decomposition.

    Raises:
        ValueError: for samples that are not finite floating-point numbers of one shape, too few of
            them, or a rank out of its range.

    Reference:
        Halko, Martinsson and Tropp 2011, arXiv:0909.4061, algorithms 4.4 and 5.3.
    """
    rows = _Rows.of(samples)
    d = len(rows.mean)
    rank = min(d, RANK) if rank is None else rank
    if not 0 <= rank <= d:
        raise ValueError(f"rank must be between 0 and the {d} elements of a sample, got {rank}")
    total = sum(float(part.square().sum()) for part in rows) / (rows.n - 1)
    variances, basis = rows.mean.new_zeros(0), rows.mean.new_zeros(d, 0)
    if rank:
        exact = d <= EXACT_ELEMENTS
        found = _exact(rows) if exact else _randomised(rows, min(d, rank + OVERSAMPLING), seed)
        # eigh has them in rising order.
        variances = found[0][-rank:].flip(0).clamp_min(0)
        basis = found[1][:, -rank:].flip(1).contiguous()
    left = max(0.0, total - float(variances.sum())) / (d - rank) if rank < d else 0.0
    return GaussianFit(
        rows.shape, rows.mean.view(rows.shape), rows.mean.new_tensor(left), basis, variances
    )


def fit_channels(samples: Samples) -> GaussianFit:
    """A mean and a variance for each channel: the cheapest fit, for latents of any size.

    Args:
        samples: (n, c, ...) in the units of the model, n >= 2, or a sequence of such batches.

    Raises:
        ValueError: as :func:`fit_gaussian`, and for samples without a channel axis.
    """
    rows = _Rows.of(samples)
    if len(rows.shape) < 2:
        raise ValueError(
            f"samples need a channel axis and others behind it, got shape {rows.shape}; use "
            "fit_gaussian"
        )
    c = rows.shape[0]
    per_pixel = rows.mean.view(c, -1)
    mean = per_pixel.mean(1)
    within = sum(
        (part.view(len(part), c, -1).square().mean(2).sum(0) for part in rows), torch.zeros(c)
    )
    # Within a pixel, and between the means of the pixels.
    variance = within / (rows.n - 1) + (per_pixel - mean[:, None]).square().mean(1)
    free = [1] * (len(rows.shape) - 1)
    none = rows.mean.new_zeros(len(rows.mean), 0)
    return GaussianFit(rows.shape, mean.view(c, *free), variance.view(c, *free), none, none[0])


def fit_classes(samples: Tensor, labels: Tensor, fit: Fit = fit_gaussian) -> ClassGaussians:
    """A Gaussian for each class.

    Args:
        samples: (n, ...) in the units of the model.
        labels: (n,) whole numbers 0 .. K - 1, each with two samples or more.
        fit: makes one from the samples of a class: :func:`fit_gaussian`, :func:`fit_channels`, or
            ``functools.partial(fit_gaussian, rank=16)``.

    Raises:
        ValueError: for labels that do not fit, and as ``fit``.
    """
    owner = _owners(samples, labels)
    return ClassGaussians(tuple(fit(samples[owner == k]) for k in range(int(owner.max()) + 1)))


def fit_shared(
    samples: Tensor, labels: Tensor, *, rank: int | None = None, seed: int = 0
) -> ClassGaussians:
    """A mean for each class and one covariance, that within classes, for few samples of each.

    Args:
        samples, labels: as for :func:`fit_classes`.
        rank, seed: as for :func:`fit_gaussian`.

    Raises:
        ValueError: as these.
    """
    owner = _owners(samples, labels)
    count = int(owner.max()) + 1
    means = torch.stack([samples[owner == k].double().mean(0) for k in range(count)])
    own = fit_gaussian(samples - means[owner].to(samples), rank=rank, seed=seed)
    return ClassGaussians(tuple(replace(own, mean=mean) for mean in means.cpu()))


def _owners(samples: Tensor, labels: Tensor) -> Tensor:
    if labels.shape != samples.shape[:1] or labels.is_floating_point() or not len(labels):
        raise ValueError(
            f"labels must be ({len(samples)},) whole numbers, got {labels.dtype} of "
            f"{tuple(labels.shape)}"
        )
    if int(labels.min()) < 0 or int(labels.bincount().min()) < 2:
        raise ValueError(
            "labels must be 0 .. K - 1 with two samples or more of each class, got "
            f"{int(labels.min())} .. {int(labels.max())} and counts "
            f"{labels.clamp_min(0).bincount().tolist()}"
        )
    return labels.to(samples.device)


@dataclass
class _Rows:
    """Float64 rows (b, d) about their mean, in pieces of bounded memory."""

    batches: Sequence[Tensor]
    shape: tuple[int, ...]
    n: int
    mean: Tensor  # (d,)

    @classmethod
    def of(cls, samples: Samples) -> "_Rows":
        batches = [samples] if isinstance(samples, Tensor) else samples
        n = sum(len(_checked(batch, batches[0])) for batch in batches)
        if n < 2:
            raise ValueError(f"a Gaussian is fitted to at least 2 samples, got {n}")
        shape = tuple(batches[0].shape[1:])
        rows = cls(batches, shape, n, torch.zeros(torch.Size(shape).numel(), dtype=torch.float64))
        total = sum((part.sum(0) for part in rows), torch.zeros_like(rows.mean))
        rows.mean = total / n
        if not bool(rows.mean.isfinite().all()):
            raise ValueError("samples must be finite to fit a Gaussian, and some are not")
        return rows

    def __iter__(self) -> Iterator[Tensor]:
        size = max(1, CHUNK_ELEMENTS // max(1, len(self.mean)))
        for batch in self.batches:
            for part in batch.detach().split(size):
                yield part.flatten(1).to("cpu", torch.float64) - self.mean


def _checked(batch: Tensor, first: Tensor) -> Tensor:
    if batch.ndim < 2 or batch.shape[1:] != first.shape[1:] or not batch.is_floating_point():
        raise ValueError(
            "samples must be (n, ...) floating-point tensors of one shape, in the units of the "
            f"model; got {tuple(first.shape)} and {batch.dtype} of {tuple(batch.shape)}"
        )
    return batch


def _times(rows: _Rows, block: Tensor) -> Tensor:
    """The covariance times a (d, m) block."""
    out = torch.zeros_like(block)
    for part in rows:
        out.addmm_(part.T, part @ block)
    return out / (rows.n - 1)


def _exact(rows: _Rows) -> tuple[Tensor, Tensor]:
    """Eigenvalues, rising, and eigenvectors of the covariance."""
    products = torch.zeros(len(rows.mean), len(rows.mean), dtype=torch.float64)
    for part in rows:
        products.addmm_(part.T, part)
    found: tuple[Tensor, Tensor] = torch.linalg.eigh(finite(products / (rows.n - 1), TOO_LARGE))
    return found


def _randomised(rows: _Rows, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """The leading ``size`` of them, by powers of the covariance on a random subspace."""
    generator = torch.Generator().manual_seed(seed)
    block = torch.randn(len(rows.mean), size, generator=generator, dtype=torch.float64)
    for _ in range(POWERS):
        block = torch.linalg.qr(finite(_times(rows, block), TOO_LARGE))[0]
    inner = block.T @ _times(rows, block)
    values, vectors = torch.linalg.eigh(finite((inner + inner.T) / 2, TOO_LARGE))
    return values, block @ vectors
