"""Folders: where the cache is, whether one can be written, and files that appear all or none."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fewstep.writing import writing


def cache_folder() -> Path:
    """``FEWSTEP_CACHE`` if set, else ``~/.cache/fewstep``."""
    return Path(os.environ.get("FEWSTEP_CACHE") or Path.home() / ".cache" / "fewstep")


def check_writable(folder: Path) -> None:
    """Makes the folder and proves that files can be written there.

    Raises:
        ValueError: in one line, if not.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"cannot write to {folder} ({error.strerror}); choose another folder"
        ) from error


@contextmanager
def all_or_nothing(folder: Path) -> Iterator[Path]:
    """A scratch folder whose files move into ``folder`` when the block ends without an error.

    Raises:
        OSError: with the name that the file would have had, if it cannot be written.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unfinished-") as name:
        scratch = Path(name)
        with writing(folder, scratch):
            yield scratch
        for path in sorted(scratch.iterdir()):
            os.replace(path, folder / path.name)
