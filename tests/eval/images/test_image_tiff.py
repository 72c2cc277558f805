"""TIFF files give the pixels that their tags mean, or are refused with what to save instead."""

import itertools
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_files import coloured, pixels, save, zipped
from numpy.typing import NDArray
from PIL import Image
from tiff_files import DEFLATE, RAW, Tiff

from fewstep.eval.images.pixels import UnusableError, look
from fewstep.eval.images.pixels import pixels as file_pixels
from fewstep.eval.images.sources import open_images

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, CIELAB = 0, 1, 2, 3, 5, 6, 8
CHANNELS = {RGB: 3, CMYK: 4, CIELAB: 3}
BITS = (1, 2, 4, 6, 8, 10, 12, 14, 16, 32)
# The kinds that Pillow reads, of unsigned values in one plane: a change here is one of the product.
READ = (
    {(WHITE_IS_ZERO, bits) for bits in (1, 2, 4, 8, 16)}
    | {(BLACK_IS_ZERO, bits) for bits in (1, 2, 4, 8, 12, 16)}
    | {(PALETTE, bits) for bits in (1, 2, 4, 8)} | {(RGB, 8)}
)  # fmt: skip


def levels(values: NDArray[Any], black: float, white: float) -> NDArray[Any]:
    """Of 8 bits, rounded."""
    return np.floor(255 * (values.astype(float) - black) / (white - black) + 0.5)


def meant(values: NDArray[Any], photometric: int, bits: int, colours: NDArray[Any]) -> Any:
    """(h, w, 3) by the TIFF 6.0 specification, or None where 8 bits have no one meaning."""
    top = 2**bits - 1
    if photometric == PALETTE:
        return np.moveaxis(colours[:, values[..., 0].astype(int)], 0, -1) // 257
    if photometric == RGB:
        return levels(values, 0, top)
    if photometric in (BLACK_IS_ZERO, WHITE_IS_ZERO):
        ends = (0, top) if photometric == BLACK_IS_ZERO else (top, 0)
        return levels(values, *ends).repeat(3, axis=2)
    return None


def refusal(content: bytes) -> str:
    """Why a file cannot be used; empty if it can."""
    try:
        look(content)
    except UnusableError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("photometric", [WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, CIELAB])
def test_every_kind_is_right_or_refused(photometric: int) -> None:
    generator, read = np.random.default_rng(0), set()
    kinds = itertools.product(BITS, (1, 2), (1, 2), "<>", (RAW, DEFLATE))
    for bits, sample_format, planes, order, compression in kinds:
        shape = (3, 5, CHANNELS.get(photometric, 1))  # 5 values of a few bits end within a byte
        kind = np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32
        values = generator.integers(0, 2**bits, shape).astype(kind)
        colours = generator.integers(0, 256, (3, 2 ** min(bits, 8))) * 257
        more = {320: tuple(colours.ravel().tolist())} if photometric == PALETTE else {}
        tiff = Tiff(bits, photometric, sample_format, planes, (), order, compression, more)
        content = tiff.content(values)
        if reason := refusal(content):
            assert "save it" in reason or "convert it" in reason, (tiff, reason)
            continue
        wanted = meant(values, photometric, bits, colours)
        assert sample_format == 1, tiff
        assert wanted is not None, tiff
        np.testing.assert_array_equal(file_pixels(content, 3), wanted, str(tiff))
        if planes == 1:
            read.add((photometric, bits))
    assert read == {kind for kind in READ if kind[0] == photometric}


