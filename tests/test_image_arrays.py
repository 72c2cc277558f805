"""Arrays are images or are refused, and are read in parts."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
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
    "objects": (np.array([{"a": 1}], object), "pickled objects"),
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


def test_damaged_arrays_are_named_when_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, coloured(50))
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"a.npz is damaged or truncated"):
        pixels(open_images(path))


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
