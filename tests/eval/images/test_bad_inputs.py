"""The inputs that other harnesses crash on: each works, or is named in one line, and no file is
written or lost."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import call, tree
from generation_runs import SHAPE, small_run
from image_files import coloured, cut, save, save_all

from fewstep.eval.generate.generation import generate_images
from fewstep.eval.metrics.statistics_files import load_npz
from fewstep.eval.networks.extractors import PixelExtractor

USE = ("--extractor", "pixels:3x8x8")
GREY = ("--extractor", "pixels:1x8x8")
Arguments = tuple[str | Path, ...]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with good images, their statistics, and samples; the work is done beside it."""
    monkeypatch.setenv("COLUMNS", "400")
    folder = tmp_path / "data"
    save_all(folder / "good", coloured(20))
    assert call("ref", folder / "good", "-o", folder / "ref.npz", *USE) == 0
    generate_images(small_run(), folder / "run")
    return folder


def mixed(folder: Path) -> Arguments:
    save(folder / "good" / "z.png", coloured(1, 9)[0])
    return ("ref", folder / "good", "-o", folder / "ref.npz")


def mixed_samples(folder: Path) -> Arguments:
    save(folder / "mixed" / "a.png", coloured(1, 9)[0])
    save(folder / "mixed" / "b.png", coloured(1, 8)[0])
    return ("calc", folder / "mixed", "--ref", folder / "ref.npz")


def truncated(folder: Path) -> Arguments:
    cut(folder / "good" / "0007.png")
    return ("ref", folder / "good", "-o", folder / "ref.npz", *USE)


def truncated_zip(folder: Path) -> Arguments:
    cut(Path(shutil.make_archive(str(folder / "all"), "zip", folder / "good")))
    return ("calc", folder / "all.zip", "--ref", folder / "ref.npz")


def truncated_array(folder: Path) -> Arguments:
    np.save(folder / "all.npy", coloured(20))
    cut(folder / "all.npy")
    return ("calc", folder / "all.npy", "--ref", folder / "ref.npz")


def truncated_statistics(folder: Path) -> Arguments:
    shutil.copy(folder / "ref.npz", folder / "cut.npz")
    cut(folder / "cut.npz")
    return ("calc", folder / "good", "--ref", folder / "cut.npz")


def batch_0(folder: Path) -> Arguments:
    return ("ref", folder / "good", "-o", folder / "ref.npz", "--batch", "0")


def batch_0_of_samples(folder: Path) -> Arguments:
    return ("calc", folder / "good", "--ref", folder / "ref.npz", "--batch", "0")


def empty(folder: Path) -> Arguments:
    (folder / "empty" / "class").mkdir(parents=True)
    (folder / "empty" / "notes.txt").write_text("no image")
    return ("calc", folder / "empty", "--ref", folder / "ref.npz")


def empty_reference(folder: Path) -> Arguments:
    (folder / "empty").mkdir()
    return ("ref", folder / "empty", "-o", folder / "ref.npz", *USE)


def one(folder: Path) -> Arguments:
    save(folder / "one" / "a.png", coloured(1)[0])
    return ("ref", folder / "one", "-o", folder / "ref.npz", *USE)


def one_sample(folder: Path) -> Arguments:
    save(folder / "one" / "a.png", coloured(1)[0])
    return ("calc", folder / "one", "--ref", folder / "ref.npz")


def features_for_images(folder: Path) -> Arguments:
    np.save(folder / "features.npy", np.zeros((20, 64), np.float32))
    return ("calc", folder / "features.npy", "--ref", folder / "ref.npz")


def statistics_for_images(folder: Path) -> Arguments:
    return ("calc", folder / "ref.npz", "--ref", folder / "ref.npz")


def no_images_in_npz(folder: Path) -> Arguments:
    np.savez(folder / "other.npz", x=np.zeros(3))
    return ("ref", folder / "other.npz", "-o", folder / "new.npz", *USE)


def pickled_images(folder: Path) -> Arguments:
    np.save(folder / "objects.npy", np.array([coloured(1), None], object), allow_pickle=True)
    return ("calc", folder / "objects.npy", "--ref", folder / "ref.npz")


def pickle_for_images(folder: Path) -> Arguments:
    (folder / "images.pkl").write_bytes(pickle.dumps(coloured(3)))
    return ("calc", folder / "images.pkl", "--ref", folder / "ref.npz")


def code_in_a_pickle(folder: Path) -> Arguments:
    class Runs:
        def __reduce__(self) -> Any:
            return Path.touch, (folder / "made by unpickling",)

    (folder / "evil.pkl").write_bytes(pickle.dumps({"fid": Runs()}))
    return ("calc", folder / "good", "--ref", folder / "evil.pkl", *USE)


def npz_named_npy(folder: Path) -> Arguments:
    shutil.copy(folder / "ref.npz", folder / "ref.npy")
    return ("calc", folder / "good", "--ref", folder / "ref.npy", *USE)


