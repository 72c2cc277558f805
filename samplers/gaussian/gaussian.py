r"""Gaussian data in closed form: what a noisy sample is drawn to, and its probability flow.

Data N(m, S) with S = U diag(l) U^T + r (1 - U U^T). Under x = alpha x0 + sigma noise every eigen
axis of S is on its own; with its variance v (l_k along U, r outside) ::

    D(x)  = m + alpha v / (alpha^2 v + sigma^2) (x - alpha m)
    x_end = alpha_end m + sqrt((alpha_end^2 v + sigma_end^2) / (alpha^2 v + sigma^2)) (x - alpha m)

which are finite without signal (alpha = 0), and with v = 0, where the root is sigma_end / sigma.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fewstep.schedules.base import NoiseProcess
from fewstep.types import Level


class Gaussian(Protocol):
    """One Gaussian, or one for each class; what a jump and its landing rule need."""

    @property
    def mean(self) -> Tensor:
        """Over all classes, broadcasting against one sample."""
        ...

    @property
    def std(self) -> float:
        """Root of the mean variance of an element, about the mean of its class."""
        ...

    def denoise(self, x: Tensor, level: Level, labels: Tensor | None = None) -> Tensor: ...

    def jump(self, x: Tensor, start: Level, end: Level, labels: Tensor | None = None) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class GaussianFit:
    """Mean and covariance of data, in float64 on the CPU.

    Attributes:
        shape: of one sample.
        mean: of that shape, or (c, 1, ...) of a fit to channels, which takes samples of any size
            with those channels.
        rest: variance outside ``basis``; one number, or without a basis anything that broadcasts
            against a sample.
        basis: (d, k) orthonormal columns, d the elements of a sample, k >= 0.
        variances: (k,) along them, falling, >= 0.

    Raises:
        ValueError: if shapes disagree, or a variance is negative or not finite.
    """

    shape: tuple[int, ...]
    mean: Tensor
    rest: Tensor
    basis: Tensor
    variances: Tensor

    def __post_init__(self) -> None:
        d, k = torch.Size(self.shape).numel(), len(self.variances)
        if tuple(self.basis.shape) != (d, k) or (k and self.rest.numel() != 1):
            raise ValueError(
                f"samples of shape {self.shape} with {k} variances need a basis of ({d}, {k}), and "
                f"one rest variance if k > 0; got {tuple(self.basis.shape)} and "
                f"{self.rest.numel()}"
            )
        if self.mean.ndim != len(self.shape) or any(
            own not in (1, size) for own, size in zip(self.mean.shape, self.shape, strict=True)
        ):
            raise ValueError(
                f"the mean of samples of shape {self.shape} broadcasts against them, got "
                f"{tuple(self.mean.shape)}"
            )
        spread = torch.cat([self.variances.flatten(), self.rest.flatten()])
        if not (bool((spread >= 0).all()) and bool(spread.isfinite().all())):
            raise ValueError("variances of a GaussianFit must be finite numbers >= 0")

    @property
    def rank(self) -> int:
        """k, how many axes have a variance of their own."""
        return len(self.variances)

    @property
    def std(self) -> float:
        """Root of the mean variance of an element."""
        d = len(self.basis)
        total = self.variances.sum() + self.rest.mean() * (d - self.rank)
        return float((total / d).sqrt())

    def denoise(self, x: Tensor, level: Level, labels: Tensor | None = None) -> Tensor:
        """The data prediction E[x0 | x], of the shape and dtype of ``x`` (n, ...).

        Args:
            x: noisy samples at ``level``.
            level: alpha and sigma, not both 0.
            labels: None; one Gaussian has no classes.

        Raises:
            ValueError: for samples of another shape, or labels.
        """
        mean = self._mean_for(x, labels)
        rows = x.to(mean) - level.alpha * mean
        noise = level.sigma**2
        gain = self._spread(
            rows, lambda v: (level.alpha * v / (level.alpha**2 * v + noise)).nan_to_num(0.0)
        )
        return (mean + gain).to(x.dtype)

    def jump(self, x: Tensor, start: Level, end: Level, labels: Tensor | None = None) -> Tensor:
        """The probability-flow solution at ``end`` of the state ``x`` (n, ...) at ``start``.

        Computed in float64 (float32 where the device has none), returned in the dtype of ``x``.

        Args:
            x: the state.
            start, end: levels, in either order; sigma of the start is above 0.
            labels: None; one Gaussian has no classes.

        Raises:
            ValueError: for samples of another shape, labels, or a start without noise.

        Reference:
            Wang and Vastola 2024, arXiv:2412.09726 ("analytical teleportation"); we add processes
            other than VE, and the variance outside the basis, which they take as 0.
        """
        if not start.sigma > 0:
            raise ValueError(f"a jump starts at a level with noise, got sigma = {start.sigma:g}")
        mean = self._mean_for(x, labels)
        rows = x.to(mean) - start.alpha * mean

        def ratio(v: Tensor) -> Tensor:
            before, after = ((p.alpha**2 * v + p.sigma**2).sqrt() for p in (start, end))
            return after / before

        return (end.alpha * mean + self._spread(rows, ratio)).to(x.dtype)

    def _spread(self, rows: Tensor, factor: Callable[[Tensor], Tensor]) -> Tensor:
        """factor(S) applied to (n, ...) rows; factor acts on the variance of each axis."""
        rest = factor(self.rest).to(rows)
        if not self.rank:
            return rest * rows
        basis, flat = self.basis.to(rows), rows.flatten(1)
        own = factor(self.variances).to(rows)
        return (rest * flat + (flat @ basis * (own - rest)) @ basis.T).view(rows.shape)

    def _mean_for(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """The mean on the device of ``x`` and in the dtype of the arithmetic."""
        if labels is not None:
            raise ValueError("this Gaussian has no classes: pass no labels, or use fit_classes")
        got = tuple(x.shape[1:])
        if self.mean.shape != self.shape and x.ndim == len(self.shape) + 1:
            # A fit to channels takes any size along the axes behind them.
            got = (*got[:1], *self.shape[1:])
        if got != self.shape:
            raise ValueError(
                f"this Gaussian was fitted to samples of shape {self.shape}, got a batch of "
                f"{tuple(x.shape)}; pass (n, {', '.join(map(str, self.shape))})"
            )
        return self.mean.to(x.device, torch.float32 if x.device.type == "mps" else torch.float64)


def level_of(process: NoiseProcess, rho: float) -> Level:
    """The level at the ratio ``rho`` = sigma / alpha of a noise process."""
    alpha, sigma = process.from_rho(rho)
    return Level(float(process.time(rho)), float(alpha), float(sigma))
