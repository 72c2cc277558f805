"""How rare samples are among real ones, and how many of them are not real at all.

A broken sampler raises every measure of rarity (:mod:`fewstep.eval.metrics.neighbours`), so
:class:`DensityJudge` gives them only together with the share of samples that are farther from the
real ones than real ones ever are.
"""

from collections.abc import Callable
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from fewstep.eval.common.cache import cached, digest
from fewstep.eval.common.source_code import code_digest, function_text
from fewstep.eval.metrics.judge import Judge, features_of
from fewstep.eval.metrics.moments import Moments
from fewstep.eval.metrics.neighbours import (
    AVERAGE_K,
    LOF_K,
    RARITY_K,
    average_knn,
    factor,
    nearest,
    reachability,
    smallest_ball,
)
from fewstep.finite import finite
from fewstep.models.bundled import weights_sha256
from fewstep.models.data import load_fashion, to_signed

LOW, OFF = 0.9, 0.999  # quantiles of the AvgkNN of held-out real samples
Labelled = tuple[Tensor, Tensor]


class _Class:
    """One class: its real samples, its thresholds, and what held-out real samples score."""

    def __init__(self, real: Tensor, held_out: Tensor) -> None:
        self.real, self.held_out = real, held_out
        levels = torch.tensor([LOW, OFF], dtype=torch.float64, device=real.device)
        self.limits = average_knn(held_out, real).double().quantile(levels)

    def marks(self, x: Tensor) -> Tensor:
        """(n, 2): beyond either threshold, as is what is not finite."""
        return ~(average_knn(x, self.real).double()[:, None] <= self.limits)

    @cached_property
    def _tables(self) -> tuple[Tensor, Tensor, Tensor]:
        balls = nearest(self.real, self.real, RARITY_K, others=True)[0][:, -1]
        return (*reachability(self.real, LOF_K), balls)

    def measures(self, x: Tensor) -> Tensor:
        """(n, 3): AvgkNN, LOF and rarity; nan where there is none."""
        radii, densities, balls = self._tables
        distances, indices = nearest(x, self.real, LOF_K)
        outlying = factor(distances, indices, radii, densities)
        rarity = smallest_ball(x, self.real, balls)
        found = torch.stack([distances[:, :AVERAGE_K].mean(1), outlying, rarity], dim=1)
        return found.where(found.isfinite(), torch.nan)

    @cached_property
    def usual(self) -> Tensor:
        """(h, 3) measures of the held-out samples."""
        return self.measures(self.held_out)

    def relative(self, x: Tensor) -> Tensor:
        """(n, 4): measures over their means on held-out samples, and the latter's ``no_ball``."""
        ratios = self.measures(x) / self.usual.nanmean(0)
        no_ball = self.usual[:, 2].isnan().to(ratios).mean()
        return torch.cat([ratios, no_ball.expand(len(x), 1)], dim=1)


