"""Makes ``eval/data/fashion_stats.npz`` from the bundled classifier and Fashion-MNIST.

    python notebooks/studies/make_fashion_stats.py

It holds the statistics of the 60,000 training images, as ``fewstep ref fashion`` writes them, and
the features (in half precision) and labels of the 10,000 test images, from which the benchmark
draws the train/test floor; so scoring needs no dataset.
"""

from pathlib import Path

import numpy as np
import torch

from fewstep.eval.images.make_reference import make_reference
from fewstep.eval.images.sources import open_images
from fewstep.eval.metrics.in_memory import frechet_distance
from fewstep.eval.networks.extractors import FashionExtractor
from fewstep.models.data import load_fashion


def main() -> None:
    path = Path(__file__).parents[2] / "eval" / "data" / "fashion_stats.npz"
    extractor = FashionExtractor()
    train = make_reference(open_images("fashion"), extractor, features=0).statistics
    images, labels = load_fashion("test")
    test = extractor(images).half()
    np.savez_compressed(
        path,
        mu=train.mu,
        sigma=train.sigma,
        n=np.int64(train.n or 0),
        test_features=test.numpy(),
        test_labels=labels.to(torch.uint8).numpy(),
        extractor=np.array(train.extractor),
        weights_sha256=np.array(train.weights_sha256),
        dataset_hash=np.array(train.dataset_hash),
    )
    floor = frechet_distance(test, train)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, FD-fashion of the test split {floor:.4g}")


if __name__ == "__main__":
    main()
