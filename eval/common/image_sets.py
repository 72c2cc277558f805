"""A set of 8-bit images of one size, read in parts, wherever it is kept."""

import hashlib
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

GREY, COLOURS = 1, 3
PART = 2**23  # bytes of images read at a time
# What reading a file, or a member of a zip file, may raise: also if it is encrypted.
DAMAGE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError,
)  # fmt: skip


@dataclass(frozen=True)
class ImageSet:
    """Images that were looked through, and can be read.

    Attributes:
        name: as the user gave it.
        n: how many there are.
        shape: (c, h, w) of each.
        read: gives them in order, uint8 (k, c, h, w) with any k; each call begins anew.
        skipped: names of files that cannot be used, and why.
    """

    name: str
    n: int
    shape: tuple[int, int, int]
    read: Callable[[], Iterator[Tensor]]
    skipped: tuple[str, ...] = ()

    def batches(self, size: int) -> Iterator[Tensor]:
        """All images in parts of ``size``, the last maybe shorter."""
        return rebatched(self.read(), size)


class SetHash:
    """SHA-256 of pixels in order: the same for a folder, an archive and an array of them.

    Args:
        shape: (c, h, w) of each image.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self._total = hashlib.sha256(f"uint8 {shape}".encode())

    def add(self, images: Tensor) -> None:
        """Takes in uint8 images (k, c, h, w)."""
        self._total.update(images.cpu().contiguous().numpy().tobytes())

    def hexdigest(self) -> str:
        """Of what was added so far."""
        return self._total.hexdigest()


def rebatched(parts: Iterator[Tensor], size: int) -> Iterator[Tensor]:
    """The same rows in parts of ``size``, the last maybe shorter; holds little more than one."""
    held: list[Tensor] = []
    count = 0
    for part in parts:
        while len(part):
            held.append(part[: size - count])
            count += len(held[-1])
            part = part[len(held[-1]) :]
            if count == size:
                yield torch.cat(held)
                held, count = [], 0
    if held:
        yield torch.cat(held)


def check_count(name: str, there: int, num: int | None) -> int:
    """How many images to take.

    Raises:
        ValueError: for ``num`` below 1 or above what is there.
    """
    if num is None:
        return there
    if not 1 <= num <= there:
        raise ValueError(f"num must be in 1 .. {there}, the images of {name}; got {num}")
    return num


def quantised(x: Tensor) -> Tensor:
    """uint8 of samples in [-1, 1], as EDM rounds: clip(127.5 x + 128) and floor.

    Raises:
        ValueError: if a value is not finite, which would become some grey.
    """
    if not bool(x.isfinite().all()):
        bad = int((~x.flatten(1).isfinite().all(1)).nonzero()[0])
        raise ValueError(
            f"sample {bad} of the unit is not finite; use more calls, or another sampler"
        )
    return (x * 127.5 + 128).clamp(0, 255).to(torch.uint8)
