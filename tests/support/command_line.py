"""The command line called in this process."""

from pathlib import Path

import pytest

from fewstep.eval import cli


def call(*arguments: str | Path) -> int:
    """Exit status of ``fewstep ARGUMENTS``."""
    with pytest.raises(SystemExit) as caught:
        cli.main([str(argument) for argument in arguments])
    assert isinstance(caught.value.code, int)
    return caught.value.code


def tree(folder: Path) -> dict[str, bytes | None]:
    """All files below a folder with what is in them, and all folders."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }
