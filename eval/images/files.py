"""Images of a folder or a zip file: all decoded before use, then again one after another.

The look decodes each file as its use does, so that nothing can turn up in the middle of a run, when
the number of images is already part of a result.
"""

import math
import warnings
import zipfile
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from fewstep.eval.common.image_sets import DAMAGE, PART, ImageSet, check_count
from fewstep.eval.images.names import USUAL, image_names
from fewstep.eval.images.pixels import Look, UnusableError, look, nothing_filled_in, pixels

MOST_BITS_IN_16 = 14  # of detectors and cameras whose values are kept in 16-bit files
OnError = Literal["raise", "skip"]
Read = Callable[[str], bytes]
Result = TypeVar("Result")
LOOKED_AT_ONCE = 256


def file_images(path: Path, num: int | None = None, on_error: OnError = "raise") -> ImageSet:
    """Images of a folder, or of a ``.zip``, after each file of them was decoded once.

    Grey images of b > 8 bits become 8 bits by 255 x / (2^b - 1), rounded. If any image is coloured,
    all become RGB. Warns of what else is there, of compression with loss, of images that viewers
    would turn, and of 16-bit images that use few of their bits.

    Args:
        path: the folder or the zip file.
        num: take the first of them only.
        on_error: ``skip`` leaves out files that cannot be used.

    Raises:
        ValueError: for no images, images of different sizes, or, unless they are skipped, files
            that are damaged or of a kind that has no one meaning as 8-bit pixels.
        ImportError: without Pillow.
    """
    names, others = image_names(path)
    if not names:
        there = f", only {others}" if others else ""
        raise ValueError(
            f"no images in {path} or the folders in it{there}; files of images end in "
            f"{', '.join(USUAL)} or as other formats that Pillow opens; name an archive or array "
            "itself, not its folder"
        )
    check_count(str(path), len(names), num)
    used, bad = _look_through(path, names, num)
    _check(path, used, bad, on_error)
    check_count(str(path), len(used), num)
    if others:
        warnings.warn(f"{path}: left out as no images by their names: {others}", stacklevel=3)
    _warn_of_pixels(path, used.values())
    first = next(iter(used.values()))
    shape = (max(found.channels for found in used.values()), first.height, first.width)
    read = partial(_decoded, path, list(used), shape)
    return ImageSet(str(path), len(used), shape, read, tuple(bad))


def _look_through(
    path: Path, names: list[str], num: int | None
) -> tuple[dict[str, Look], list[str]]:
    """The first ``num`` files that can be used, and those among them that cannot, and why."""
    used: dict[str, Look] = {}
    bad = []
    for name, found in _each(path, names, look, LOOKED_AT_ONCE):
        if len(used) == num:
            break
        if isinstance(found, UnusableError):
            bad.append(f"{name}: {found}")
        else:
            used[name] = found
    return used, bad


def _each(
    path: Path, names: list[str], work: Callable[[bytes], Result], together: int
) -> Iterator[tuple[str, Result | UnusableError]]:
    """What becomes of each file in order, ``together`` at a time: Pillow decodes in threads."""

    def worked(name: str) -> Result | UnusableError:
        try:
            return work(_content(read, name))
        except UnusableError as error:
            return error

    with _reader(path) as read, ThreadPoolExecutor() as pool:
        for start in range(0, len(names), together):
            part = names[start : start + together]
            with nothing_filled_in():
                found = list(pool.map(worked, part))
            yield from zip(part, found, strict=True)


@contextmanager
def _reader(path: Path) -> Iterator[Read]:
    """Gives the bytes of a file by its name."""
    if path.is_dir():
        yield lambda name: (path / name).read_bytes()
        return
    with zipfile.ZipFile(path) as archive:
        yield archive.read


def _content(read: Read, name: str) -> bytes:
    try:
        return read(name)
    except DAMAGE as error:
        raise UnusableError(f"it cannot be read ({error})") from error


def _check(path: Path, used: dict[str, Look], bad: list[str], on_error: OnError) -> None:
    if bad and (on_error == "raise" or not used):
        more = f"; {len(bad) - 1} more files like it" if len(bad) > 1 else ""
        remedy = (
            "mend or remove it, or use --on-error skip (not for --paired)"
            if used
            else "no file is left"
        )
        raise ValueError(f"{path}/{bad[0]}{more}; {remedy}")
    sizes = {(found.width, found.height): name for name, found in reversed(used.items())}
    if len(sizes) > 1:
        examples = ", ".join(f"{name} is {w} x {h}" for (w, h), name in list(sizes.items())[-4:])
        raise ValueError(
            f"the images of {path} have {len(sizes)} sizes: {examples}; bring them to one size, as "
            "the model's training set was"
        )


def _warn_of_pixels(path: Path, looks: Collection[Look]) -> None:
    def warn(count: int, what: str) -> None:
        if count:
            warnings.warn(f"{count} of {len(looks)} images of {path} {what}", stacklevel=5)

    warn(
        sum(found.lossy for found in looks),
        "are JPEG or WebP files, or compressed as these, AVIF or JPEG 2000 are, which changes "
        "features; compare sets of lossless files only",
    )
    warn(
        sum(found.turned for found in looks),
        "have an Exif orientation by which viewers turn them; they are taken as they lie in the "
        "file: apply PIL.ImageOps.exif_transpose and save them if you want them turned",
    )
    values = [found.highest for found in looks if found.highest is not None]
    bits = max(8, max(values, default=0).bit_length())
    if bits <= MOST_BITS_IN_16 and any(values):
        warn(
            len(values),
            f"have 16 bits, and no value above {max(values)}: they are taken for dark; if they "
            f"have {bits} bits in truth, save round(x / {2**bits - 1} * 255) with 8 bits",
        )


def _decoded(path: Path, names: list[str], shape: tuple[int, int, int]) -> Iterator[Tensor]:
    together = max(1, PART // math.prod(shape))
    part = []
    for name, found in _each(path, names, partial(pixels, channels=shape[0]), together):
        if isinstance(found, UnusableError):
            raise ValueError(f"{path}/{name}: {found}, though it was not before") from found
        part.append(found)
        if len(part) == together or name == names[-1]:
            yield torch.from_numpy(np.stack(part)).movedim(-1, 1)
            part = []
