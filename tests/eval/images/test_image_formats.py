"""Image files of every format and depth give the pixels that they mean, or are refused."""

import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_files import coloured, cut, pixels, save, save_all
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from fewstep.eval.images.names import NO_PICTURES, suffixes
from fewstep.eval.images.pixels import UnusableError, look
from fewstep.eval.images.pixels import pixels as file_pixels
from fewstep.eval.images.sources import open_images


def png(width: int, bits: int, colour: int, row: bytes, transparent: bytes = b"") -> bytes:
    """One row of pixels, of any depth and type of colour (0 grey, 2 RGB, 4 and 6 with alpha)."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        crc = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, bits, colour, 0, 0, 0))
    header += chunk(b"tRNS", transparent) if transparent else b""
    body = chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + body


def row(content: bytes) -> list[Any]:
    """The pixels of a file of one row, after the look."""
    found = file_pixels(content, look(content).channels)
    values: list[Any] = found[0].squeeze(-1).tolist() if found.shape[2] == 1 else found[0].tolist()
    return values


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    content = BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


@pytest.mark.parametrize("highest", [1, 15, 100, 255, 256, 1023, 4095, 40_000, 65535])
@pytest.mark.parametrize("magic", [b"P2", b"P3", b"P5", b"P6"])
def test_portable_maps_are_scaled_by_their_highest_value(magic: bytes, highest: int) -> None:
    channels = 3 if magic in (b"P3", b"P6") else 1
    values = np.random.default_rng(0).integers(0, highest + 1, (5, 7, channels))
    values[0, 0], values[0, 1] = 0, highest
    if magic in (b"P2", b"P3"):
        body = " ".join(map(str, values.ravel())).encode()
    else:
        body = values.astype(">u2" if highest > 255 else np.uint8).tobytes()
    content = magic + b"\n7 5\n%d\n" % highest + body
    assert look(content).channels == channels
    found = file_pixels(content, channels)
    # Half a level, and Pillow's own rounding to 16 bits on the way.
    assert np.abs(found - 255 * values / highest).max() <= 0.5 + 255 / 65535
    assert (found[0, 0].max(), found[0, 1].min()) == (0, 255)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (2 * (b"P5\n2 2\n255\n" + bytes(4)), "more follows"),
        (2 * (b"P6\n2 2\n65535\n" + bytes(24)), "more follows"),
        (2 * (b"P4\n9 2\n" + bytes(4)), "more follows"),
        (b"P5\n2 1\n1000\n\x03\xe8\x03\xe9", "value 1001 and names 1000"),
        (b"P5\n2 1\n100\n\x64\x65", "value 101 and names 100"),
        (b"P5\n2 2\n1000\n" + bytes(7), "truncated"),
        (b"Pf\n2 2\n-1.0\n" + bytes(16), r"mode F .*round\(\(x - black"),
    ],
)
def test_portable_maps_that_are_not_one_image(content: bytes, reason: str) -> None:
    with pytest.raises(UnusableError, match=reason):
        look(content)


def test_a_newline_may_end_a_portable_map() -> None:
    assert row(b"P5\n2 1\n255\n\x05\x06\n") == [5, 6]


@pytest.mark.parametrize(
    ("bits", "packed", "values"),
    [
        (1, b"\x50", [0, 255, 0, 255]), (2, b"\x1b", [0, 85, 170, 255]),
        (4, b"\x01\x9f", [0, 17, 153, 255]), (8, b"\x00\x01\x80\xff", [0, 1, 128, 255]),
        (16, struct.pack(">4H", 0, 128, 129, 65535), [0, 0, 1, 255]),
    ],
)  # fmt: skip
def test_grey_png_of_all_depths(bits: int, packed: bytes, values: list[int]) -> None:
    """And of each, the grey that may be named transparent: Pillow alone misses it at 2 and 4."""
    assert row(png(4, bits, 0, packed)) == values
    second = {1: 1, 2: 1, 4: 1, 8: 1, 16: 128}[bits]
    with pytest.raises(UnusableError, match="transparent in places"):
        look(png(4, bits, 0, packed, struct.pack(">H", second)))
    if bits > 2:
        assert row(png(4, bits, 0, packed, struct.pack(">H", 2))) == values


def test_colours_of_which_one_is_transparent() -> None:
    content = bytes([0, 1, 2, 3, 4, 5])
    with pytest.raises(UnusableError, match="transparent in places"):
        look(png(2, 8, 2, content, struct.pack(">3H", 3, 4, 5)))
    assert row(png(2, 8, 2, content, struct.pack(">3H", 3, 4, 6))) == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_16_bits_that_pillow_would_cut_are_refused(colour: int, channels: int) -> None:
    with pytest.raises(UnusableError, match=r"cuts to 8 bits; .*round\(x / 257\)"):
        look(png(1, 16, colour, b"\xff" * 2 * channels))


@pytest.mark.parametrize("kind", ["BMP", "DIB", "TGA", "PCX", "SGI", "QOI", "PPM", "PNG", "TIFF"])
def test_lossless_formats_are_exact(kind: str) -> None:
    made = coloured(1)[0]
    content = saved(Image.fromarray(made), kind)
    assert not look(content).lossy
    np.testing.assert_array_equal(file_pixels(content, 3), made)


def test_bitmaps_of_16_bits_a_pixel_are_no_deep_ones() -> None:
    """Of 5, 6 and 5 bits."""
    header = struct.pack("<IiiHHIIiiII", 40, 3, 1, 1, 16, 3, 8, 0, 0, 0, 0)
    masks = struct.pack("<3I", 0xF800, 0x7E0, 0x1F)
    start = struct.pack("<2sIHHI", b"BM", 74, 0, 0, 66)
    content = start + header + masks + struct.pack("<4H", 0xF800, 0x7E0, 0xFFFF, 0)
    assert row(content) == [[255, 0, 0], [0, 255, 0], [255, 255, 255]]


def test_deep_colours_of_other_formats_are_refused() -> None:
    sgi = struct.pack(">hBBHHHHii4x80si404x", 474, 0, 2, 3, 2, 1, 3, 0, 65535, b"", 0) + bytes(12)
    with pytest.raises(UnusableError, match="16-bit RGB"):
        look(sgi)


def test_grey_of_16_bits_in_jpeg_2000() -> None:
    if "JPEG2000" not in Image.registered_extensions().values():
        pytest.skip("this Pillow has no JPEG 2000")
    deep = np.random.default_rng(0).integers(0, 2**16, (8, 8)).astype(np.uint16)
    content = saved(Image.fromarray(deep), "JPEG2000")
    np.testing.assert_array_equal(file_pixels(content, 1)[..., 0], np.rint(deep / 257))
    colours = bytearray(saved(Image.fromarray(coloured(1)[0]), "JPEG2000"))
    assert look(bytes(colours)).channels == 3
    sizes = colours.index(b"\xff\x4f\xff\x51") + 4
    colours[sizes + 38] = 11  # the first channel has 12 bits, says its header
    with pytest.raises(UnusableError, match=r"16-bit RGB|truncated"):
        look(bytes(colours))


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "TIFF"])
def test_animations_and_stacks_are_refused_and_single_pictures_taken(kind: str) -> None:
    image = Image.fromarray(coloured(1)[0])
    with pytest.raises(UnusableError, match="2 pictures or layers, which is more than one picture"):
        look(saved(image, kind, save_all=True, append_images=[image.rotate(90)]))
    assert look(saved(image, kind)).channels == 3


def test_cmyk_is_refused_in_every_format() -> None:
    """Adobe's JPEG has it upside down, and only its colour profile says what it looks like."""
    image = Image.fromarray(coloured(1)[0]).convert("CMYK")
    for kind in ("JPEG", "TIFF"):
        with pytest.raises(UnusableError, match=r"mode CMYK .*convert it to RGB by the colour"):
            look(saved(image, kind))
    assert look(saved(image.convert("RGB"), "PNG")).channels == 3


