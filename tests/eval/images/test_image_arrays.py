"""Arrays are images or are refused, and are read in parts."""

import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_files import coloured, cut, pixels

from fewstep.eval.images.sources import open_images

# What is written, and what the message says.
ARRAYS: dict[str, tuple[Any, str]] = {
    "float": (np.zeros((3, 8, 8, 3), np.float32), r"got float32 \(3, 8, 8, 3\).*round to 8 bits"),
    "features": (np.zeros((5, 64), np.float32), "look like features"),
    "transposed": (np.zeros((5, 3, 8, 8), np.uint8), r"transpose it by \(0, 2, 3, 1\)"),
    "fortran": (np.asfortranarray(np.zeros((5, 8, 8, 3), np.uint8)), "ascontiguousarray"),
    "none": (np.zeros((0, 8, 8, 3), np.uint8), "no images in it"),
    "flat": (np.zeros((5, 192), np.uint8), r"got uint8 \(5, 192\)"),
    "one image": (np.zeros((28, 28, 3), np.uint8), r"one image \(h, w, c\).*x\[None\]"),
    "one grey image": (np.zeros((28, 28, 1), np.uint8), r"one image \(h, w, c\).*x\[None\]"),
    "alpha": (np.zeros((5, 8, 8, 4), np.uint8), "paste images with alpha"),
    "alpha first": (np.zeros((5, 4, 8, 8), np.uint8), "paste images with alpha"),
    "deep": (np.zeros((5, 8, 8, 3), np.uint16), r"numpy.rint\(x / 257\)"),
    "switches": (np.zeros((5, 8, 8), bool), r"x.astype\(numpy.uint8\) \* 255"),
    "objects": (np.array([{"a": 1}], object), "pickled objects.*numpy.stack"),
}


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_that_are_not_images(tmp_path: Path, name: str, suffix: str) -> None:
    array, reason = ARRAYS[name]
    path = tmp_path / f"x{suffix}"
    if suffix == ".npy":
        np.save(path, array, allow_pickle=True)
    else:
        np.savez(path, array)
    with pytest.raises(ValueError, match=reason) as caught:
        open_images(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_truncated_arrays_are_named(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", coloured(50))
    np.savez(tmp_path / "a.npz", coloured(50))
    for name in ("a.npy", "a.npz"):
        cut(tmp_path / name)
        with pytest.raises(ValueError, match=rf"{name} is .*truncated"):
            open_images(tmp_path / name)


@pytest.mark.parametrize("num", [None, 2])
@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_damaged_arrays_are_named_before_they_are_used(
    tmp_path: Path, write: Any, num: int | None
) -> None:
    path = tmp_path / "a.npz"
    write(path, coloured(50))
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"a.npz is damaged or truncated"):
        open_images(path, num=num)


def saved(path: Path, array: Any) -> Path:
    np.save(path, array)
    return path


def test_remedies_are_right(tmp_path: Path) -> None:
    """What the messages say to save comes back as the images that were meant."""
    path = tmp_path / "x.npy"
    made = coloured(1)[0]
    one = torch.from_numpy(made).movedim(-1, 0)
    assert torch.equal(pixels(open_images(saved(path, made[None])))[0], one)
    grey = open_images(saved(path, made[..., None]))
    assert (grey.n, grey.shape) == (8, (1, 8, 3))
    assert torch.equal(pixels(grey)[:, 0], torch.from_numpy(made))
    first = made.transpose(2, 0, 1)  # (c, h, w)
    assert torch.equal(pixels(open_images(saved(path, first.transpose(1, 2, 0)[None])))[0], one)
    flat = open_images(saved(path, made[..., 0][None, ..., None]))
    assert torch.equal(pixels(flat)[0, 0], torch.from_numpy(made[..., 0]))
    # Rounded values of every range: a quarter of a level off, so that rounding has to mend it.
    off = made[None].astype(np.float64) + 0.25
    for y in (127.5 * (off / 127.5 - 1) + 128, 255 * (off / 255) + 0.5, off + 0.5):
        eight = np.clip(y, 0, 255).astype(np.uint8)
        assert torch.equal(pixels(open_images(saved(path, eight)))[0], one)
    deep = made[None].astype(np.uint16) * 257
    eight = np.rint(deep / 257).astype(np.uint8)
    assert torch.equal(pixels(open_images(saved(path, eight)))[0], one)


@pytest.mark.parametrize(
    ("shape", "images", "said"),
    [
        ((3, 28, 28), (3, (1, 28, 28)), r"three grey images; if it is one image \(c, h, w\)"),
        ((28, 28, 4), (28, (1, 28, 4)), "28 grey images 4 wide"),
        ((5, 3, 8, 3), (5, (3, 3, 8)), r"3 high of 3 channels.*x.transpose\(0, 2, 3, 1\)"),
        ((5, 1, 8, 3), (5, (3, 1, 8)), "1 high of 3 channels"),
        ((5, 3, 3, 3), (5, (3, 3, 3)), "3 high of 3 channels"),
    ],
)
def test_shapes_with_two_meanings_are_pointed_out(
    tmp_path: Path, shape: tuple[int, ...], images: tuple[int, tuple[int, ...]], said: str
) -> None:
    for name, save in (("x.npy", np.save), ("x.npz", np.savez)):
        save(tmp_path / name, np.zeros(shape, np.uint8))
        with pytest.warns(UserWarning, match=said):
            found = open_images(tmp_path / name)
        assert (found.n, found.shape) == images


@pytest.mark.parametrize("shape", [(1, 8, 8), (5, 8, 8), (4, 4, 4), (5, 8, 8, 1), (5, 4, 8, 3)])
def test_usual_shapes_are_taken_without_a_word(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "x.npy", np.zeros(shape, np.uint8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_images(tmp_path / "x.npy").n == shape[0]


def test_other_images_of_an_archive_are_named(tmp_path: Path) -> None:
    path, made = tmp_path / "x.npz", coloured(5)
    np.savez(path, made, np.zeros(5, np.int64))  # labels, as ADM has them
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_images(path).n == 5
    np.savez(path, made, made[:3], images=made[:2])
    with pytest.warns(UserWarning, match=r"left out arr_1 uint8 \(3, 8, 8, 3\), images uint8 \(2,"):
        assert open_images(path).n == 5
    np.savez(path, train=made, test=made)
    with pytest.raises(ValueError, match=r"has no images: .*only train, test"):
        open_images(path)


def test_more_after_the_array_is_named(tmp_path: Path) -> None:
    """numpy.save twice into one open file: numpy.load reads the first alone."""
    with (tmp_path / "x.npy").open("wb") as file:
        np.save(file, coloured(3))
        np.save(file, coloured(2))
    with pytest.raises(ValueError, match=r"x.npy has \d+ bytes after its first array"):
        open_images(tmp_path / "x.npy")


def test_memory_does_not_grow_with_the_array(tmp_path: Path) -> None:
    made = np.zeros((1500, 128, 128, 3), np.uint8)  # 70 MiB
    np.save(tmp_path / "a.npy", made)
    np.savez(tmp_path / "a.npz", made)
    for name in ("a.npy", "a.npz"):
        tracemalloc.start()
        assert sum(len(part) for part in open_images(tmp_path / name).batches(8)) == 1500
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 25 * 2**20  # two parts of 8 MiB each, and what holds them
