"""Scores of a set of samples: against the reference, and against the statistics of real images.

The Frechet distance between Gaussians fitted to two sets of features is (Dowson and Landau 1982,
J. Multivariate Analysis 12:450; used on Inception features by arXiv:1706.08500, eq. 6)::

    |mu_1 - mu_2|^2 + tr(C_1 + C_2 - 2 (C_1^1/2 C_2 C_1^1/2)^1/2)

On the 64 features of the bundled classifier it is called ``FD-fashion``. It is not an FID: that
name belongs to one network, one preprocessing and 50,000 samples.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from fewstep.eval import frechet


@dataclass(frozen=True)
class GaussianStatistics:
    """Mean and covariance of ``n`` feature vectors of size d, in float64.

    Attributes:
        mean: (d,).
        covariance: (d, d), with divisor n - 1.
        n: how many vectors, >= 2.
    """

    mean: Tensor
    covariance: Tensor
    n: int

    def save(self, path: Path, **extra: Any) -> None:
        """An npz with ``mu``, ``sigma`` and ``n`` (the common key names), and ``extra`` arrays."""
        mu, sigma = self.mean.numpy(), self.covariance.numpy()
        np.savez_compressed(path, mu=mu, sigma=sigma, n=np.int64(self.n), **extra)

    @classmethod
    def load(cls, file: str | Path | BinaryIO) -> "GaussianStatistics":
        """Reads what :meth:`save` wrote."""
        with np.load(file, allow_pickle=False) as arrays:
            mean, covariance = (torch.from_numpy(arrays[key]).double() for key in ("mu", "sigma"))
            return cls(mean, covariance, int(arrays["n"]))


class RunningStatistics:
    """Mean and covariance of any number of features in the memory of one d x d matrix."""

    def __init__(self) -> None:
        self.n = 0
        self._shift: Tensor | None = None
        self._sum = self._products = torch.zeros(())

    def add(self, features: Tensor) -> None:
        """Takes in (n, d) features of any dtype and device."""
        if not len(features):
            return
        rows = features.detach().double().cpu()
        if self._shift is None:
            # Any fixed point near the data keeps the second moments from cancelling.
            self._shift = rows.mean(0)
            self._sum = torch.zeros_like(self._shift)
            self._products = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
        rows = rows - self._shift
        self.n += len(rows)
        self._sum += rows.sum(0)
        self._products += rows.T @ rows

    def result(self) -> GaussianStatistics:
        """The statistics so far.

        Raises:
            ValueError: with fewer than two vectors, which have no covariance.
        """
        if self._shift is None or self.n < 2:
            raise ValueError(f"statistics need at least 2 samples, got {self.n}; raise n")
        offset = self._sum / self.n
        covariance = (self._products - self.n * torch.outer(offset, offset)) / (self.n - 1)
        return GaussianStatistics(self._shift + offset, (covariance + covariance.T) / 2, self.n)


def statistics(features: Tensor) -> GaussianStatistics:
    """Statistics of (n, d) features held in memory."""
    running = RunningStatistics()
    running.add(features)
    return running.result()


def frechet_distance(first: GaussianStatistics, second: GaussianStatistics) -> float:
    """Squared Frechet distance between two Gaussians, >= 0; nan if one is not finite.

    A run that diverged has no distance, and the rest of a benchmark goes on.
    """
    if first.mean.shape != second.mean.shape:
        raise ValueError(
            f"features of sizes {tuple(first.mean.shape)} and {tuple(second.mean.shape)} cannot be "
            "compared; use statistics of the same extractor"
        )
    if not all(bool(s.covariance.isfinite().all()) for s in (first, second)):
        return float("nan")
    return frechet.frechet_distance(first.mean, first.covariance, second.mean, second.covariance)


class RunningRmse:
    """Root mean square difference over samples and elements, in float64 and bounded memory."""

    def __init__(self) -> None:
        self._total, self._count = 0.0, 0

    def add(self, x: Tensor, reference: Tensor) -> None:
        self._total += float((x.double() - reference.double()).square().sum())
        self._count += x.numel()

    def result(self) -> float:
        """The root mean square; nan before anything was added."""
        return float((self._total / self._count) ** 0.5) if self._count else float("nan")


class RunningAccuracy:
    """Share of samples that a classifier gives the class they were asked for."""

    def __init__(self) -> None:
        self._hits, self._count = 0, 0

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Takes in (n, classes) logits and (n,) labels."""
        self._hits += int((logits.argmax(1) == labels.to(logits.device)).sum())
        self._count += len(labels)

    def result(self) -> float:
        """Between 0 and 1; nan before anything was added."""
        return self._hits / self._count if self._count else float("nan")
