"""What ``fewstep gen`` and ``calc`` end with: a picture, a page, and the command to type next."""

import shlex
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from calc_folders import Capture, make_folder
from command_line import call
from generation_runs import small_run
from PIL import Image

from fewstep.eval.cli.next_steps import after_gen
from fewstep.eval.generate.generation import generate_images
from fewstep.eval.generate.verification import verify
from fewstep.eval.images import contact_sheet
from fewstep.eval.images.contact_sheet import (
    FirstSamples,
    drawn,
    first_samples,
    write_contact_sheet,
)
from fewstep.eval.images.names import CONTACT_SHEET
from fewstep.eval.images.sources import open_images
from fewstep.eval.networks.extractors import PixelExtractor

BLOBS = f"{Path(__file__).parents[2] / 'support/generation_runs.py'}:blobs"
folder = pytest.fixture(make_folder)


def gen(out: str, *more: str) -> int:
    return call("gen", "-m", BLOBS, "-s", "ddim", "--nfe", "2", "--seeds", "0-9", "--unit", "4",
                "-o", out, "--device", "cpu", *more)  # fmt: skip


def test_gen_ends_with_a_sheet_and_the_next_command(folder: Path, capsys: Capture) -> None:
    for _ in range(2):  # a run that finds all of it there draws it again
        capsys.readouterr()
        assert gen("my run") == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[-3] == f"first samples: my run/{CONTACT_SHEET}"
        sheet = Path("my run") / CONTACT_SHEET
        with Image.open(sheet) as image:
            assert image.size[0] >= 480
        sheet.unlink()
    assert lines[-1].startswith("next: fewstep calc 'my run' --ref REAL.npz -o 'my run-report'")


def test_the_next_command_runs_as_it_is_printed(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate_images(
        small_run(keep="features", extractor=PixelExtractor((1, 4, 4))), folder / "kept"
    )
    line = after_gen(Path("kept")).removeprefix("next: ").partition(" (with")[0]
    assert call(*shlex.split(line.replace("REAL.npz", "ref.npz"))[1:]) == 0
    out = capsys.readouterr().out
    assert "scores: kept/result.json" in out
    assert "report: kept-report/report.html" in out
    assert out.splitlines()[-1] == ("next: open kept-report/report.html; fewstep verify kept")
    assert Path("kept-report/report.html").is_file()


def test_tiles_are_the_images_over_their_names() -> None:
    pixels = torch.arange(3, dtype=torch.uint8)[:, None, None, None].expand(3, 1, 42, 42) * 100
    found = FirstSamples(pixels, ("one", "two", "three"))
    with Image.open(BytesIO(drawn(found, "title"))) as image:
        sheet = np.asarray(image)
    for i in range(3):  # twice as large, a line below the title
        left = contact_sheet.GAP + i * (84 + contact_sheet.GAP)
        tile = sheet[contact_sheet.HEAD : contact_sheet.HEAD + 84, left : left + 84]
        assert (tile == 100 * i).all()
        name = sheet[contact_sheet.HEAD + 85 :, left : left + 60]
        assert (name < 200).any()


def test_samples_come_with_the_labels_of_their_units(folder: Path) -> None:
    found = first_samples("a", 6)
    assert found.images.shape == (6, 1, 4, 4)
    assert set(found.names) == {"class 0", "class 1"}
    assert len(first_samples("a", 1000).images) == 22
    next(Path("a").glob("unit-000001*")).unlink()
    assert len(first_samples("a", 4).images) == 4
    with pytest.raises(ValueError, match="lacks its first samples"):
        first_samples("a", 8)


def test_nothing_is_drawn_of_what_are_no_images(folder: Path, capsys: Capture) -> None:
    generate_images(
        small_run(keep="features", extractor=PixelExtractor((1, 4, 4))), folder / "kept"
    )
    assert write_contact_sheet(Path("kept")) is None
    assert call("gen", "-m", "mix8", "-s", "ddim", "--nfe", "2", "--seeds", "0-9", "-o", "p") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "next: fewstep verify p"
    assert not (Path("p") / CONTACT_SHEET).exists()


def test_a_sheet_is_there_whole_or_not_at_all(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gen("run") == 0
    before = (Path("run") / CONTACT_SHEET).read_bytes()

    def fail(*args: object) -> bytes:
        raise OSError("no ink")

    monkeypatch.setattr(contact_sheet, "drawn", fail)
    assert gen("run") == 2
    assert (Path("run") / CONTACT_SHEET).read_bytes() == before


def test_a_sheet_is_no_image_of_its_folder(folder: Path) -> None:
    assert gen("run") == 0
    before = verify("run").hash
    assert open_images("run").n == 10
    assert call("export", "run", "out") == 0
    assert len(list(Path("out").iterdir())) == 10
    assert verify("run").hash == before
    # Nor of a folder above it, or one that has lost its settings.
    Path("above/below").mkdir(parents=True)
    for name in ("a.png", f"below/{CONTACT_SHEET}"):
        Image.new("L", (4, 4)).save(Path("above") / name)
    with pytest.warns(
        UserWarning, match=f"left out as no images by their names: 1 {CONTACT_SHEET}"
    ):
        assert open_images("above").n == 1
