"""Sample images as small 8-bit PNGs in text, and back."""

import base64
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from fewstep.eval.generate.units import quantised

LONGEST = 128  # pixels of a thumbnail's longer side, at most


def to_thumbnails(images: Tensor) -> list[str]:
    """PNGs of (n, c, h, w) images in [-1, 1], each in base64; c is 1 (grey) or 3 (RGB).

    Larger images are made smaller by averaging, to :data:`LONGEST` pixels.
    """
    x = images.detach().float().cpu()
    if (longest := max(x.shape[2:])) > LONGEST:
        size = [max(1, round(side * LONGEST / longest)) for side in x.shape[2:]]
        x = interpolate(x, size, mode="area")
    # A run that diverged is shown as it is, with grey for what is no number.
    return [_text(to_png(image)) for image in quantised(x.nan_to_num(0, 1, -1))]


def from_thumbnails(texts: list[str]) -> Tensor:
    """(n, c, h, w) float32 images in [-1, 1] of what :func:`to_thumbnails` made."""
    arrays = [np.asarray(Image.open(BytesIO(base64.b64decode(text)))) for text in texts]
    pixels = torch.from_numpy(np.stack([a if a.ndim == 3 else a[:, :, None] for a in arrays]))
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def strip(images: Tensor, gap: int = 2) -> str:
    """One PNG in base64 of (n, c, h, w) images in [-1, 1] side by side, clear between them.

    Args:
        images: as :func:`from_thumbnails` makes them, so that no pixel changes.
        gap: pixels between two of them.
    """
    n, c, h, w = images.shape
    pixels = quantised(images)
    canvas = torch.zeros(c + 1, h, n * (w + gap) - gap, dtype=torch.uint8)
    for i in range(n):
        left = i * (w + gap)
        canvas[:c, :, left : left + w] = pixels[i]
        canvas[c, :, left : left + w] = 255
    return _text(to_png(canvas))


def to_png(image: Tensor) -> bytes:
    """A PNG of a (c, h, w) uint8 image: 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA."""
    array = image.permute(1, 2, 0).contiguous().numpy()
    file = BytesIO()
    mode = ("L", "LA", "RGB", "RGBA")[array.shape[2] - 1]
    size = (array.shape[1], array.shape[0])
    Image.frombytes(mode, size, array.tobytes()).save(file, "PNG", optimize=True)
    return file.getvalue()


def _text(png: bytes) -> str:
    return base64.b64encode(png).decode()
