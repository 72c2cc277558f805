"""Writing to disk such that a crash, of the process or of the machine, takes nothing back."""

import os
from pathlib import Path

from fewstep.writing import whole_file, writing


def write_durably(path: Path, content: bytes) -> None:
    """Writes a file that appears whole or not at all, and stays.

    Only one process may write ``path`` at a time.
    """
    with whole_file(path) as part, part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    # The new name is kept in the folder, which has a cache of its own.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def append_durably(path: Path, line: str) -> None:
    """Adds a line to a file."""
    with writing(path), path.open("ab+") as file:
        if size := file.seek(0, os.SEEK_END):
            file.seek(size - 1)
            if file.read(1) != b"\n":  # the last line was cut off by a crash
                line = "\n" + line
        file.write(f"{line}\n".encode())
        file.flush()
        os.fsync(file.fileno())
