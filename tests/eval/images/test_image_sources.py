"""Images are the same wherever they are kept, and what is no image is named before use."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from generation_runs import SHAPE, small_run
from image_files import coloured, pixels, save, save_all, zipped
from PIL import Image

from fewstep.eval.common.image_sets import ImageSet, SetHash
from fewstep.eval.generate.collected import export_npz, export_png
from fewstep.eval.generate.generation import generate_images
from fewstep.eval.images.sources import open_images
from fewstep.eval.networks.extractors import PixelExtractor

N = 13


def content(images: ImageSet, batch: int = 5) -> str:
    total = SetHash(images.shape)
    for part in images.batches(batch):
        total.add(part)
    return total.hexdigest()


@pytest.mark.parametrize("channels", [1, 3])
def test_one_set_in_every_kind_of_file_is_one_set(tmp_path: Path, channels: int) -> None:
    made = coloured(N)[..., :channels]
    folder = save_all(tmp_path / "folder", made)
    np.savez(tmp_path / "adm.npz", made)
    np.savez_compressed(tmp_path / "named.npz", images=made)
    np.save(tmp_path / "array.npy", made)
    sources = [folder, zipped(folder, tmp_path / "all.ZIP"), *map(tmp_path.joinpath, (
        "adm.npz", "named.npz", "array.npy"))]  # fmt: skip
    sets = [open_images(source) for source in sources]
    wanted = torch.from_numpy(made).movedim(-1, 1)
    for images in sets:
        assert (images.n, images.shape) == (N, (channels, 8, 8))
        assert torch.equal(pixels(images), wanted)
        assert [len(part) for part in images.batches(5)] == [5, 5, 3]
    assert len({content(images, batch) for images in sets for batch in (1, 4, 100)}) == 1
    assert content(sets[0]) != content(open_images(folder, num=N - 1))


def test_names_in_a_zip_file_may_start_at_the_folder(tmp_path: Path) -> None:
    """As ./a.png: the order is that of the folder all the same."""
    folder = save_all(tmp_path / "images", coloured(3))
    path = tmp_path / "all.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for index, file in enumerate(sorted(folder.iterdir())):
            archive.writestr(f"./{file.name}" if index else file.name, file.read_bytes())
    assert torch.equal(pixels(open_images(path)), pixels(open_images(folder)))


def test_grey_arrays_need_no_axis_of_channels(tmp_path: Path) -> None:
    made = coloured(4)[..., 0]  # three might be one image, channels first
    np.save(tmp_path / "grey.npy", made)
    assert torch.equal(pixels(open_images(tmp_path / "grey.npy"))[:, 0], torch.from_numpy(made))


@pytest.mark.parametrize("source", ["folder", "array.npy", "adm.npz"])
def test_the_first_images_alone(tmp_path: Path, source: str) -> None:
    made = coloured(N)
    save_all(tmp_path / "folder", made)
    np.save(tmp_path / "array.npy", made)
    np.savez(tmp_path / "adm.npz", made)
    images = open_images(tmp_path / source, num=4)
    assert images.n == 4
    assert torch.equal(pixels(images), torch.from_numpy(made[:4]).movedim(-1, 1))
    for num in (0, N + 1):
        with pytest.raises(ValueError, match=f"num must be in 1 .. {N}.*got {num}"):
            open_images(tmp_path / source, num=num)


def test_class_folders_links_and_odd_names(tmp_path: Path) -> None:
    made = coloured(5)
    folder, elsewhere = tmp_path / "train", tmp_path / "elsewhere"
    save(folder / "cat" / "b.PNG", made[1])
    save(folder / "cat" / "a.png", made[0])
    save(folder / "dog" / "deep" / "c.Bmp", made[2])
    save(elsewhere / "e.png", made[3])
    save(folder / "z.png", made[4])
    (folder / "linked").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(folder)  # would go round for ever
    save(folder / ".hidden" / "x.png", made[0])
    shutil.copy(folder / "z.png", folder / "._z.png")
    (folder / "labels.txt").write_text("not an image")
    with pytest.warns(UserWarning, match="left out .*: 1 .txt, 1 hidden .png$"):
        images = open_images(folder)
    assert torch.equal(pixels(images), torch.from_numpy(made).movedim(-1, 1))


def test_grey_of_16_bits_is_scaled(tmp_path: Path) -> None:
    """Pillow's own conversion makes nearly all of it white."""
    deep = np.random.default_rng(0).integers(0, 2**16, (16, 16)).astype(np.uint16)
    deep[0, :4] = (0, 128, 129, 65535)
    save(tmp_path / "deep" / "a.png", deep)
    save(tmp_path / "deep" / "b.tif", deep)
    found = pixels(open_images(tmp_path / "deep"))
    wanted = torch.from_numpy(np.rint(deep / 257).astype(np.uint8))
    assert torch.equal(found[0, 0], wanted)
    assert torch.equal(found[1, 0], wanted)
    assert wanted[0, :4].tolist() == [0, 0, 1, 255]
    save(tmp_path / "deep" / "c.png", coloured(1, 16)[0])
    among_coloured = pixels(open_images(tmp_path / "deep"))
    assert torch.equal(among_coloured[0], wanted.expand(3, -1, -1))


