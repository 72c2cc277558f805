"""Streams that are closed, unread, or lack a character: a line or silence, and no traceback."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from command_line import call

from fewstep.eval.cli.app import _show_warning

PYTHON = f"{sys.executable} -m fewstep"


def shell(command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True,
        env={**os.environ, **environment}, check=False,
    )  # fmt: skip


def test_a_reader_that_is_gone_is_no_mistake() -> None:
    """Nothing is said, of a model least of all; the status is that of other programs."""
    unbuffered = shell(f"{PYTHON} list | true; echo ${{PIPESTATUS[0]}}", PYTHONUNBUFFERED="1")
    assert (unbuffered.stdout, unbuffered.stderr) == ("141\n", "")
    at_the_end = shell(f"{PYTHON} plan ddim --nfe 2 | true; echo ${{PIPESTATUS[0]}}")
    assert (at_the_end.stdout, at_the_end.stderr) == ("141\n", "")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", ">&- 2>&- <&-"])
def test_a_closed_stream_is_no_mistake(closed: str) -> None:
    for command in ("list ddim", "plan ddim --nfe 2"):
        done = shell(f"{PYTHON} {command} {closed}")
        assert (done.returncode, done.stderr) == (0, "")
    refused = shell(f"{PYTHON} plan nope {closed}")
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr


def test_what_an_encoding_lacks_is_written_otherwise(tmp_path: Path) -> None:
    """Results are printed whole: a sign of a spread, the name of a folder."""
    name = "näme"
    images = np.random.default_rng(0).integers(0, 255, (20, 4, 4, 1)).astype(np.uint8)
    np.save(tmp_path / f"{name}.npy", images)
    use = ("--extractor", "pixels:1x4x4")
    assert call("ref", tmp_path / f"{name}.npy", "-o", tmp_path / "ref.npz", *use) == 0
    done = shell(
        f"cd '{tmp_path}' && {PYTHON} calc {name}.npy --ref ref.npz", PYTHONIOENCODING="ascii"
    )
    assert done.returncode == 0, done.stderr
    assert r"n\xe4me" in done.stdout
    assert r" \xb1 " in done.stdout


def test_a_warning_that_cannot_be_written_ends_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        def write(self, text: str) -> None:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Gone())
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = _show_warning
        warnings.warn("the cache cannot be used", stacklevel=1)
