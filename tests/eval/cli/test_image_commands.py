"""What commands say of image files before a network runs, and how many they count."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calc_folders import USE, Capture
from command_line import call
from image_files import coloured, save_all, short_of_data, zipped
from PIL import Image
from tiff_files import Tiff

from fewstep.eval.metrics.statistics_files import load_npz
from fewstep.eval.networks.extractors import PixelExtractor


@pytest.fixture
def real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """30 grey images of 4 x 4, one file that is short of data, and two of other kinds."""
    monkeypatch.chdir(tmp_path)
    made = coloured(30, 4)[..., :1]
    folder = save_all(tmp_path / "real", made)
    (folder / "short.png").write_bytes(short_of_data(Image.fromarray(made[0, ..., 0])))
    (folder / "labels.json").write_text("{}")
    (folder / "readme").write_text("not an image")
    return zipped(folder, tmp_path / "real.zip").with_suffix("")


def without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: Any) -> None:
        raise AssertionError("a network ran")

    monkeypatch.setattr(PixelExtractor, "__call__", never)


@pytest.mark.parametrize("name", ["real", "real.zip"])
def test_what_is_skipped_and_left_out_is_named_and_not_counted(
    real: Path, capsys: Capture, name: str
) -> None:
    capsys.readouterr()
    assert call("ref", name, "-o", "ref.npz", *USE, "--on-error", "skip") == 0
    said = capsys.readouterr().err
    assert "1 files left out, the first short.png: truncated" in said
    assert f"warning: {name}: left out as no images by their names: 1 .json, 1 without" in said
    assert load_npz(Path("ref.npz")).n == 30
    assert call("calc", name, "--ref", name, *USE, "--on-error", "skip") == 0
    shown = capsys.readouterr()
    assert "FD-pixels-1x4x4-30" in shown.out
    assert shown.err.count("1 files left out, the first short.png") == 2  # samples and reference


@pytest.mark.parametrize("name", ["real", "real.zip"])
def test_no_network_runs_before_a_file_that_cannot_be_used(
    real: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    without_a_network(monkeypatch)
    capsys.readouterr()
    assert call("ref", name, "-o", "ref.npz", *USE) == 2
    assert "short.png: truncated" in capsys.readouterr().err
    assert not Path("ref.npz").exists()


def test_a_damaged_archive_is_named_before_a_network_runs(
    real: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(real.with_name("a.npz"), coloured(30, 4)[..., :1])
    content = bytearray(Path("a.npz").read_bytes())
    content[300] ^= 1
    Path("a.npz").write_bytes(content)
    without_a_network(monkeypatch)
    capsys.readouterr()
    assert call("ref", "a.npz", "-o", "ref.npz", *USE, "--on-error", "skip") == 2
    assert "a.npz is damaged" in capsys.readouterr().err


def test_one_image_is_no_set(real: Path, capsys: Capture) -> None:
    np.save("one.npy", np.zeros((4, 4, 3), np.uint8))
    capsys.readouterr()
    assert call("ref", "one.npy", "-o", "ref.npz", *USE) == 2
    assert "save x[None] for one" in capsys.readouterr().err


def test_12_bits_score_as_their_8_bits_do(real: Path, capsys: Capture) -> None:
    """The same hash, so that nothing of the depth is left."""
    values = np.random.default_rng(0).integers(0, 4096, (5, 4, 4, 1)).astype(np.uint16)
    for i, image in enumerate(values):
        Tiff(12).write(Path("deep") / f"{i}.tif", image)
    save_all(Path("eight"), np.floor(values / 4095 * 255 + 0.5).astype(np.uint8))
    for name in ("deep", "eight"):
        assert call("ref", name, "-o", f"{name}.npz", *USE) == 0
    assert load_npz(Path("deep.npz")).dataset_hash == load_npz(Path("eight.npz")).dataset_hash
