"""The bundled classifier as a judge: its features, their statistics on real images, its answers."""

from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fewstep.eval.common.image_sets import quantised
from fewstep.eval.metrics.in_memory import frechet_distance
from fewstep.eval.metrics.statistics_files import FeatureStatistics, load_npz
from fewstep.eval.networks.extractors import Extractor, FashionExtractor
from fewstep.models.bundled import weights_sha256

FLOOR_DRAWS = 8  # subsets of the test split whose distances are averaged


class Judge:
    """The bundled classifier on images in [-1, 1] of shape (n, 1, 28, 28)."""

    def __init__(self, device: str = "cpu") -> None:
        self.device, self.extractor = device, FashionExtractor(device)

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(n, 64) features and (n, 10) logits."""
        features = features_of(self.extractor, images)
        return features, self.extractor.logits(features)


def features_of(extractor: Extractor, images: Tensor) -> Tensor:
    """(n, dim) features of images in [-1, 1], rounded to 8 bits first, as real ones are.

    Those of an image that is not finite are nan: a run that diverged has no score, and the others
    go on.
    """
    finite = images.flatten(1).isfinite().all(1)
    features = extractor(quantised(images.nan_to_num(0.0, 0.0, 0.0)))
    return features.masked_fill(~finite[:, None].to(features.device), torch.nan)


@lru_cache(maxsize=1)
def real_features() -> tuple[FeatureStatistics, Tensor, Tensor]:
    """Statistics of the training split; (10000, 64) features and (10000,) labels of the test split.

    Raises:
        ValueError: if the file was made with another classifier than the bundled one.
        FileNotFoundError: if it or the classifier is missing.
    """
    path = Path(str(files("fewstep.eval") / "data" / "fashion_stats.npz"))
    command = "python notebooks/studies/make_fashion_stats.py"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; reinstall fewstep, or run {command}")
    with np.load(path, allow_pickle=False) as arrays:
        made_with, labels = str(arrays["weights_sha256"]), torch.from_numpy(arrays["test_labels"])
        test = torch.from_numpy(arrays["test_features"]).double()
    if made_with != weights_sha256("classifier"):
        raise ValueError(f"{path} belongs to another classifier; run {command}")
    return load_npz(path), test, labels


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
        total += frechet_distance(test[picked], train)
    return total / FLOOR_DRAWS