def test_palettes_and_opaque_alpha_are_what_they_show(tmp_path: Path) -> None:
    made = coloured(1)[0] // 64 * 64  # 64 colours fit into a palette
    image = Image.fromarray(made)
    image.convert("RGBA").save(tmp_path / "0.png")
    image.quantize(64).save(tmp_path / "1.png")
    image.convert("L").convert("LA").save(tmp_path / "2.png")
    image.save(tmp_path / "3.png")
    found = pixels(open_images(tmp_path))
    wanted = torch.from_numpy(made).movedim(-1, 0)
    assert all(torch.equal(found[i], wanted) for i in (0, 1, 3))
    assert torch.equal(found[2, 0], torch.from_numpy(np.array(image.convert("L"))))


@pytest.mark.parametrize("seed", [100, 999_990])
def test_generated_folders_are_sets_as_their_exports_are(tmp_path: Path, seed: int) -> None:
    """In the order of the seeds, also where their numbers of digits differ."""
    run = tmp_path / "run"
    generate_images(small_run(seeds=range(seed, seed + 22)), run)
    export_png(run, tmp_path / "png")
    export_npz(run, tmp_path / "all.npz")
    sets = [open_images(tmp_path / name) for name in ("run", "png", "all.npz")]
    assert {images.n for images in sets} == {22}
    assert {images.shape for images in sets} == {SHAPE}
    assert len({content(images) for images in sets}) == 1
    first = open_images(run, num=7)
    assert torch.equal(pixels(first), pixels(sets[0])[:7])


def test_generated_folders_without_images(tmp_path: Path) -> None:
    generate_images(small_run(keep="features", extractor=PixelExtractor(SHAPE)), tmp_path)
    with pytest.raises(ValueError, match="keeps features and no images"):
        open_images(tmp_path)


def test_other_names(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file .*nowhere; images are a folder"):
        open_images(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"no images in .*; files of images end in .png"):
        open_images(tmp_path)
    (tmp_path / "a.pkl").touch()
    with pytest.raises(ValueError, match="name it by --ref"):
        open_images(tmp_path / "a.pkl")
    (tmp_path / "a.txt").touch()
    with pytest.raises(ValueError, match=r"a.txt is no set of images"):
        open_images(tmp_path / "a.txt")
    np.savez(tmp_path / "stats.npz", mu=np.zeros(2), sigma=np.eye(2))
    with pytest.raises(ValueError, match="statistics, not images"):
        open_images(tmp_path / "stats.npz")
    (tmp_path / "renamed.npy").write_bytes(b"\x80\x04.")
    with pytest.raises(ValueError, match=r"renamed.npy is not a numpy array .*pickle"):
        open_images(tmp_path / "renamed.npy")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match="has no images: they are called arr_0 or images"):
        open_images(tmp_path / "other.npz")
