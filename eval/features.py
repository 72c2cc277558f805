"""The bundled classifier as a judge: its features, their statistics on real images, its answers."""

import math
from functools import lru_cache
from importlib.resources import files
from io import BytesIO

import numpy as np
import torch
from torch import Tensor

from fewstep.eval.metrics import (
    GaussianStatistics,
    RunningAccuracy,
    RunningRmse,
    RunningStatistics,
    frechet_distance,
    statistics,
)
from fewstep.eval.problems import Problem
from fewstep.models.bundled import bundled_classifier, weights_sha256
from fewstep.models.data import to_signed

FLOOR_DRAWS = 8  # subsets of the test split whose distances are averaged


class Judge:
    """The bundled classifier on images in [-1, 1] of shape (n, 1, 28, 28).

    Images are rounded to 8 bits first, as the real ones are.
    """

    def __init__(self, device: str = "cpu") -> None:
        self.net = bundled_classifier(device)
        self.device = device

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(n, 64) features and (n, 10) logits."""
        pixels = (images.to(self.device, torch.float32) * 127.5 + 127.5).round_().clamp_(0, 255)
        features = self.net.features(to_signed(pixels))
        return features, self.net.head(features)


def judge_for(problem: Problem) -> Judge | None:
    """The classifier for problems with Fashion-MNIST's own images, None for the others.

    Raises:
        ValueError, FileNotFoundError: if its files are missing or do not fit (see
            :func:`real_features`).
    """
    if problem.shape != (1, 28, 28):
        return None
    real_features()
    return Judge(problem.device)


@lru_cache(maxsize=1)
def real_features() -> tuple[GaussianStatistics, Tensor, Tensor]:
    """Statistics of the training split; (10000, 64) features and (10000,) labels of the test split.

    Raises:
        ValueError: if the file was made with another classifier than the bundled one.
        FileNotFoundError: if it or the classifier is missing.
    """
    resource = files("fewstep.eval") / "data" / "fashion_stats.npz"
    command = "python -m fewstep.eval.make_fashion_stats"
    if not resource.is_file():
        raise FileNotFoundError(f"{resource} is missing; reinstall fewstep, or run {command}")
    content = resource.read_bytes()
    with np.load(BytesIO(content), allow_pickle=False) as arrays:
        made_with, labels = str(arrays["weights_sha256"]), torch.from_numpy(arrays["test_labels"])
        test = torch.from_numpy(arrays["test_features"]).double()
    if made_with != weights_sha256("classifier"):
        raise ValueError(f"{resource} belongs to another classifier; run {command}")
    return GaussianStatistics.load(BytesIO(content)), test, labels


def fd_floor(n: int) -> float:
    """FD-fashion of n real test images: what a perfect model would score on average.

    The mean over random subsets of the test split, of classes 0, 1, 2 ... in turn like the samples
    (unequal classes would add to the distance), without replacement and at most all of it.
    """
    train, test, labels = real_features()
    generator = torch.Generator().manual_seed(0)
    total = 0.0
    for _ in range(FLOOR_DRAWS):
        order = torch.randperm(len(test), generator=generator)
        by_class = [order[labels[order] == c] for c in range(10)]
        picked = torch.stack(by_class, dim=1).flatten()[:n]
        total += frechet_distance(statistics(test[picked]), train)
    return total / FLOOR_DRAWS


class Scores:
    """All metrics of one sampler, fed batch by batch.

    With a reference ``rmse``; with a judge ``fd_fashion`` and, with labels, ``accuracy``; with both
    ``feature_rmse``, the root mean square difference of the features to the reference's.
    """

    def __init__(self) -> None:
        self._rmse, self._feature_rmse = RunningRmse(), RunningRmse()
        self._features, self._accuracy = RunningStatistics(), RunningAccuracy()

    def add(
        self,
        x: Tensor,
        reference: Tensor | None,
        labels: Tensor | None = None,
        judged: tuple[Tensor, Tensor] | None = None,
        reference_features: Tensor | None = None,
    ) -> None:
        """Takes in a batch of samples and, where there is a judge, its answers on both."""
        if reference is not None:
            self._rmse.add(x, reference)
        if judged is None:
            return
        features, logits = judged
        self._features.add(features)
        if reference_features is not None:
            self._feature_rmse.add(features, reference_features)
        if labels is not None:
            self._accuracy.add(logits, labels)

    def result(self) -> dict[str, float]:
        """The metrics by name; those that do not apply, or are not finite, are left out."""
        found = {
            "rmse": self._rmse.result(),
            "feature_rmse": self._feature_rmse.result(),
            "accuracy": self._accuracy.result(),
        }
        if self._features.n >= 2:
            found["fd_fashion"] = frechet_distance(self._features.result(), real_features()[0])
        return {name: value for name, value in found.items() if math.isfinite(value)}
