"""Makes ``eval/data/fashion_stats.npz`` from the bundled classifier and Fashion-MNIST.

    python -m fewstep.eval.studies.make_fashion_stats

It holds the mean and covariance of the features of the 60,000 training images (``mu``, ``sigma``,
``n``), and the features (in half precision) and labels of the 10,000 test images, from which the
benchmark draws the train/test floor; so scoring needs no dataset.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fewstep.eval.metrics import frechet_distance, statistics
from fewstep.eval.networks.features import Judge
from fewstep.models.bundled import weights_sha256
from fewstep.models.data import load_fashion, to_signed


def split_features(split: Literal["train", "test"]) -> Tensor:
    """(n, 64) features of a split, in its order."""
    judge = Judge()
    images, _ = load_fashion(split)
    return torch.cat([judge(to_signed(batch))[0] for batch in images.split(500)])


def main() -> None:
    path = Path(__file__).parents[1] / "data" / "fashion_stats.npz"
    train, test = statistics(split_features("train")), split_features("test").half()
    np.savez_compressed(
        path,
        mu=train.mu,
        sigma=train.sigma,
        n=np.int64(60_000),
        test_features=test.numpy(),
        test_labels=load_fashion("test")[1].to(torch.uint8).numpy(),
        extractor=np.array("fd-cnn:fashion"),
        weights_sha256=np.array(weights_sha256("classifier")),
    )
    floor = frechet_distance(test, train)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, FD-fashion of the test split {floor:.4g}")


if __name__ == "__main__":
    main()
