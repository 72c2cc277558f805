"""Which files of a folder or zip file are images, and what else it holds.

Folders are searched to any depth, so that one folder for each class is fine. The order is that of
the names with their folders, the same in a folder and in a zip file of it. A file counts as an
image by its suffix, in upper or lower case: those of the formats that Pillow opens. All others are
counted, so that none is left out in silence.
"""

import os
import zipfile
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from fewstep.eval.images.pixels import NO_PILLOW

USUAL = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".gif")
# Pillow opens these, but draws them from instructions, only tells that they are there, offers
# several sizes of one picture, or reads numbers of which none is white.
NO_PICTURES = (
    "EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG", "ICO", "ICNS", "CUR", "DCX", "FITS", "SPIDER",
)  # fmt: skip
# What `fewstep gen` draws of its first samples, in their folder: a picture of images, and none.
CONTACT_SHEET = "contact_sheet.png"


class Names(NamedTuple):
    """The files of a folder or zip file.

    Attributes:
        images: their names in order.
        others: what is left out, such as ``3 .txt, 1 without a suffix``; empty if there is nothing.
    """

    images: list[str]
    others: str


def image_names(path: Path) -> Names:
    """The files of a folder or ``.zip``, by their names alone.

    Raises:
        ValueError: for a damaged zip file.
        ImportError: without Pillow.
    """
    found, twice = (_walk(path), 0) if path.is_dir() else _members(path)
    seen = [name for name in found if not _is_of_the_system(PurePosixPath(name))]
    images = [name for name in seen if _is_image(PurePosixPath(name)) and not _is_hidden(name)]
    images = [name for name in images if PurePosixPath(name).name != CONTACT_SHEET]
    others = _counted(PurePosixPath(name) for name in set(seen).difference(images))
    if twice:
        others += [f"{twice} of a name that a later one has again"]
    return Names(sorted(images, key=_plain), ", ".join(others))


@cache
def suffixes() -> frozenset[str]:
    """Of files that count as images.

    Raises:
        ImportError: without Pillow.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(NO_PILLOW) from error
    kinds = Image.registered_extensions()  # makes Pillow load all its formats
    return frozenset(
        suffix for suffix, kind in kinds.items() if kind in Image.OPEN and kind not in NO_PICTURES
    )


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


def _members(path: Path) -> tuple[list[str], int]:
    """The files that unpacking would leave, and how many it would write over."""
    try:
        with zipfile.ZipFile(path) as archive:
            found = [name for name in archive.namelist() if not name.endswith("/")]
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is damaged or truncated ({error}); copy it again") from error
    last = {_plain(name): name for name in found}
    return list(last.values()), len(found) - len(last)


def _plain(name: str) -> str:
    """Some programs write ./a.png into zip files, which is a.png in the folder."""
    return PurePosixPath(name).as_posix()


def _is_of_the_system(name: PurePosixPath) -> bool:
    """What macOS and Windows put beside files: ._a.png has no picture in it."""
    return "__MACOSX" in name.parts or name.name in (".DS_Store", "Thumbs.db", "desktop.ini") or (
        name.name.startswith("._")
    )  # fmt: skip


def _is_hidden(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return any(part.startswith(".") and part != ".." for part in parts)


def _is_image(name: PurePosixPath) -> bool:
    return name.suffix.lower() in suffixes()


def _kind(name: PurePosixPath) -> str:
    if name.name == CONTACT_SHEET:
        return CONTACT_SHEET
    return name.suffix.lower() or "without a suffix"


def _counted(names: Iterable[PurePosixPath]) -> list[str]:
    """``3 .txt``, ``1 .json``: the most first."""
    kinds = Counter(
        ("hidden " if _is_hidden(str(name)) else "") + _kind(name) for name in names
    )  # fmt: skip
    ordered = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
    return [f"{count} {kind}" for kind, count in ordered]
