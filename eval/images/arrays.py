"""Images of a .npy or .npz file, read in parts: memory does not grow with their number."""

import math
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from fewstep.eval.common.image_sets import COLOURS, DAMAGE, GREY, PART, ImageSet, check_count

KEYS = ("arr_0", "images")


def array_images(path: Path, num: int | None = None) -> ImageSet:
    """Images of an array uint8 (n, h, w, c), c = 1 or 3, or (n, h, w).

    All bytes of a ``.npz`` are read once before, so that damage is found at once. Shapes that may
    well mean something else are warned about, and so are other images in the file.

    Args:
        path: a ``.npy``, or a ``.npz`` with the array as ``arr_0`` (as ADM writes it) or
            ``images``.
        num: take the first of them only.

    Raises:
        ValueError: in one line with the path: another shape or dtype, one image instead of several,
            no such array, pickled objects, a damaged or truncated file, or more after the array.
    """
    with _array(path) as file:
        shape, fortran, dtype = _header(file, path)
        _check(path, shape, fortran, dtype)
        image = shape[1:] if len(shape) == 4 else (*shape[1:], GREY)
        _check_length(file, path, math.prod(shape))
    if doubt := _doubt(shape):
        warnings.warn(f"{path} is uint8 {shape}, {doubt}", stacklevel=3)
    if others := _other_images(path):
        warnings.warn(f"{path}: left out {', '.join(others)}; save these elsewhere", stacklevel=3)
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
def _array(path: Path, key: str | None = None) -> Iterator[IO[bytes]]:
    """The file of the array; errors of reading it become one ValueError that names it."""
    if key is None and path.suffix.lower() == ".npz":
        key = _key(path)
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
        raise ValueError(
            f"{wanted}; pickled objects could run code: save numpy.stack of them, of equal sizes"
        )
    if dtype.kind in "fc" and len(shape) == 2:
        raise ValueError(f"{wanted}; these look like features: compute them from images here")
    if dtype != np.uint8:
        raise ValueError(f"{wanted}; round to 8 bits as a saved file would: {_rounded(dtype)}")
    if len(shape) == 3 and shape[2] in (GREY, COLOURS):
        raise ValueError(
            f"{wanted}, which is one image (h, w, c), or grey ones {shape[2]} wide; save x[None] "
            "for one, x[..., None] for grey ones"
        )
    if len(shape) == 4 and shape[3] not in (GREY, COLOURS):
        if shape[1] in (GREY, COLOURS):
            raise ValueError(f"{wanted}; transpose it by (0, 2, 3, 1)")
        raise ValueError(f"{wanted}; paste images with alpha on a background, and save c = 1 or 3")
    if len(shape) == 2:
        raise ValueError(f"{wanted}; if it is one grey image, save x[None, ..., None]")
    if len(shape) not in (3, 4):
        raise ValueError(wanted)
    if min(shape) < 1:
        raise ValueError(f"{wanted}; there are no images in it")
    if fortran:
        raise ValueError(f"{wanted} in Fortran order; save numpy.ascontiguousarray of it")


def _rounded(dtype: np.dtype) -> str:
    """How values x of another dtype become 8 bits."""
    if dtype.kind == "f":
        scaled = "127.5 * x + 128 of [-1, 1], 255 * x + 0.5 of [0, 1], x + 0.5 of [0, 255]"
        return f"numpy.clip(y, 0, 255).astype(numpy.uint8) of y = {scaled}"
    if dtype.kind == "b":
        return "x.astype(numpy.uint8) * 255"
    return (
        "x.astype(numpy.uint8) if all are in 0 .. 255, numpy.rint(x / 257).astype(numpy.uint8) if "
        "white is 65535"
    )


def _doubt(shape: tuple[int, ...]) -> str | None:
    """What else an array of this shape may be."""
    if len(shape) == 3 and shape[0] == COLOURS:
        return (
            "which is taken for three grey images; if it is one image (c, h, w), save "
            "x.transpose(1, 2, 0)[None]"
        )
    if len(shape) == 3 and shape[2] in (2, 4) and shape[1] != shape[2]:
        return (
            f"which is taken for {shape[0]} grey images {shape[2]} wide; if it is one image with "
            "alpha, save x[None] without alpha"
        )
    if len(shape) == 4 and {shape[1], shape[3]} <= {GREY, COLOURS} and max(shape[1:]) > 1:
        return (
            f"which is taken for images {shape[1]} high of {shape[3]} channels, (n, h, w, c); if "
            "it is (n, c, h, w), save x.transpose(0, 2, 3, 1)"
        )
    return None


def _other_images(path: Path) -> list[str]:
    """Arrays of a ``.npz`` beside the one that is taken, if they look like images too."""
    if path.suffix.lower() != ".npz":
        return []
    found = []
    for name in sorted(set(_members(path)) - {_key(path)}):
        try:
            with _array(path, name) as file:
                shape, _, dtype = _header(file, path)
        except KeyError:
            continue  # a member that is no array
        if dtype == np.uint8 and len(shape) in (3, 4):
            found.append(f"{name} uint8 {shape}")
    return found


def _check_length(file: IO[bytes], path: Path, wanted: int) -> None:
    """Whether the file has as many bytes as the array, and all of them can be read."""
    if isinstance(file, zipfile.ZipExtFile):
        there = sum(len(part) for part in iter(lambda: file.read(PART), b""))
    else:
        there = path.stat().st_size - file.tell()
    if there < wanted:
        raise ValueError(f"{path} is truncated: {there} bytes of {wanted}; copy it again")
    if there > wanted:
        raise ValueError(
            f"{path} has {there - wanted} bytes after its first array, which would be left out; "
            "save one array, or several by numpy.savez"
        )


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
