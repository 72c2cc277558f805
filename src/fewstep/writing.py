"""Files that cannot be written: the error names the file, whoever raises it.

A full disk is noticed by a call on an open file, which knows no name; safetensors has an error of
its own for it, numpy tells the number of bytes, and a temporary file is not the one that the user
asked for.
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

_OS_ERROR = re.compile(r"\(os error (\d+)\)")  # as Rust ends the text of one


class NotWrittenError(OSError):
    """A file could not be written; its text says why and which."""

    @classmethod
    def of(cls, error: OSError, path: Path) -> "NotWrittenError":
        """Of an error that knows the reason."""
        reason = error.strerror or str(error)
        text = reason if isinstance(error, cls) else f"cannot be written ({reason})"
        return cls(error.errno or errno.EIO, text, str(path))


@contextmanager
def writing(path: str | Path, scratch: str | Path | None = None) -> Iterator[None]:
    """Within, an error of writing is an OSError with the name of the file.

    Args:
        path: of the file, or of the folder that several go to.
        scratch: the folder where they are made, whose files are told by their names in ``path``.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None and type(error) is not OSError:
            raise  # not of the system: one of ours, which has its own words
        place = _place(error.filename, Path(path), scratch)
        if place is None:
            raise  # of another file, which it names
        raise NotWrittenError.of(error, place) from error
    except SafetensorError as error:
        found = _OS_ERROR.search(str(error))
        if found is None:
            raise
        number = int(found.group(1))
        raise NotWrittenError.of(OSError(number, os.strerror(number)), Path(path)) from error


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A name to write to; the file there becomes ``path`` if the block ends without an error.

    Only one process may write ``path`` at a time.

    Raises:
        OSError: with the name of ``path``, if it cannot be written.
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    try:
        with writing(path):
            yield part
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_whole(path: str | Path, text: str) -> None:
    """Writes a text in UTF-8, which appears whole or not at all; an error names the file."""
    with whole_file(path) as part:
        part.write_text(text, "utf-8")


def _place(name: str | None, path: Path, scratch: str | Path | None) -> Path | None:
    """What a user calls the file of an error; None for a file that is not meant."""
    if name is None or Path(name).name.strip(".").removesuffix(".part") == path.name:
        return path
    below = scratch and os.path.abspath(name).startswith(os.path.abspath(scratch) + os.sep)
    return path / os.path.relpath(name, scratch) if below else None
