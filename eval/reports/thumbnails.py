"""Sample images as small 8-bit PNGs in text, and back; torch is imported to make images smaller."""

import base64
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor

LONGEST = 128  # pixels of a thumbnail's longer side, at most
Pixels = NDArray[np.float32]  # (n, c, h, w) in [-1, 1]


def to_thumbnails(images: "Tensor | Pixels") -> list[str]:
    """PNGs of (n, c, h, w) images in [-1, 1], each in base64; c is 1 (grey) or 3 (RGB).

    Larger images are made smaller by averaging, to :data:`LONGEST` pixels.
    """
    x = as_array(images)
    if (longest := max(x.shape[2:])) > LONGEST:
        import torch

        size = [max(1, round(side * LONGEST / longest)) for side in x.shape[2:]]
        smaller = torch.nn.functional.interpolate(torch.from_numpy(x), size, mode="area")
        x = smaller.numpy()
    # A run that diverged is shown as it is, with grey for what is no number.
    return [_text(to_png(image)) for image in _quantised(np.nan_to_num(x, True, 0, 1, -1))]


def from_thumbnails(texts: list[str]) -> Pixels:
    """(n, c, h, w) float32 images in [-1, 1] of what :func:`to_thumbnails` made."""
    arrays = [np.asarray(Image.open(BytesIO(base64.b64decode(text)))) for text in texts]
    pixels = np.stack([a if a.ndim == 3 else a[:, :, None] for a in arrays])
    return pixels.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(127.5) - np.float32(1)


def strip(images: "Tensor | Pixels", gap: int = 2) -> str:
    """One PNG in base64 of (n, c, h, w) images in [-1, 1] side by side, clear between them.

    Args:
        images: as :func:`from_thumbnails` makes them, so that no pixel changes.
        gap: pixels between two of them.
    """
    pixels = _quantised(as_array(images))
    n, c, h, w = pixels.shape
    canvas = np.zeros((c + 1, h, n * (w + gap) - gap), np.uint8)
    for i in range(n):
        left = i * (w + gap)
        canvas[:c, :, left : left + w] = pixels[i]
        canvas[c, :, left : left + w] = 255
    return _text(to_png(canvas))


def to_png(image: "Tensor | NDArray[np.uint8]") -> bytes:
    """A PNG of a (c, h, w) uint8 image: 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA."""
    array = np.ascontiguousarray(np.asarray(image).transpose(1, 2, 0))
    file = BytesIO()
    mode = ("L", "LA", "RGB", "RGBA")[array.shape[2] - 1]
    size = (array.shape[1], array.shape[0])
    Image.frombytes(mode, size, array.tobytes()).save(file, "PNG", optimize=True)
    return file.getvalue()


def as_array(images: Any) -> Pixels:
    """A float32 array of a tensor on any device, or of an array."""
    if hasattr(images, "detach"):
        images = images.detach().float().cpu().numpy()
    return np.asarray(images, np.float32)


def _quantised(x: Pixels) -> NDArray[np.uint8]:
    """uint8 as samples are kept (see ``image_sets.quantised``), of finite ones."""
    return (x * np.float32(127.5) + np.float32(128)).clip(0, 255).astype(np.uint8)


def _text(png: bytes) -> str:
    return base64.b64encode(png).decode()
