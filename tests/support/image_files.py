"""Sets of small images in files of every kind that is read."""

import struct
import zipfile
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fewstep.eval.common.image_sets import ImageSet

Pixels = NDArray[np.uint8]


def coloured(n: int, size: int = 8, seed: int = 0) -> Pixels:
    """(n, size, size, 3) noise."""
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3)).astype(np.uint8)


def save(path: Path, pixels: NDArray[np.generic]) -> Path:
    """Writes one image, with its folders; (h, w) is grey, of 16 bits if uint16."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def save_all(folder: Path, pixels: Pixels, suffix: str = ".png") -> Path:
    """Writes ``0000.png`` and so on."""
    for i, image in enumerate(pixels):
        save(folder / f"{i:04d}{suffix}", image.squeeze(-1) if image.shape[-1] == 1 else image)
    return folder


def cut(path: Path, share: float = 0.6) -> Path:
    """Leaves the beginning of a file only."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def short_of_data(image: Image.Image) -> bytes:
    """A PNG whose checksums are right, and whose pixels end early."""
    content = BytesIO()
    image.save(content, "png")
    whole = content.getvalue()
    start = whole.index(b"IDAT")
    length = int.from_bytes(whole[start - 4 : start], "big")
    part = b"IDAT" + whole[start + 4 : start + 4 + length // 2]
    chunk = struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part))
    return whole[: start - 4] + chunk + whole[start + length + 8 :]


def zipped(folder: Path, path: Path) -> Path:
    """Writes all files of a folder, in an order of its own."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*"), reverse=True):  # the order there does not matter
            archive.write(file, file.relative_to(folder))
    return path


def pixels(images: ImageSet, batch: int = 5) -> Tensor:
    """(n, c, h, w) of all images."""
    return torch.cat(list(images.batches(batch)))
