"""Image files that cannot be used are named before anything is computed."""

import struct
import zipfile
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_files import coloured, cut, pixels, save, save_all, short_of_data, zipped
from PIL import Image

from fewstep.eval.images.sources import open_images


def deep_colours(path: Path) -> None:
    """A PNG of 16 bits a channel: Pillow writes none, so the header of an 8-bit one is changed."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        crc = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + bytes(8 * 3 * 2) for _ in range(8)))
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", rows), chunk(b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def unusable(kind: str, path: Path) -> None:
    image = Image.fromarray(coloured(1, 16)[0])
    if kind == "truncated":
        image.save(path)
        cut(path)
    elif kind == "truncated bmp":
        image.save(path, "bmp")
        cut(path)
    elif kind == "checksum":
        image.save(path)
        damaged = bytearray(path.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        path.write_bytes(damaged)
    elif kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("not an image")
    elif kind == "transparent":
        image.putalpha(128)
        image.save(path)
    elif kind == "16-bit colours":
        deep_colours(path)
    elif kind == "two pictures":
        image.save(path, "tiff", save_all=True, append_images=[image])
    elif kind == "cmyk":
        image.convert("CMYK").save(path, "tiff")
    else:
        path.symlink_to(path.with_name("nowhere"))


REASONS = {
    "truncated": "truncated", "truncated bmp": "truncated", "checksum": "truncated",
    "empty": "not an image", "text": "not an image", "transparent": "without alpha",
    "16-bit colours": "8 bits a channel", "two pictures": "more than one picture",
    "cmyk": "mode CMYK", "dangling link": "cannot be read",
}  # fmt: skip


@pytest.mark.parametrize("kind", REASONS)
def test_unusable_files_are_named_or_skipped(tmp_path: Path, kind: str) -> None:
    made = coloured(3, 16)
    save_all(tmp_path, made)
    unusable(kind, tmp_path / "0001a.png")
    with pytest.raises(ValueError, match=f"0001a.png: .*{REASONS[kind]}.*--on-error skip"):
        open_images(tmp_path)
    images = open_images(tmp_path, on_error="skip")
    assert images.n == 3
    (skipped,) = images.skipped
    assert skipped.startswith("0001a.png: ")
    assert torch.equal(pixels(images), torch.from_numpy(made).movedim(-1, 1))
    assert open_images(tmp_path, num=3, on_error="skip").n == 3
    assert open_images(tmp_path, num=2).n == 2  # it comes later


def test_a_folder_of_nothing_but_damage_has_no_images(tmp_path: Path) -> None:
    cut(save(tmp_path / "a.png", coloured(1)[0]))
    cut(save(tmp_path / "b.png", coloured(1)[0]))
    with pytest.raises(ValueError, match=r"a\.png: .*1 more files.*no file is left"):
        open_images(tmp_path, on_error="skip")


def test_sizes_differ(tmp_path: Path) -> None:
    save_all(tmp_path, coloured(3, 8))
    save(tmp_path / "big" / "x.png", coloured(1, 9)[0])
    for on_error in ("raise", "skip"):  # no file of them is at fault
        with pytest.raises(ValueError, match=r"0000.png is 8 x 8.*big/x.png is 9 x 9|"
                           r"big/x.png is 9 x 9.*0000.png is 8 x 8"):  # fmt: skip
            open_images(tmp_path, on_error=on_error)


def test_damage_inside_a_zip_file_is_named(tmp_path: Path) -> None:
    folder = save_all(tmp_path / "folder", coloured(3))
    path = zipped(folder, tmp_path / "all.zip")
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[whole.index(b"\x89PNG", 100) + 60] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"all.zip/000\d.png: it cannot be read"):
        open_images(path)
    path.write_bytes(whole[:-30])
    with pytest.raises(ValueError, match=r"all.zip is damaged or truncated"):
        open_images(path)


def test_a_file_that_changes_after_the_look_is_named(tmp_path: Path) -> None:
    save_all(tmp_path, coloured(3))
    images = open_images(tmp_path)
    (tmp_path / "0001.png").write_text("no more")
    with pytest.raises(ValueError, match=r"0001.png: .*though it was not before"):
        pixels(images)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    content = BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def damaged(generator: np.random.Generator, whole: bytes) -> bytes:
    """Cut somewhere, or with a few other bytes."""
    if generator.random() < 0.5:
        return whole[: int(generator.integers(len(whole)))]
    content = bytearray(whole)
    for place in generator.integers(len(whole), size=3):
        content[place] ^= int(generator.integers(1, 256))
    return bytes(content)


@pytest.mark.filterwarnings("ignore")  # of Pillow about damage, and of lossy files
@pytest.mark.parametrize("kept", ["folder", "zip"])
def test_what_passes_the_look_can_be_read(tmp_path: Path, kept: str) -> None:
    """So that N is known before a network runs, and no run ends in its middle."""
    generator = np.random.default_rng(0)
    image = Image.fromarray(coloured(1, 16)[0])
    kinds = {
        "png": saved(image, "png"), "jpg": saved(image, "jpeg"), "gif": saved(image, "gif"),
        "tif": saved(image, "tiff", compression="tiff_deflate"), "webp": saved(image, "webp"),
        "bmp": saved(image, "bmp"), "ppm": saved(image, "ppm"), "tga": saved(image, "tga"),
    }  # fmt: skip
    folder = tmp_path / "folder"
    save_all(folder, coloured(3, 16))
    (folder / "short.png").write_bytes(short_of_data(image))
    for kind, whole in kinds.items():
        for i in range(12):
            (folder / f"{i}.{kind}").write_bytes(damaged(generator, whole))
    # Damage to the size of an image is no damage that a decoder sees.
    for file in folder.iterdir():
        try:
            with Image.open(file) as found:
                other = found.size != (16, 16)
        except Exception:
            other = False
        if other:
            file.unlink()
    source = folder if kept == "folder" else zipped(folder, tmp_path / "all.zip")
    images = open_images(source, on_error="skip")
    assert any(line.startswith("short.png: truncated") for line in images.skipped)
    assert images.n + len(images.skipped) == len(list(folder.iterdir()))
    assert 3 <= images.n < len(list(folder.iterdir())) / 2
    assert len(pixels(images)) == images.n


@pytest.mark.parametrize("where", ["checksum", "length", "compressed"])
def test_members_of_a_zip_file_that_cannot_be_read_are_skipped(tmp_path: Path, where: str) -> None:
    folder = save_all(tmp_path / "folder", coloured(3))
    path = tmp_path / "all.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")  # of the first file, in the directory
    if where == "checksum":
        content[entry + 16] ^= 1
    elif where == "length":
        content[entry + 20 : entry + 24] = struct.pack("<I", 100)  # its stream ends early
    else:
        content[60] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"all.zip/0000.png: it cannot be read"):
        open_images(path)
    images = open_images(path, on_error="skip")
    assert images.n == len(pixels(images)) == 2
    assert images.skipped[0].startswith("0000.png: ")


def test_lossy_files_are_pointed_out(tmp_path: Path) -> None:
    save_all(tmp_path, coloured(2))
    save(tmp_path / "x.jpg", coloured(1)[0])
    with pytest.warns(UserWarning, match="1 of 3 images of .* are JPEG or WebP"):
        open_images(tmp_path)
