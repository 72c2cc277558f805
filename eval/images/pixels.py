"""One image file: whether its pixels have one meaning in 8 bits, and what they are."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewstep.eval.images.sets import COLOURS, GREY

if TYPE_CHECKING:
    from PIL import Image

# Modes of Pillow whose pixels are grey, or red, green and blue, or become so without loss.
GREYS = ("1", "L", "LA", "I;16", "I;16L", "I;16B")
COLOURED = ("RGB", "RGBA", "P", "PA")
DEEP = 257  # 65535 / 255


class UnusableError(ValueError):
    """An image file that cannot be used, and why."""


class Look(NamedTuple):
    """What is known of an image before it is used."""

    width: int
    height: int
    channels: int
    format: str


def look(content: bytes) -> Look:
    """Checks an image file: PNG by the checksums of its parts, others by decoding them.

    Raises:
        UnusableError: if the file is damaged, or its pixels have no one meaning.
        ImportError: without Pillow.
    """
    with _damage_is_named():
        image = _open(content)
        found = Look(*image.size, _channels(image), str(image.format))
        if _has_alpha(image):
            _check_opaque(image)  # decodes it
        elif found.format == "PNG":
            image.verify()
        else:
            image.load()
    return found


def pixels(content: bytes, channels: int) -> NDArray[Any]:
    """The pixels of a file that :func:`look` passed.

    Grey of 16 bits becomes 8 bits by x / 257, rounded; other grey ones are not changed.

    Args:
        content: of the file.
        channels: 1, if it is grey, or 3 (grey images get three equal ones).

    Returns:
        uint8 (h, w, channels).

    Raises:
        UnusableError: if it cannot be decoded.
    """
    with _damage_is_named():
        image: Image.Image = _open(content)
        if image.mode.startswith("I"):
            deep = np.asarray(image).astype(np.uint32)
            grey = ((deep + DEEP // 2) // DEEP).astype(np.uint8)
        elif channels == GREY:
            grey = np.asarray(image.convert("L"))
        else:
            if _has_alpha(image):  # straight to RGB, a palette with transparency warns
                image = image.convert("RGBA")
            return np.asarray(image.convert("RGB"))
    return np.repeat(grey[:, :, None], channels, axis=2)


def _open(content: bytes) -> "Image.Image":
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("reading image files needs Pillow: pip install pillow") from error
    return Image.open(BytesIO(content))


@contextmanager
def _damage_is_named() -> Iterator[None]:
    # On damaged files Pillow raises nearly anything: SyntaxError, struct.error, zlib.error, ...
    try:
        yield
    except (UnusableError, ImportError):
        raise
    except Exception as error:
        raise UnusableError(f"truncated or not an image ({error})") from error


def _channels(image: "Image.Image") -> int:
    if getattr(image, "n_frames", 1) > 1:
        raise UnusableError("it has more than one picture; save each as a file")
    deep = any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))
    if deep and not image.mode.startswith("I"):
        raise UnusableError(
            f"16-bit {image.mode}, which Pillow cuts to 8 bits; save it with 8 bits a channel"
        )
    if image.mode in GREYS or _is_old_deep_grey(image):
        return GREY
    if image.mode in COLOURED:
        return COLOURS
    raise UnusableError(
        f"pixels of mode {image.mode} are neither grey nor RGB of 8 bits, nor grey of 16; convert "
        "it to RGB"
    )


def _is_old_deep_grey(image: "Image.Image") -> bool:
    # Older versions of Pillow open PNG files of 16-bit grey so.
    return image.mode == "I" and image.format == "PNG"


def _has_alpha(image: "Image.Image") -> bool:
    return image.mode in ("LA", "RGBA", "PA") or "transparency" in image.info


def _check_opaque(image: "Image.Image") -> None:
    lowest = image.convert("RGBA").getchannel("A").getextrema()[0]
    if lowest != 255:
        raise UnusableError(
            "it is transparent in places, over no known background; paste it on one, and save it "
            "without alpha"
        )