def test_every_suffix_of_pillow_is_taken_or_left_out_for_a_reason(tmp_path: Path) -> None:
    kinds = Image.registered_extensions()
    for suffix, kind in kinds.items():
        assert (suffix in suffixes()) == (kind in Image.OPEN and kind not in NO_PICTURES), suffix
    assert {".jfif", ".jpe", ".apng", ".dib", ".pbm", ".pnm", ".tga", ".gif"} <= suffixes()
    made = Image.fromarray(coloured(1)[0])
    taken = [".png", ".apng", ".bmp", ".dib", ".tga", ".ppm", ".pnm", ".tif", ".pcx", ".qoi"]
    for i, suffix in enumerate(taken):
        made.save(tmp_path / f"{i}{suffix}", kinds[suffix])
    images = open_images(tmp_path)
    assert images.n == len(taken)
    assert all(torch.equal(image, pixels(images)[0]) for image in pixels(images))


@pytest.mark.filterwarnings("ignore:1 of 1 images .* are JPEG")
@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_turned_images_are_pointed_out(tmp_path: Path, kind: str) -> None:
    """They are taken as they lie in the file; the remedy turns them."""
    exif = Image.Exif()
    exif[274] = 6
    wide = Image.fromarray(coloured(1)[0][:4] // 128 * 128)
    path = tmp_path / f"a.{kind}"
    wide.save(path, exif=exif, **({"lossless": True} if kind == "webp" else {}))
    with pytest.warns(UserWarning, match=r"1 of 1 images .*Exif orientation .*exif_transpose"):
        images = open_images(tmp_path)
    assert images.shape[1:] == (4, 8)
    with Image.open(path) as image:
        ImageOps.exif_transpose(image).save(tmp_path / "turned.png")
    path.unlink()
    assert open_images(tmp_path).shape[1:] == (8, 4)


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_few_bits_in_16_are_pointed_out(tmp_path: Path, bits: int) -> None:
    """As cameras write them; the remedy gives what was meant."""
    values = np.linspace(0, 2**bits - 1, 64).astype(np.uint16).reshape(8, 8)
    save(tmp_path / "a.png", values)
    with pytest.warns(UserWarning, match=rf"no value above {2**bits - 1}: .*{bits} bits in truth"):
        assert pixels(open_images(tmp_path)).max() == 2 ** (bits - 8)
    save(tmp_path / "a.png", np.round(values / (2**bits - 1) * 255).astype(np.uint8))
    assert pixels(open_images(tmp_path)).max() == 255


def test_what_other_code_told_pillow_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data loaders often tell it to fill up truncated files."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    save_all(tmp_path, coloured(2, 16))
    cut(save(tmp_path / "x.jpg", coloured(1, 16)[0]), 0.8)
    images = open_images(tmp_path, on_error="skip")
    assert images.n == len(pixels(images)) == 2
    assert images.skipped[0].startswith("x.jpg: truncated")
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def palette_image(made: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(made // 64 * 64).quantize(64)


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_palettes_with_a_transparent_colour(kind: str) -> None:
    image = palette_image(coloured(1)[0])
    used = int(np.asarray(image)[0, 0])
    with pytest.raises(UnusableError, match="transparent in places"):
        look(saved(image, kind, transparency=used))
    content = saved(image, kind, transparency=200)  # which no pixel has
    np.testing.assert_array_equal(file_pixels(content, 3), np.asarray(image.convert("RGB")))
