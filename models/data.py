"""Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747), read from the original files."""

import gzip
import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

CLASS_NAMES = (
    "T-shirt/top", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
REMEDY = (
    "install Debian's package dataset-fashion-mnist or set FEWSTEP_FASHION_MNIST to the folder of "
    "its files"
)
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")


def fashion_folder(*, download: bool = True) -> Path:
    """The folder with the four ``idx`` files.

    ``FEWSTEP_FASHION_MNIST`` if set, else Debian's package, else a torchvision download into
    ``~/.cache/fewstep``.

    Args:
        download: whether to try that.

    Raises:
        FileNotFoundError: if the files are nowhere and cannot be downloaded.
    """
    named = os.environ.get("FEWSTEP_FASHION_MNIST")
    folder = Path(named) if named else DEBIAN_FOLDER
    if (folder / "train-images-idx3-ubyte.gz").exists():
        return folder
    root = Path.home() / ".cache" / "fewstep"
    raw = root / "FashionMNIST" / "raw"
    if (raw / "train-images-idx3-ubyte.gz").exists():
        return raw
    if not download:
        raise FileNotFoundError(f"Fashion-MNIST is not in {folder}; {REMEDY}")
    try:
        from torchvision.datasets import FashionMNIST

        FashionMNIST(str(root), download=True)
    except (ImportError, RuntimeError, OSError) as error:
        raise FileNotFoundError(
            f"Fashion-MNIST is not in {folder} and cannot be downloaded ({error}); {REMEDY}"
        ) from error
    return raw


def load_fashion(split: Literal["train", "test"]) -> "tuple[Tensor, Tensor]":
    """Images (n, 1, 28, 28) uint8 and labels (n,) int64; n is 60,000 or 10,000."""
    import torch

    stem = {"train": "train", "test": "t10k"}[split]
    folder = fashion_folder()
    with gzip.open(folder / f"{stem}-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    with gzip.open(folder / f"{stem}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    return torch.from_numpy(images.copy()), torch.from_numpy(labels.astype(np.int64))


def to_signed(images: "Tensor") -> "Tensor":
    """uint8 pixels as float32 in [-1, 1]."""
    return images.float() / 127.5 - 1
