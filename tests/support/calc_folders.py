"""Generated samples and a reference, for tests of the commands about them."""

from pathlib import Path

import pytest
from command_line import call
from generation_runs import SHAPE, small_run
from image_files import coloured, save_all

from fewstep.eval.generate.generation import generate_images
from fewstep.eval.networks.extractors import PixelExtractor

USE = ("--extractor", "pixels:1x4x4")
Capture = pytest.CaptureFixture[str]


def make_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three sets of 22 samples in ``a``, ``b`` (of other seeds) and ``c`` (of another sampler)."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    extractor = PixelExtractor(SHAPE)
    generate_images(small_run(extractor=extractor), tmp_path / "a")
    generate_images(small_run(seeds=range(500, 522)), tmp_path / "b")
    generate_images(small_run(sampler="ddim", guidance="none"), tmp_path / "c")
    save_all(tmp_path / "real", coloured(30, 4)[..., :1])
    assert call("ref", "real", "-o", "ref.npz", *USE) == 0
    return tmp_path
