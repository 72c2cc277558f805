"""Image files that cannot be used are named before anything is computed."""

import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from image_files import coloured, cut, pixels, save, save_all, zipped
from PIL import Image

from fewstep.eval.images import files as files_module
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


def test_nothing_is_decoded_while_png_files_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_all(tmp_path, coloured(3))

    def never(*args: Any) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(files_module, "pixels", never)
    monkeypatch.setattr(Image.Image, "load", never)
    open_images(tmp_path)


def test_lossy_files_are_pointed_out(tmp_path: Path) -> None:
    save_all(tmp_path, coloured(2))
    save(tmp_path / "x.jpg", coloured(1)[0])
    with pytest.warns(UserWarning, match="1 of 3 images of .* are JPEG or WebP"):
        open_images(tmp_path)
