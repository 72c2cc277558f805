"""Makes ``eval/data/fashion16.npz``: 400 Fashion-MNIST training images of each class at 16x16.

    python notebooks/studies/make_fashion16.py

The file ships with the package, so the problem ``fashion-exact`` needs no dataset.
"""

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from fewstep.models.data import load_fashion

PER_CLASS = 400


def resized_fashion() -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.uint8]], list[int]]:
    """Images (4000, 16, 16) uint8, ordered by class, and their labels: the first 400 of each."""
    images, labels = load_fashion("train")
    pick = torch.cat([torch.nonzero(labels == c)[:PER_CLASS, 0] for c in range(10)])
    small = functional.interpolate(
        images[pick].float(), (16, 16), mode="bilinear", antialias=True
    ).round_()
    return small[:, 0].to(torch.uint8).numpy(), labels[pick].tolist()


def main() -> None:
    images, labels = resized_fashion()
    path = Path(__file__).parents[2] / "eval" / "data" / "fashion16.npz"
    np.savez_compressed(path, images=images, labels=np.asarray(labels, np.uint8))
    print(f"{path}: {len(images)} images, {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
