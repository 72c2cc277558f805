"""``make`` takes any Python from 3.11 on, and says in a line what it needs where there is none."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAKE = shutil.which("make")
OLD = "#!/bin/sh\nexit 1\n"  # what an older Python answers when it is asked whether it will do
NEW = f'#!/bin/sh\nexec {sys.executable} "$@"\n'


def dry_run(folder: Path, pythons: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """What ``make -n`` would do without .venv where these Pythons are all that there is."""
    if MAKE is None:
        pytest.skip("make is not installed")
    for name, script in pythons.items():
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    command = [MAKE, "-n", "-C", str(ROOT), "test", f"VENV={folder / 'none'}"]
    return subprocess.run(command, env={"PATH": str(folder)}, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("pythons", "taken"),
    [
        ({"python3": NEW}, "python3"),
        ({"python3.12": NEW, "python3": OLD}, "python3.12"),
        ({"python3.13": OLD, "python3.11": NEW, "python3": NEW}, "python3.11"),
    ],
)
def test_the_first_that_will_do_is_taken(
    pythons: dict[str, str], taken: str, tmp_path: Path
) -> None:
    done = dry_run(tmp_path, pythons)
    assert done.returncode == 0, done.stderr
    assert f"{taken} -m venv {tmp_path / 'none'}\n" in done.stdout


@pytest.mark.parametrize("pythons", [{}, {"python3": OLD}])
def test_without_one_a_line_says_what_to_do(pythons: dict[str, str], tmp_path: Path) -> None:
    done = dry_run(tmp_path, pythons)
    assert done.returncode == 2
    (line,) = [text for text in done.stderr.splitlines() if "***" in text]
    assert "needs Python 3.11 or later" in line
    assert "make PYTHON=" in line
