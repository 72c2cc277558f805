"""A Gaussian for each class, and the files of Gaussians."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from fewstep.samplers.gaussian.gaussian import GaussianFit
from fewstep.types import Level

START = "start.safetensors"  # beside the config of a plan that starts from a Gaussian
FORMAT = "fewstep.gaussian 1"
TENSORS = ("mean", "rest", "basis", "variances")


@dataclass(frozen=True, eq=False)
class ClassGaussians:
    """One Gaussian for each class, for models that are told the class.

    Far up such a model predicts the mean of the class, which one Gaussian for all classes misses.

    Attributes:
        fits: by class, 0 .. K - 1; all of samples of one shape.

    Raises:
        ValueError: without a class, or for fits of different shapes.
    """

    fits: tuple[GaussianFit, ...]

    def __post_init__(self) -> None:
        shapes = {fit.shape for fit in self.fits}
        if len(shapes) != 1:
            raise ValueError(f"classes need fits of one shape, got {sorted(shapes)}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return self.fits[0].shape

    @property
    def mean(self) -> Tensor:
        """The mean of the means of the classes."""
        return torch.stack([fit.mean for fit in self.fits]).mean(0)

    @property
    def std(self) -> float:
        """Root of the mean variance of an element, about the mean of its class."""
        return math.sqrt(sum(fit.std**2 for fit in self.fits) / len(self.fits))

    def denoise(self, x: Tensor, level: Level, labels: Tensor | None = None) -> Tensor:
        """The data prediction of :meth:`GaussianFit.denoise`, by class.

        Args:
            x: (n, ...) noisy samples.
            level: alpha and sigma, not both 0.
            labels: (n,) whole numbers, 0 .. K - 1.

        Raises:
            ValueError: for samples of another shape, or labels that do not fit.
        """
        return self._each(lambda fit, rows: fit.denoise(rows, level), x, labels)

    def jump(self, x: Tensor, start: Level, end: Level, labels: Tensor | None = None) -> Tensor:
        """The probability flow of :meth:`GaussianFit.jump`, by class.

        Args:
            x: (n, ...) the state at ``start``.
            start, end: levels; sigma of the start is above 0.
            labels: (n,) whole numbers, 0 .. K - 1.

        Raises:
            ValueError: for samples of another shape, or labels that do not fit.
        """
        return self._each(lambda fit, rows: fit.jump(rows, start, end), x, labels)

    def guided(self, scale: float) -> "ClassGaussians":
        """The means under classifier-free guidance of ``scale``, 1 means none.

        With one covariance for all classes the guided prediction u + scale (c - u) is that of
        Gaussians whose means are moved by the same formula, where u has the mean over the classes.
        With covariances that differ, as they do in practice, it is an approximation.
        """
        overall = self.mean
        moved = [replace(f, mean=overall + scale * (f.mean - overall)) for f in self.fits]
        return ClassGaussians(tuple(moved))

    def _each(
        self,
        act: Callable[[GaussianFit, Tensor], Tensor],
        x: Tensor,
        labels: Tensor | None,
    ) -> Tensor:
        count = len(self.fits)
        if labels is None or labels.shape != x.shape[:1] or labels.is_floating_point():
            got = "none" if labels is None else f"{labels.dtype} of {tuple(labels.shape)}"
            raise ValueError(
                f"Gaussians of {count} classes need ({len(x)},) whole numbers as labels, got {got}"
            )
        present = labels.unique().tolist()
        if present and not 0 <= min(present) <= max(present) < count:
            raise ValueError(
                f"labels of {count} classes lie in 0 .. {count - 1}, got {min(present)} .. "
                f"{max(present)}"
            )
        out = torch.empty_like(x)
        for k in present:
            rows = (labels == k).to(x.device)
            out[rows] = act(self.fits[k], x[rows])
        return out


def save_gaussian(gaussian: GaussianFit | ClassGaussians, path: str | Path) -> None:
    """Writes a safetensors file, which :func:`load_gaussian` reads back bit for bit."""
    from safetensors.torch import save_file

    fits = gaussian.fits if isinstance(gaussian, ClassGaussians) else (gaussian,)
    tensors = {
        f"{i}.{name}": getattr(fit, name).clone().contiguous()
        for i, fit in enumerate(fits)
        for name in TENSORS
    }
    by_class = isinstance(gaussian, ClassGaussians)
    facts = {"shapes": [fit.shape for fit in fits], "classes": by_class}
    save_file(tensors, str(path), {"format": FORMAT, "facts": json.dumps(facts)})


def load_gaussian(path: str | Path) -> GaussianFit | ClassGaussians:
    """Reads what :func:`save_gaussian` wrote.

    Raises:
        FileNotFoundError: without a file.
        ValueError: if the file is none of ours.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).exists():
        raise FileNotFoundError(f"no Gaussian fit at {path}; save_gaussian writes one")
    try:
        with safe_open(str(path), "pt") as file:
            about: dict[str, str] = file.metadata() or {}
            held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file ({error})") from error
    if about.get("format") != FORMAT:
        raise ValueError(
            f"{path} is not a Gaussian fit of this version: its format is "
            f"{about.get('format')!r}, not {FORMAT!r}; fit it anew"
        )
    facts = json.loads(about["facts"])
    fits = tuple(
        GaussianFit(tuple(shape), *(held[f"{i}.{name}"] for name in TENSORS))
        for i, shape in enumerate(facts["shapes"])
    )
    return ClassGaussians(fits) if facts["classes"] else fits[0]


def load_start(path: str | Path) -> GaussianFit | ClassGaussians | None:
    """The Gaussian of a folder; None if it has none, and for a file."""
    file = Path(path) / START
    if not file.is_file():
        return None
    return load_gaussian(file)
