"""Images of a .npy or .npz file, read in parts: memory does not grow with their number."""

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from fewstep.eval.images.sets import COLOURS, GREY, PART, ImageSet, check_count

KEYS = ("arr_0", "images")
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError)


def array_images(path: Path, num: int | None = None) -> ImageSet:
    """Images of an array uint8 (n, h, w, c), c = 1 or 3, or (n, h, w).

    Args:
        path: a ``.npy``, or a ``.npz`` with the array as ``arr_0`` (as ADM writes it) or
            ``images``.
        num: take the first of them only.

    Raises:
        ValueError: in one line with the path: another shape or dtype, no such array, pickled
            objects, a damaged or truncated file. A damaged part in the middle of a .npz is found
            when it is read.
    """
    with _array(path) as file:
        shape, fortran, dtype = _header(file, path)
        _check(path, shape, fortran, dtype)
        image = shape[1:] if len(shape) == 4 else (*shape[1:], GREY)
        _check_length(file, path, math.prod(shape))
    h, w, c = image
    n = check_count(str(path), shape[0], num)
    return ImageSet(str(path), n, (c, h, w), lambda: _read(path, n, (h, w, c)))


def holds_images(path: Path) -> bool:
    """Whether a ``.npz`` has images and no statistics.

    Raises:
        ValueError: for a damaged file.
    """
    names = _members(path)
    return "mu" not in names and any(key in names for key in KEYS)


def _members(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"{path} is damaged, truncated or not an .npz ({error}); copy it again"
        ) from error


@contextmanager
def _array(path: Path) -> Iterator[IO[bytes]]:
    """The file of the array; errors of reading it become one ValueError that names it."""
    key = _key(path) if path.suffix.lower() == ".npz" else None
    try:
        if key is None:
            with path.open("rb") as file:
                yield file
        else:
            with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as file:
                yield file
    except FileNotFoundError:
        raise
    except DAMAGE as error:
        raise ValueError(f"{path} is damaged or truncated ({error}); copy it again") from error


def _key(path: Path) -> str:
    names = _members(path)
    for key in KEYS:
        if key in names:
            return key
    if "mu" in names:
        raise ValueError(f"{path} holds statistics, not images; name it by --ref")
    raise ValueError(
        f"{path} has no images: they are called {' or '.join(KEYS)}, and it has only "
        f"{', '.join(names) or 'nothing'}"
    )


def _header(file: IO[bytes], path: Path) -> tuple[tuple[int, ...], bool, np.dtype]:
    try:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(file)
        return np.lib.format.read_array_header_2_0(file)
    except ValueError as error:
        hint = "; this is a pickle, and pickled images are not read" if _pickle(path) else ""
        raise ValueError(f"{path} is not a numpy array ({error}){hint}") from error


def _pickle(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(1) == b"\x80"


def _check(path: Path, shape: tuple[int, ...], fortran: bool, dtype: np.dtype) -> None:
    got = f"got {dtype} {shape}"
    wanted = f"{path} must hold images as uint8 (n, h, w, c) with c = 1 or 3, or (n, h, w); {got}"
    if dtype.hasobject:
        raise ValueError(f"{wanted}; pickled objects could run code: save the array itself")
    if dtype.kind == "f" and len(shape) == 2:
        raise ValueError(f"{wanted}; these look like features: compute them from images here")
    if dtype != np.uint8:
        raise ValueError(f"{wanted}; round to 8 bits as a saved file would")
    if len(shape) == 4 and shape[3] not in (GREY, COLOURS) and shape[1] in (GREY, COLOURS):
        raise ValueError(f"{wanted}; transpose it by (0, 2, 3, 1)")
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (GREY, COLOURS)):
        raise ValueError(wanted)
    if min(shape) < 1:
        raise ValueError(f"{wanted}; there are no images in it")
    if fortran:
        raise ValueError(f"{wanted} in Fortran order; save numpy.ascontiguousarray of it")


def _check_length(file: IO[bytes], path: Path, wanted: int) -> None:
    if isinstance(file, zipfile.ZipExtFile):
        return  # its directory is at the end: of a truncated one there is none
    there = path.stat().st_size - file.tell()
    if there < wanted:
        raise ValueError(f"{path} is truncated: {there} bytes of {wanted}; copy it again")


def _read(path: Path, n: int, image: tuple[int, int, int]) -> Iterator[Tensor]:
    size = math.prod(image)
    rows = max(1, PART // size)
    with _array(path) as file:
        _header(file, path)
        for start in range(0, n, rows):
            count = min(rows, n - start)
            content = bytearray(file.read(count * size))
            if len(content) < count * size:
                raise ValueError(f"{path} is truncated after image {start}; copy it again")
            flat = torch.frombuffer(content, dtype=torch.uint8)
            yield flat.view(count, *image).movedim(-1, 1)
