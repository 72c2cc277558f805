"""``fewstep ref`` and ``calc`` where something is missing: weights, scipy, memory."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from calc_folders import Capture, make_folder
from command_line import call
from image_files import coloured, save_all

from fewstep.eval.images import files as image_files
from fewstep.eval.networks import inception_weights

folder = pytest.fixture(make_folder)


def never(*arguments: Any, **settings: Any) -> Any:
    raise AssertionError("looked at images before the extractor")


@pytest.mark.parametrize("command", ["ref", "calc"])
@pytest.mark.parametrize("how", ["named", "searched for"])
def test_weights_come_before_all_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, command: str, how: str
) -> None:
    def offline(*arguments: Any, **settings: Any) -> Any:
        raise OSError("no network")

    monkeypatch.setattr(inception_weights, "urlopen", offline)
    monkeypatch.delenv("FEWSTEP_INCEPTION", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(folder / "hub"))
    monkeypatch.setattr(image_files, "look", never)
    monkeypatch.setattr(image_files, "pixels", never)
    named = ("--weights", "nowhere.pth") if how == "named" else ()
    rest = ("-o", "new.npz") if command == "ref" else ("--ref", "real", "-o", "new")
    capsys.readouterr()
    assert call(command, "real", *rest, "--extractor", "inception:edm", *named) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert inception_weights.URL in line
    assert inception_weights.PUBLISHED_NAMES[0] in line
    assert not Path("new").exists()
    assert not Path("new.npz").exists()


def test_images_that_are_not_there_are_named_before_weights_are_fetched(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(inception_weights, "urlopen", never)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(folder / "hub"))
    assert call("ref", "nothere", "-o", "new.npz", "--extractor", "inception:edm") == 2
    assert capsys.readouterr().err.startswith("error: no file or folder nothere; images are")


WITHOUT_SCIPY = """
import sys

class NoScipy:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "scipy":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NoScipy())
from pathlib import Path
from fewstep.eval.networks import families
from fewstep.eval.cli import main
from fewstep.eval.networks.inception import InceptionExtractor

families.EXTRACTORS["random"] = lambda variant, device, weights: InceptionExtractor(
    "edm", device, weights, expected_sha256=variant)

def call(*arguments):
    try:
        main(arguments)
    except SystemExit as done:
        assert done.code == 0, arguments
"""


def without_scipy(code: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_SCIPY + code], capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_needs_scipy(tmp_path: Path) -> None:
    save_all(tmp_path / "real", coloured(30, 28)[..., :1])
    save_all(tmp_path / "made", coloured(30, 28, seed=1)[..., :1])
    out = without_scipy(
        "for name in ('pixels:1x28x28', 'fd-cnn:fashion'):\n"
        "    call('ref', 'real', '-o', 'ref.npz', '--extractor', name)\n"
        "    call('calc', 'made', '--ref', 'ref.npz', '--metrics', 'fd,kid,prdc,sw2')\n"
        "assert 'scipy' not in sys.modules\n",
        tmp_path,
    )
    assert "FD-pixels-1x28x28-30" in out
    assert "FD-fashion-30" in out


@pytest.mark.slow  # 91 MiB of weights, and 3 s to import torchvision
def test_inception_needs_no_scipy(tmp_path: Path) -> None:
    pytest.importorskip("pytorch_fid")
    from random_inception import random_tensors, save

    sha256 = save(random_tensors(), tmp_path / "weights.pth")
    save_all(tmp_path / "real", coloured(6, 16))
    save_all(tmp_path / "made", coloured(6, 16, seed=1))
    out = without_scipy(
        f"use = ('--extractor', 'random:{sha256}', '--weights', 'weights.pth')\n"
        "call('calc', 'made', '--ref', 'real', '--metrics', 'fd,kid', *use)\n"
        "assert 'scipy' not in sys.modules\n",
        tmp_path,
    )
    assert "FD-inception-edm-6" in out


MEASURED = """
import re, sys
from pathlib import Path
from fewstep.eval.cli import main
try:
    main(["calc", sys.argv[1], "--ref", "ref.npz"])
except SystemExit as done:
    assert done.code == 0
# Not ru_maxrss: that of a process begins with its parent's.
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.slow  # three processes that import torch
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the peak there")
def test_memory_does_not_grow_with_the_number_of_samples(tmp_path: Path) -> None:
    """Features of all 50,000 would take 98 MiB more than the 560 MiB of a process with torch."""
    generator = np.random.default_rng(0)
    for n in (1_000, 10_000, 50_000):
        pixels = generator.integers(0, 256, (n, 16, 32, 1), np.uint8)
        np.save(tmp_path / f"{n}.npy", pixels)
    use = ("--extractor", "pixels:1x16x32", "--features", "0")
    assert call("ref", tmp_path / "1000.npy", "-o", tmp_path / "ref.npz", *use) == 0
    peaks = [
        int(subprocess.run(
            [sys.executable, "-c", MEASURED, f"{n}.npy"], capture_output=True, text=True,
            check=True, cwd=tmp_path,
        ).stdout.split()[-1])
        for n in (1_000, 10_000, 50_000)
    ]  # fmt: skip
    assert max(peaks) < 1.05 * min(peaks)
