"""Images of a folder or a zip file: looked through before use, then decoded one after another.

Folders are searched to any depth, so that one folder for each class is fine. The order is that of
the names with their folders, the same in a folder and in a zip file of it. Suffixes count in upper
and lower case; files with others, and hidden ones, are left aside.
"""

import math
import os
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fewstep.eval.images.pixels import Look, UnusableError, look, pixels
from fewstep.eval.images.sets import PART, ImageSet, check_count

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
LOSSY = ("JPEG", "MPO", "WEBP")
OnError = Literal["raise", "skip"]
Read = Callable[[str], bytes]


def file_images(path: Path, num: int | None = None, on_error: OnError = "raise") -> ImageSet:
    """Images of a folder, or of a ``.zip``, after a look at every file of them.

    PNG files are checked by the checksums of all their parts, others by decoding them. Grey images
    of 16 bits become 8 bits by x / 257, rounded. If any image is coloured, all become RGB.

    Args:
        path: the folder or the zip file.
        num: take the first of them only.
        on_error: ``skip`` leaves out files that cannot be used.

    Raises:
        ValueError: for no images, images of different sizes, or, unless they are skipped, files
            that are damaged or of a kind that has no one meaning as 8-bit pixels.
        ImportError: without Pillow.
    """
    names = _names(path)
    if not names:
        raise ValueError(
            f"no images in {path} or the folders in it; files of images end in "
            f"{', '.join(SUFFIXES)}"
        )
    check_count(str(path), len(names), num)
    used, bad = _look_through(path, names, num)
    _check(path, used, bad, on_error)
    check_count(str(path), len(used), num)
    _warn_of_lossy(path, used)
    first = next(iter(used.values()))
    shape = (max(found.channels for found in used.values()), first.height, first.width)
    return ImageSet(str(path), len(used), shape, lambda: _decoded(path, used, shape), tuple(bad))


def _look_through(
    path: Path, names: list[str], num: int | None
) -> tuple[dict[str, Look], list[str]]:
    """The first ``num`` files that can be used, and those among them that cannot, and why."""
    used: dict[str, Look] = {}
    bad = []
    with _reader(path) as read:
        for name in names:
            if len(used) == num:
                break
            try:
                used[name] = look(_content(read, name))
            except UnusableError as error:
                bad.append(f"{name}: {error}")
    return used, bad


def _names(path: Path) -> list[str]:
    if path.is_dir():
        found = _walk(path)
    else:
        try:
            with zipfile.ZipFile(path) as archive:
                found = [name for name in archive.NameToInfo if not name.endswith("/")]
        except zipfile.BadZipFile as error:
            raise ValueError(f"{path} is damaged or truncated ({error}); copy it again") from error
    images = [name for name in found if _is_image(PurePosixPath(name))]
    # Some programs write ./a.png into zip files, which is a.png in the folder.
    return sorted(images, key=lambda name: PurePosixPath(name).as_posix())


def _walk(path: Path) -> list[str]:
    """All files; links to folders are followed, each folder once."""
    seen = {os.path.realpath(path)}
    found = []
    for folder, folders, files in os.walk(path, followlinks=True):
        folders[:] = [f for f in folders if not _again(os.path.join(folder, f), seen)]
        found += [(Path(folder) / file).relative_to(path).as_posix() for file in files]
    return found


def _again(folder: str, seen: set[str]) -> bool:
    real = os.path.realpath(folder)
    known = real in seen
    seen.add(real)
    return known


def _is_image(name: PurePosixPath) -> bool:
    # macOS puts files as ._a.png into zip files.
    hidden = any(part.startswith((".", "__MACOSX")) for part in name.parts)
    return name.suffix.lower() in SUFFIXES and not hidden


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
    except (OSError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:  # or encrypted
        raise UnusableError(f"it cannot be read ({error})") from error


def _check(path: Path, used: dict[str, Look], bad: list[str], on_error: OnError) -> None:
    if bad and (on_error == "raise" or not used):
        more = f"; {len(bad) - 1} more files like it" if len(bad) > 1 else ""
        remedy = "mend or remove it, or use --on-error skip" if used else "no file is left"
        raise ValueError(f"{path}/{bad[0]}{more}; {remedy}")
    sizes = {(found.width, found.height): name for name, found in reversed(used.items())}
    if len(sizes) > 1:
        examples = ", ".join(f"{name} is {w} x {h}" for (w, h), name in list(sizes.items())[-4:])
        raise ValueError(
            f"the images of {path} have {len(sizes)} sizes: {examples}; bring them to one size, as "
            "the model's training set was"
        )


def _warn_of_lossy(path: Path, used: dict[str, Look]) -> None:
    formats = Counter(found.format for found in used.values())
    if lossy := sum(formats[kind] for kind in LOSSY):
        warnings.warn(
            f"{lossy} of {len(used)} images of {path} are JPEG or WebP files, whose compression "
            "changes features; compare sets of lossless files only",
            stacklevel=4,
        )


def _decoded(path: Path, used: dict[str, Look], shape: tuple[int, int, int]) -> Iterator[Tensor]:
    names, together = list(used), max(1, PART // math.prod(shape))
    with _reader(path) as read:
        for start in range(0, len(names), together):
            part = []
            for name in names[start : start + together]:
                try:
                    part.append(pixels(_content(read, name), shape[0]))
                except UnusableError as error:
                    raise ValueError(f"{path}/{name}: {error}, though it was not before") from error
            yield torch.from_numpy(np.stack(part)).movedim(-1, 1)
