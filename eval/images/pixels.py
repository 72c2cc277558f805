"""One image file: whether its pixels have one meaning in 8 bits, and what they are."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewstep.eval.common.image_sets import COLOURS, GREY
from fewstep.eval.images import formats, tiff

if TYPE_CHECKING:
    from PIL import Image, ImageFile

# Modes of Pillow whose pixels are grey, or red, green and blue, or become so without loss.
GREYS = ("1", "L", "LA", "I;16", "I;16L", "I;16B")
COLOURED = ("RGB", "RGBA", "P", "PA")
WHITE = 65535  # of 16 bits
LOSSY = ("JPEG", "MPO", "WEBP", "JPEG2000", "AVIF")
ORIENTATION, UPRIGHT = 274, 1
NO_PILLOW = "reading image files needs Pillow: pip install pillow"
TRANSPARENT = (
    "it is transparent in places, over no known background; paste it on one, and save it without "
    "alpha"
)
EXIF = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}  # where Pillow looks for it


class UnusableError(ValueError):
    """An image file that cannot be used, and why."""


class Look(NamedTuple):
    """What is known of an image before it is used.

    Attributes:
        width, height: in pixels.
        channels: 1 if it is grey, else 3.
        lossy: whether its compression changes pixels.
        turned: whether viewers would turn or mirror it, as its Exif asks them to.
        highest: the highest value of 16-bit grey, None of other images.
    """

    width: int
    height: int
    channels: int
    lossy: bool
    turned: bool
    highest: int | None


def look(content: bytes) -> Look:
    """Decodes an image file just as :func:`pixels` does, and of PNG checks all checksums as well.

    Raises:
        UnusableError: if the file is damaged, or its pixels have no one meaning.
    """
    with _damage_is_named():
        if reason := formats.wrong_checksum(content):
            raise UnusableError(reason)
        found, image, highest = _decode(content)
        height, width, channels = found.shape
        lossy = image.format in LOSSY or image.info.get("compression") in tiff.LOSSY
        return Look(width, height, channels, lossy, _is_turned(image), highest)


def pixels(content: bytes, channels: int) -> NDArray[np.uint8]:
    """The pixels of a file that :func:`look` passed, as they lie in it.

    Grey of b bits becomes 8 bits by 255 x / (2^b - 1), rounded; other images are not changed.

    Args:
        content: of the file.
        channels: 1, if it is grey, or 3 (grey images get three equal ones).

    Returns:
        uint8 (h, w, channels).

    Raises:
        UnusableError: if it cannot be decoded.
    """
    with _damage_is_named():
        found, _, _ = _decode(content)
    return found if found.shape[2] == channels else np.repeat(found, channels, axis=2)


def _decode(content: bytes) -> "tuple[NDArray[np.uint8], Image.Image, int | None]":
    """uint8 (h, w, 1 or 3), the image of Pillow, and the highest value of 16-bit grey."""
    image = _open(content)
    _check_one_picture(image, content)
    channels, rawmode = _channels(image, content), _rawmode(image)
    image.load()
    found: Any
    highest = None
    if image.mode.startswith("I"):
        found, highest = _deep_grey(image)
    else:
        if _has_alpha(image):
            opaque = _opaque(image, rawmode)
            shown = image if channels == GREY else opaque  # a palette with transparency warns
        else:
            shown = image
        mode = "L" if channels == GREY else "RGB"
        found = np.asarray(shown if shown.mode == mode else shown.convert(mode))
    return found.reshape(*found.shape[:2], channels), image, highest


def _open(content: bytes) -> "ImageFile.ImageFile":
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(BytesIO(content))
    except UnidentifiedImageError as error:
        reason = tiff.unknown_kind(content) or "truncated or not an image that Pillow knows"
        raise UnusableError(reason) from error


@contextmanager
def nothing_filled_in() -> Iterator[None]:
    """Other parts of a program may have told Pillow to fill up what is missing: not here.

    Raises:
        ImportError: without Pillow.
    """
    try:
        from PIL import ImageFile
    except ImportError as error:
        raise ImportError(NO_PILLOW) from error
    lenient, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = lenient


@contextmanager
def _damage_is_named() -> Iterator[None]:
    # On damaged files Pillow raises nearly anything: SyntaxError, struct.error, zlib.error, ...
    try:
        yield
    except (UnusableError, MemoryError):
        raise
    except Exception as error:
        raise UnusableError(f"truncated or not an image ({error})") from error


def _check_one_picture(image: "ImageFile.ImageFile", content: bytes) -> None:
    count = getattr(image, "n_frames", 1)
    if image.format == "TIFF":
        count = max(count, tiff.pictures(image))
    if count > 1:
        raise UnusableError(
            f"it has {count} pictures or layers, which is more than one picture; save each that "
            "you mean as a file"
        )
    if image.format == "PPM" and (reason := formats.portable_map_refusal(image, content)):
        raise UnusableError(reason)


def _channels(image: "ImageFile.ImageFile", content: bytes) -> int:
    if image.format == "TIFF" and (reason := tiff.refusal(image)):
        raise UnusableError(reason)
    if formats.is_cut(image, content):
        raise UnusableError(
            f"16-bit {image.mode}, which Pillow cuts to 8 bits; save it with 8 bits a channel, "
            "round(x / 257), by a program that reads 16"
        )
    if image.mode in GREYS or _is_deep(image):
        return GREY
    if image.mode in COLOURED:
        return COLOURS
    remedy = "convert it to RGB by the colour profile that it was made with"
    if image.mode in ("I", "F"):
        remedy = tiff.EIGHT_BITS
    elif image.mode in ("La", "RGBa"):
        remedy = "save it without alpha"
    raise UnusableError(
        f"pixels of mode {image.mode} are neither grey nor RGB of 8 bits, nor grey of 16; {remedy}"
    )


def _is_deep(image: "Image.Image") -> bool:
    # PGM files of more than 8 bits, and in older versions of Pillow PNG files of 16-bit grey.
    return image.mode == "I" and image.format in ("PNG", "PPM")


def _deep_grey(image: "Image.Image") -> tuple[NDArray[np.uint8], int | None]:
    """uint8 (h, w), and the highest value where white is that of 16 bits."""
    black, white = tiff.black_and_white(image) if image.format == "TIFF" else (0, WHITE)
    values = np.asarray(image).astype(np.int64)
    top = abs(white - black)
    if np.any(values == image.info.get("transparency")):
        raise UnusableError(TRANSPARENT)
    grey = (2 * 255 * np.abs(values - black) + top) // (2 * top)
    return grey.astype(np.uint8), int(values.max()) if (black, white) == (0, WHITE) else None


def _rawmode(image: "ImageFile.ImageFile") -> str | None:
    """How the file keeps pixels, in Pillow's words; None if it does not say."""
    args = image.tile[0][3] if image.tile else None
    return args if isinstance(args, str) else None


def _has_alpha(image: "Image.Image") -> bool:
    return image.mode in ("LA", "RGBA", "PA") or "transparency" in image.info


def _opaque(image: "Image.Image", rawmode: str | None) -> "Image.Image":
    """The image as RGBA, of which no pixel may be transparent."""
    if rawmode in ("L;2", "L;4"):  # Pillow scales the pixels, and not the transparent one
        step = {"L;2": 255 // 3, "L;4": 255 // 15}[rawmode]
        image.info["transparency"] *= step
    opaque = image.convert("RGBA")
    if opaque.getchannel("A").getextrema()[0] != 255:
        raise UnusableError(TRANSPARENT)
    return opaque


def _is_turned(image: "Image.Image") -> bool:
    """Of TIFF files, Pillow gives the pixels upright."""
    if image.format == "TIFF" or not EXIF & image.info.keys():
        return False
    return bool(image.getexif().get(ORIENTATION, UPRIGHT) != UPRIGHT)
