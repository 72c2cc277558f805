"""What a folder or zip file holds is taken, or named with its number."""

import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from image_files import coloured, pixels, save, save_all, zipped

from fewstep.eval.images.names import image_names
from fewstep.eval.images.sources import open_images


def fill(folder: Path) -> Path:
    """Two images, in upper and lower case, and much else."""
    made = coloured(2)
    save(folder / "A.PNG", made[0])
    save(folder / "class" / "b.Jfif.png", made[1])
    for name in (
        "labels.txt", "notes.TXT", "dataset.json", "inner.zip", "more.tar.gz", "noise.npy",
        "photo.heic", "icon.ico", "data.h5", "page.pdf", "star.fits", "0001",
        ".hidden.png", ".cache/c.png", ".gitignore",
        ".DS_Store", "._A.PNG", "Thumbs.db", "__MACOSX/._b.png", "__MACOSX/x.png",
    ):  # fmt: skip
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"?")
    return folder


LEFT_OUT = (
    "2 .txt, 2 hidden .png, 1 .fits, 1 .gz, 1 .h5, 1 .heic, 1 .ico, 1 .json, 1 .npy, 1 .pdf, "
    "1 .zip, 1 hidden without a suffix, 1 without a suffix"
)


def test_all_that_is_left_out_is_named(tmp_path: Path) -> None:
    folder = fill(tmp_path / "folder")
    for source in (folder, zipped(folder, tmp_path / "all.zip")):
        assert image_names(source) == (["A.PNG", "class/b.Jfif.png"], LEFT_OUT)
        with pytest.warns(UserWarning, match=rf"left out .*: {LEFT_OUT}$"):
            images = open_images(source)
        assert images.n == 2
        assert torch.equal(pixels(images), torch.from_numpy(coloured(2)).movedim(-1, 1))


def test_nothing_is_said_where_nothing_is_left_out(tmp_path: Path) -> None:
    folder = save_all(tmp_path / "folder", coloured(2))
    (folder / ".DS_Store").touch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_images(folder)
        open_images(zipped(folder, tmp_path / "all.zip"))


def test_a_folder_of_other_files_says_what_they_are(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.npy").touch()
    (tmp_path / "a.png.zip").touch()
    with pytest.raises(ValueError, match=r"no images .*only 3 .npy, 1 .zip; .*name an archive"):
        open_images(tmp_path)


def test_a_name_that_a_zip_file_has_twice_is_one_file(tmp_path: Path) -> None:
    """As unpacking leaves it: the later one, also if it is spelled otherwise."""
    made = coloured(4)
    files = [save(tmp_path / f"{i}.png", image).read_bytes() for i, image in enumerate(made)]
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("a.png", files[0])
        archive.writestr("b.png", files[1])
        archive.writestr("./a.png", files[2])
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("b.png", files[3])
    with pytest.warns(UserWarning, match="2 of a name that a later one has again"):
        images = open_images(tmp_path / "all.zip")
    assert torch.equal(pixels(images), torch.from_numpy(made[2:]).movedim(-1, 1))