class DensityJudge:
    """The three measures of samples relative to held-out real ones, and the shares off support.

    Distances and thresholds are within the class of a sample where labels are given. The thresholds
    are the 90 % and 99.9 % quantiles of AvgkNN of the held-out samples; the second wants 1,000 or
    more of them a class: with fewer it is nearly their maximum, and real samples exceed it oftener.

    Args:
        real, held_out: (m, d) and (h, d) features of real samples, the former above 20 in a class.
        real_labels, held_out_labels: (m,) and (h,) integers; None for a single class.

    Raises:
        ValueError: if shapes or classes do not fit, here or later.
    """

    def __init__(
        self,
        real: Tensor,
        held_out: Tensor,
        real_labels: Tensor | None = None,
        held_out_labels: Tensor | None = None,
    ) -> None:
        mine, other = _labels(real, real_labels), _labels(held_out, held_out_labels)
        if mine.unique().tolist() != other.unique().tolist():
            raise ValueError("real and held-out samples must have the same classes; label both")
        self.classes = {
            c: _Class(real[mine == c], held_out[other == c]) for c in set(mine.tolist())
        }

    def marks(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """(n, 2) booleans of (n, d) samples: beyond the 90 % and the 99.9 % threshold."""
        return self._by_class(_Class.marks, x, labels)

    def judge(self, x: Tensor, labels: Tensor | None = None) -> dict[str, float]:
        """What there is to say of (n, d) samples; in brackets, what real ones get.

        Returns:
            ``below_10``, share sparser than 90 % of held-out samples (0.1); ``off``, sparser than
            99.9 % or not finite (0.001); ``low``, the share between the two: rare but on support.
            ``avgknn``, ``lof``, ``rarity``, means of the finite values relative to held-out samples
            (1); ``no_ball``, share without a rarity (``no_ball_held_out``).
        """
        marks, table = self.marks(x, labels), self._by_class(_Class.relative, x, labels)
        below, off = marks.double().mean(0).tolist()
        avgknn, lof, rarity, no_ball_held_out = table.double().nanmean(0).tolist()
        return {
            "below_10": below, "low": below - off, "off": off,
            "avgknn": avgknn, "lof": lof, "rarity": rarity,
            "no_ball": table[:, 2].isnan().double().mean().item(),
            "no_ball_held_out": no_ball_held_out,
        }  # fmt: skip

    def _by_class(
        self, measure: Callable[[_Class, Tensor], Tensor], x: Tensor, labels: Tensor | None
    ) -> Tensor:
        labels = _labels(x, labels)
        present: list[int] = labels.unique().tolist()
        if not present or not self.classes.keys() >= set(present):
            raise ValueError(f"samples need labels among {sorted(self.classes)}, got {present}")
        found = torch.cat([measure(self.classes[c], x[labels == c]) for c in present])
        return found[labels.argsort(stable=True).argsort().to(found.device)]


def _labels(x: Tensor, labels: Tensor | None) -> Tensor:
    labels = torch.zeros(len(x), dtype=torch.int64) if labels is None else labels
    if labels.shape != x.shape[:1]:
        raise ValueError(f"{len(x)} samples need as many labels, got {tuple(labels.shape)}")
    return labels.to(x.device)


class FashionJudge:
    """Density of 28x28 images in [-1, 1] within their class of Fashion-MNIST, in two spaces.

    The measures are on the 64 features of the bundled classifier, which a sampler may fool. So
    whether images are off support is asked of their pixels too: by their first 50 principal
    components and, as a last coordinate, three times the distance to the span of these, where
    noise shows (once would leave a sixth of uniform noise on support).

    What it cannot see: of real images with white noise of deviation 0.1, 34 % are ``low_both`` and
    0.4 % off; of averages of two real images 50 % and 24 %. So look at the images as well.

    Args:
        train, held_out: (n, 1, 28, 28) uint8 images, and (n,) labels.
        device: where to compute.
    """

    def __init__(self, train: Labelled, held_out: Labelled, device: str = "cpu") -> None:
        self.extract = Judge(device)
        key = digest([train[0], code_digest(Moments), function_text(_basis)])
        self.basis = cached(f"density-basis-{key}", lambda: _basis(train[0])).to(device)
        features = [self._features(images) for images, _ in (train, held_out)]
        pixels = [self._pixels(to_signed(images)) for images, _ in (train, held_out)]
        self.by_features = DensityJudge(features[0], features[1], train[1], held_out[1])
        self.by_pixels = DensityJudge(pixels[0], pixels[1], train[1], held_out[1])

    def judge(self, images: Tensor, labels: Tensor | None = None) -> dict[str, float]:
        """:meth:`DensityJudge.judge` on features, and ``off_pixels``, ``off_either``, ``low_both``.

        The last is the share that is ``low`` and off support in neither space.

        Args:
            images: (n, 1, 28, 28) in [-1, 1], rounded to 8 bits first.
            labels: (n,) classes asked for; None takes the classifier's answers.
        """
        answers = [self.extract(batch) for batch in images.split(500)]
        features, logits = (torch.cat(part) for part in zip(*answers, strict=True))
        labels = logits.argmax(1) if labels is None else labels
        below, off = self.by_features.marks(features, labels).T
        pixels = (images.float() * 127.5 + 127.5).round().clamp(0, 255)
        off_pixels = self.by_pixels.marks(self._pixels(to_signed(pixels)), labels)[:, 1]
        shares = {
            "off_pixels": off_pixels,
            "off_either": off | off_pixels,
            "low_both": below & ~off & ~off_pixels,
        }
        more = {name: share.double().mean().item() for name, share in shares.items()}
        return self.by_features.judge(features, labels) | more

    def _features(self, images: Tensor) -> Tensor:
        def compute() -> Tensor:
            return torch.cat([self.extract(to_signed(part))[0].cpu() for part in images.split(500)])

        code = [code_digest(self.extract.extractor), function_text(features_of)]
        key = digest([weights_sha256("classifier"), images, *code])
        return cached(f"density-features-{key}", compute).to(self.extract.device)

    def _pixels(self, images: Tensor) -> Tensor:
        rows = images.to(self.basis).flatten(1) - self.basis[0]
        inside = rows @ self.basis[1:].T
        residual = rows - inside @ self.basis[1:]
        return torch.cat([inside, 3 * residual.norm(dim=1, keepdim=True)], dim=1)


def _basis(images: Tensor, components: int = 50) -> Tensor:
    """(1 + components, pixels): the mean of uint8 images, then principal directions."""
    moments = Moments(images[0].numel())
    for part in images.split(5000):
        moments.add(to_signed(part).flatten(1))
    mean, covariance, _ = moments.result()
    _, vectors = torch.linalg.eigh(finite(covariance, "pixels must be finite"))
    directions = vectors[:, -components:].T
    return torch.cat([mean[None], directions]).float()


@lru_cache(maxsize=2)
def fashion_judge(device: str = "cpu") -> FashionJudge:
    """A judge from Fashion-MNIST's training images, with its test images held out.

    Raises:
        FileNotFoundError: if the data set or the classifier is missing; the message says what to
            install.
    """
    return FashionJudge(load_fashion("train"), load_fashion("test"), device)
