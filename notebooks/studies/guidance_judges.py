"""What the guidance study measures of samples: classes, distances and density, by two judges.

The bundled classifier is what GFCG is guided by, so there is a second judge that no guidance knows:
the nearest training images in pixels.
"""

from typing import Literal

import torch
from torch import Tensor

from fewstep.eval.metrics.density import fashion_judge
from fewstep.eval.metrics.in_memory import frechet_distance, statistics
from fewstep.eval.metrics.judge import Judge, real_features
from fewstep.eval.metrics.neighbours import nearest
from fewstep.models.data import load_fashion, to_signed

NEIGHBOURS = 10
Kind = Literal["in turn", "at random", "rare"]
Figures = dict[str, float]


class PixelJudge:
    """Nearest training images in the first 50 principal components of their pixels.

    No part of guidance knows it, unlike the bundled classifier.
    """

    def __init__(self, components: Tensor, images: Tensor, labels: Tensor) -> None:
        self.components, self.labels = components, labels
        self.real = self.features(images)
        self.statistics = statistics(self.real)

    def features(self, images: Tensor) -> Tensor:
        """(n, 50) of uint8 images."""
        rows = to_signed(images).flatten(1) - self.components[0]
        return rows @ self.components[1:].T

    def answers(self, images: Tensor, k: int = NEIGHBOURS) -> Tensor:
        """(n,) the commonest class of the k nearest; of equally common ones that nearer by."""
        _, indices = nearest(self.features(images), self.real, k)
        # Ranks break ties, and are too light to outvote a neighbour.
        weights = 1 + (k - torch.arange(k)) / k**3
        votes = torch.zeros(len(images), int(self.labels.max()) + 1)
        votes.scatter_add_(1, self.labels[indices], weights.expand(len(images), k))
        return votes.argmax(1)


class Judges:
    """Both judges of classes, both distances, and density; loaded when first asked."""

    def __init__(self) -> None:
        self.density, self.classifier = fashion_judge(), Judge()
        self.pixels = PixelJudge(self.density.basis, *load_fashion("train"))

    def __call__(self, images: Tensor, labels: Tensor | None) -> dict[str, float]:
        """All figures of uint8 images; no accuracies without labels."""
        signed = to_signed(images)
        features, logits = (torch.cat(p) for p in zip(
            *(self.classifier(part) for part in signed.split(500)), strict=True))  # fmt: skip
        found = self.density.judge(signed, labels)
        found["fd"] = frechet_distance(features, real_features()[0])
        found["fd_pixels"] = frechet_distance(self.pixels.features(images), self.pixels.statistics)
        if labels is not None:
            found["accuracy"] = (logits.argmax(1) == labels).double().mean().item()
            knn = self.pixels.answers(images) == labels
            found["knn_accuracy"] = knn.double().mean().item()
        return found


def real_images(n: int, seed: int, kind: Kind = "in turn") -> tuple[Tensor, Tensor]:
    """n test images and their labels: classes in turn as in the samples, at random, or rare ones.

    The rare ones are the sparsest tenth of each class, in turn; there are 1,000 of them.
    """
    images, labels = load_fashion("test")
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    if kind == "rare":
        judge = fashion_judge()
        features = torch.cat([judge.extract(to_signed(p))[0] for p in images.split(500)])
        order = order[judge.by_features.marks(features, labels)[order, 0]]
    if kind != "at random":
        by_class = [order[labels[order] == c] for c in range(10)]
        shortest = min(map(len, by_class))
        order = torch.stack([c[:shortest] for c in by_class], dim=1).flatten()
    return images[order[:n]], labels[order[:n]]
