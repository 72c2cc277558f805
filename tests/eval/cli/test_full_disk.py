"""A disk that is full: every command that writes says so in one line with the name of the file.

A limit on the size of files makes every library meet the real thing, at its first byte or later.
"""

import errno
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command_line import call, tree
from safetensors import SafetensorError

from fewstep.samplers import build_plan
from fewstep.samplers.adapter.files import save_tuned
from fewstep.schedules import discrete_vp
from fewstep.writing import NotWrittenError, write_whole, writing

GEN = ("gen", "-s", "ddim", "--nfe", "2", "-m", "fashion-exact", "--seeds", "0-7", "--unit", "4")
USE = ("--extractor", "pixels:1x16x16")
# What is called, and the file or folder that cannot be written.
COMMANDS: dict[str, tuple[str, ...]] = {
    "p.json": ("plan", "ddim", "--save", "p.json"),
    "p.png": ("plan", "ddim", "--plot", "p.png"),
    "s.png": ("sample", "--n", "2", "--nfe", "1", "--out", "s.png"),
    "new": (*GEN, "-o", "new"),
    "new2": (*GEN, *USE, "--keep", "none", "-o", "new2"),
    "again.npz": ("ref", "run", *USE, "-o", "again.npz"),
    "ref.pkl": ("convert", "ref.npz", "ref.pkl"),
    "copy.npz": ("convert", "ref.npz", "copy.npz"),
    "x.npz": ("export", "run", "x.npz"),
    "x.zip": ("export", "run", "x.zip"),
    "x": ("export", "run", "x"),
    "run/result.json": ("calc", "run", "--ref", "ref.npz", *USE, "-o", "scores"),
    "b": ("bench", "--problem", "fashion-exact", "-s", "ddim", "--nfe", "2", "--n", "4",
          "--out", "b"),
}  # fmt: skip


@contextmanager
def room(size: int) -> Iterator[None]:
    """Within, no file grows beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("full")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("FEWSTEP_CACHE", str(tmp_path_factory.mktemp("cache")))
        assert call(*GEN, "-o", "run") == 0
        assert call("ref", "run", *USE, "-o", "ref.npz") == 0
        # What is cached is there, so that only the command's own files are missing.
        assert call(*COMMANDS["b"]) == 0
        assert call("report", "b") == 0
        yield folder


@pytest.mark.parametrize("size", [0, 100])
@pytest.mark.parametrize("target", COMMANDS)
def test_a_full_disk_is_one_line_with_the_file(
    target: str, size: int, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(work)
    capsys.readouterr()
    with room(size):
        assert call(*COMMANDS[target]) == 2
    printed = capsys.readouterr()
    (line,) = [line for line in printed.err.splitlines() if not line.startswith("warning: ")]
    assert line.startswith("error: cannot be written (File too large): ")
    assert line.rpartition(": ")[2].startswith(target)
    # No file that was there is lost, and none is left half.
    after = tree(work)
    for name, content in before.items():
        assert after.get(name) == content or name.startswith(("b/units", "run/log", "run/journal"))
    assert not [name for name in after.keys() - before.keys() if "unfinished" in name]
    assert not [name for name in after if name.endswith(".part")]


def test_a_report_names_the_file(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with room(2000):
        assert call("report", "b") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: cannot be written (File too large): b/")


@pytest.mark.parametrize("command", [["list"], ["plan", "ddim"], ["gen", "--help"]])
def test_a_full_output_is_one_line(command: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "fewstep", *command],
            stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert done.stderr == "error: No space left on device: standard output\n"
    assert done.returncode == 2


# The mechanism


def of(error: Exception, path: Path, scratch: Path | None = None) -> OSError:
    with pytest.raises(OSError) as caught, writing(path, scratch):  # noqa: PT011
        raise error
    return caught.value


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.EFBIG]
)
def test_errors_get_the_name_of_the_file(number: int, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for name in (None, str(path), f"{path}.part", str(tmp_path / ".a.json.part")):
        error = of(OSError(number, "no room", name) if name else OSError(number, "no room"), path)
        assert (error.errno, error.filename) == (number, str(path))
        assert error.strerror == "cannot be written (no room)"
    rust = SafetensorError(f"Error while serializing: I/O error: what (os error {number})")
    assert of(rust, path).filename == str(path)
    assert of(rust, path).errno == number
    # numpy tells the number of bytes alone.
    assert of(OSError("12 requested and 0 written"), path).filename == str(path)


def test_files_of_a_scratch_folder_are_told_by_their_names(tmp_path: Path) -> None:
    scratch = tmp_path / ".unfinished-x"
    error = of(OSError(28, "no room", str(scratch / "a.png")), tmp_path / "out", scratch)
    assert error.filename == str(tmp_path / "out" / "a.png")
    with pytest.raises(NotWrittenError) as caught, writing(tmp_path / "out", scratch):  # noqa: SIM117
        with writing(scratch / "a.png"):
            raise OSError(28, "no room")
    assert str(caught.value.filename) == str(tmp_path / "out" / "a.png")
    assert caught.value.strerror == "cannot be written (no room)"


def test_other_errors_stay_as_they_are(tmp_path: Path) -> None:
    errors = [FileNotFoundError("no plan; write one"), FileNotFoundError(2, "gone", "/other"),
              SafetensorError("invalid header")]  # fmt: skip
    for error in errors:
        with pytest.raises(type(error)) as caught, writing(tmp_path / "a"):
            raise error
        assert caught.value is error


def test_plans_are_written_whole(tmp_path: Path) -> None:
    plan = build_plan("ddim", discrete_vp("linear"), 3)
    plan.save(tmp_path / "m.json")
    before = tree(tmp_path)
    config = {"_class_name": "DDIMScheduler", "prediction_type": "epsilon"}
    for save in (
        lambda: plan.save(tmp_path / "m.json"),
        lambda: save_tuned(tmp_path / "m.json", [plan], config),
        lambda: write_whole(tmp_path / "m.json", "x" * 1000),
    ):
        with pytest.raises(NotWrittenError, match=r"m\.json"), room(100):
            save()
        assert tree(tmp_path) == before