def test_floats_are_refused_and_their_remedy_is_right(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((4, 4, 1)).astype(np.float32) * 2 - 1
    path = Tiff(32, sample_format=3).write(tmp_path / "a.tif", values)
    with pytest.raises(ValueError, match=r"a.tif: float values .*round\(\(x - black\) / \(white"):
        open_images(tmp_path)
    path.unlink()
    save(tmp_path / "b.png", levels(values[..., 0], -1, 1).astype(np.uint8))
    back = pixels(open_images(tmp_path)).float() / 127.5 - 1
    assert (back[0, 0].numpy() - values[..., 0]).__abs__().max() <= 1 / 255 + 1e-6  # half a level


@pytest.mark.parametrize("bits", [10, 14])
def test_bits_that_pillow_does_not_read_are_named(tmp_path: Path, bits: int) -> None:
    Tiff(bits).write(tmp_path / "a.tif", np.zeros((4, 4, 1), np.uint16))
    with pytest.raises(ValueError, match=rf"BitsPerSample \({bits},\).*save it with 8 bits"):
        open_images(tmp_path)


def test_twelve_bits_in_a_folder_and_a_zip_file(tmp_path: Path) -> None:
    """As microscopes and detectors write them."""
    values = np.linspace(0, 4095, 35).astype(np.uint16).reshape(5, 7, 1)
    folder = tmp_path / "folder"
    Tiff(12).write(folder / "a.TIF", values)
    for source in (folder, zipped(folder, tmp_path / "all.zip")):
        found = pixels(open_images(source))[0, 0].numpy()
        np.testing.assert_array_equal(found, levels(values[..., 0], 0, 4095))


@pytest.mark.parametrize(
    ("extra", "alpha", "reason"),
    [
        ((0,), 255, "ExtraSamples 0.*save its colours alone"),  # may be anything
        ((1,), 255, None), ((2,), 255, None), ((), 255, None),
        ((1,), 254, "transparent in places"), ((2,), 254, "transparent in places"),
        ((), 254, "transparent in places"),
    ],
)  # fmt: skip
def test_a_fourth_channel(
    tmp_path: Path, extra: tuple[int, ...], alpha: int, reason: str | None
) -> None:
    made = coloured(1)[0]
    values = np.dstack([made, np.full((8, 8), 255, np.uint8)])
    values[0, 0, 3] = alpha
    Tiff(8, RGB, extra=extra).write(tmp_path / "a.tif", values)
    if reason is not None:
        with pytest.raises(ValueError, match=reason):
            open_images(tmp_path)
        return
    assert torch.equal(pixels(open_images(tmp_path))[0], torch.from_numpy(made).movedim(-1, 0))


def test_stacks_behind_one_page_are_more_than_one_image(tmp_path: Path) -> None:
    """ImageJ writes one page for them, and says the number in words."""
    values = np.zeros((4, 4, 1), np.uint8)
    Tiff(more={270: b"ImageJ=1.53t\nimages=12\nslices=12\n\0"}).write(tmp_path / "a.tif", values)
    Tiff(more={32997: (7,)}).write(tmp_path / "b.tif", values)  # ImageDepth, of volumes
    with pytest.raises(ValueError, match=r"a.tif: it has 12 pictures.*save each.*1 more files"):
        open_images(tmp_path)
    Tiff(more={270: b"ImageJ=1.53t\nimages=1\n\0"}).write(tmp_path / "a.tif", values)
    with pytest.raises(ValueError, match=r"b.tif: it has 7 pictures"):
        open_images(tmp_path)
    (tmp_path / "b.tif").unlink()
    assert open_images(tmp_path).n == 1


def test_palettes_of_8_bits_would_be_black(tmp_path: Path) -> None:
    values = np.arange(16, dtype=np.uint8).reshape(4, 4, 1)
    Tiff(8, PALETTE, more={320: tuple(range(256)) * 3}).write(tmp_path / "a.tif", values)
    with pytest.raises(ValueError, match=r"palette has values of 8 bits .*save it as RGB"):
        open_images(tmp_path)


@pytest.mark.filterwarnings("ignore:1 of 1 images")
def test_luma_and_chroma_become_rgb() -> None:
    smooth = Image.fromarray(coloured(1, 3)[0]).resize((16, 16), Image.Resampling.BICUBIC)
    planes = np.asarray(smooth.convert("YCbCr"))
    content = Tiff(8, YCBCR, compression=DEFLATE, more={530: (1, 1)}).content(planes)
    # Y, Cb and Cr are rounded to a level each; blue takes 1.77 of a level of Cb.
    assert np.abs(file_pixels(content, 3).astype(int) - np.asarray(smooth)).max() <= 3
    with pytest.raises(UnusableError, match=r"mode YCbCr .*convert it to RGB"):
        look(Tiff(8, YCBCR, more={530: (1, 1)}).content(planes))


def test_jpeg_within_tiff_is_pointed_out(tmp_path: Path) -> None:
    Image.fromarray(coloured(1, 16)[0]).save(tmp_path / "a.tif", compression="jpeg")
    with pytest.warns(UserWarning, match="1 of 1 images of .* compressed as these"):
        open_images(tmp_path)


def test_tiff_files_are_taken_upright(tmp_path: Path) -> None:
    """Orientation 6: the first row is the right-hand side of the picture."""
    made = coloured(1, 6)[0][:4]
    tiff = Tiff(8, RGB, more={274: (6,)})
    tiff.write(tmp_path / "a.tif", made)
    images = open_images(tmp_path)
    assert images.shape == (3, 6, 4)
    wanted = np.rot90(made, -1).copy()
    assert torch.equal(pixels(images)[0], torch.from_numpy(wanted).movedim(-1, 0))


def test_the_files_of_these_tests_are_those_that_pillow_writes() -> None:
    """So that a fault of the writer cannot stand for one of the reader."""
    made = coloured(1)[0]
    for values, mode in ((made, RGB), (made[..., :1], BLACK_IS_ZERO)):
        with Image.open(BytesIO(Tiff(8, mode).content(values))) as ours:
            np.testing.assert_array_equal(np.asarray(ours), values.squeeze())