def ref_below_a_file(folder: Path) -> Arguments:
    return ("ref", folder / "good", "-o", folder / "ref.npz" / "ref.npz", *USE)


def calc_below_a_file(folder: Path) -> Arguments:
    return ("calc", folder / "run", "--ref", folder / "run", "-o", folder / "ref.npz",
            "--extractor", "pixels:1x4x4")  # fmt: skip


def convert_below_a_file(folder: Path) -> Arguments:
    return ("convert", folder / "ref.npz", folder / "ref.npz" / "x.pkl")


def export_below_a_file(folder: Path) -> Arguments:
    return ("export", folder / "run", folder / "ref.npz" / "x")


def export_among_others(folder: Path) -> Arguments:
    return ("export", folder / "run", folder / "good")


def ref_of_another_suffix(folder: Path) -> Arguments:
    return ("ref", folder / "good", "-o", folder / "ref.pkl", *USE)


def convert_to_another_suffix(folder: Path) -> Arguments:
    return ("convert", folder / "ref.npz", folder / "ref.json")


# What is called, and what its one line must say.
BAD: dict[Callable[[Path], Arguments], str] = {
    mixed: "z.png is 9 x 9",
    mixed_samples: "a.png is 9 x 9",
    truncated: "0007.png: truncated",
    truncated_zip: "all.zip is damaged or truncated",
    truncated_array: "all.npy is truncated",
    truncated_statistics: "cut.npz is damaged",
    batch_0: "batch must be at least 1 image, got 0",
    batch_0_of_samples: "batch must be at least 1 image, got 0",
    empty: "no images in",
    empty_reference: "no images in",
    one: "one has 1 image; statistics need at least 2",
    one_sample: "fd needs at least 2 samples",
    features_for_images: "these look like features",
    statistics_for_images: "ref.npz holds statistics, not images; name it by --ref",
    no_images_in_npz: "other.npz has no images: they are called arr_0 or images",
    pickled_images: "objects.npy",
    pickle_for_images: "images.pkl is no set of images",
    code_in_a_pickle: "evil.pkl: its pickle asks for",
    npz_named_npy: "ref.npy is not a numpy array",
    ref_below_a_file: "cannot write to",
    calc_below_a_file: "cannot write to",
    convert_below_a_file: "cannot write to",
    export_below_a_file: "cannot write to",
    export_among_others: "good is not empty",
    ref_of_another_suffix: "--out must name an .npz file, got",
    convert_to_another_suffix: "must be an .npz (for most) or .pkl (for edm2), got",
}


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.__name__)
def test_bad_inputs_are_named_and_leave_all_as_it_was(
    data: Path, case: Callable[[Path], Arguments], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = case(data)
    if arguments[0] in ("ref", "calc") and "--extractor" not in arguments:
        arguments = (*arguments, *USE)
    capsys.readouterr()
    before = tree(data)
    assert call(*arguments) == 2
    found = capsys.readouterr()
    (line,) = found.err.splitlines()
    assert line.startswith("error: ")
    assert BAD[case] in line
    assert found.out == ""
    assert tree(data) == before


def test_upper_case_names_and_class_folders_work(data: Path) -> None:
    for i, image in enumerate(coloured(20)):
        save(data / "classes" / f"class{i // 10}" / f"{i:04d}.PNG", image)
    assert call("ref", data / "classes", "-o", data / "again.npz", *USE) == 0
    first, again = (load_npz(data / name) for name in ("ref.npz", "again.npz"))
    assert again.dataset_hash == first.dataset_hash
    assert np.array_equal(again.sigma, first.sigma)


def test_grey_of_16_bits_works(data: Path) -> None:
    """Its statistics are those of 8 bits, and not of an image that is nearly all white."""
    deep = np.random.default_rng(0).integers(0, 2**16, (20, 8, 8)).astype(np.uint16)
    for i, image in enumerate(deep):
        save(data / "deep" / f"{i:04d}.png", image)
    assert call("ref", data / "deep", "-o", data / "deep.npz", *GREY) == 0
    pixels = torch.from_numpy(np.rint(deep / 257).astype(np.uint8))[:, None]
    mean = PixelExtractor((1, 8, 8))(pixels).double().mean(0)
    # Features are rounded to 2^-16.
    np.testing.assert_allclose(load_npz(data / "deep.npz").mu, mean, atol=8e-6)


def test_damaged_files_are_left_out_on_request(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(data / "good" / "zz.png", coloured(1)[0])
    cut(data / "good" / "zz.png")
    out = data / "again.npz"
    assert call("ref", data / "good", "-o", out, *USE, "--on-error", "skip") == 0
    assert "1 files left out, the first zz.png: truncated" in capsys.readouterr().err
    assert load_npz(out).dataset_hash == load_npz(data / "ref.npz").dataset_hash
    assert call("ref", data / "good", "-o", out, *USE, "--on-error", "ignore") == 2


def test_shapes_that_the_extractor_does_not_take(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("calc", data / "run", "--ref", data / "ref.npz", *USE) == 2
    assert str(SHAPE[0]) in capsys.readouterr().err
