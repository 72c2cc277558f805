"""What the Inception network sees: three published ways from 8-bit pixels to 299 x 299 inputs.

They differ by tens of grey levels at edges, so an FID holds for one of them only. Each function of
:data:`PROTOCOLS` maps uint8 images (n, c, h, w) to float32 inputs (n, c, 299, 299) in [-1, 1].
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

SIZE = 299


def edm_input(images: Tensor) -> Tensor:
    """TensorFlow 1's bilinear resize, then (x - 128) / 128: the FID of TTUR, StyleGAN and EDM.

    Args:
        images: uint8 (n, c, h, w).

    Returns:
        float32 (n, c, 299, 299) in [-1, 127/128], on the same device.

    Reference:
        Heusel et al. 2017, arXiv:1706.08500 (their ``fid.py``); Karras et al. 2022,
        arXiv:2206.00364, whose TorchScript network resizes the same way.
    """
    return (tf1_bilinear(images.float()) - 128) / 128


def pytorch_fid_input(images: Tensor) -> Tensor:
    """torch's bilinear resize without antialias, then x / 127.5 - 1: pytorch-fid's.

    Args:
        images: uint8 (n, c, h, w).

    Returns:
        float32 (n, c, 299, 299) in [-1, 1] within rounding, on the same device.

    Reference:
        pytorch-fid 0.3.0, ``inception.py``; it divides by 255 before the resize, so that the last
        bits may differ.
    """
    x = F.interpolate(images.float(), size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    return x / 127.5 - 1


def clean_input(images: Tensor) -> Tensor:
    """Antialiased bicubic resize in floating point, clipped, then (x - 128) / 128: clean-fid's.

    Args:
        images: uint8 (n, c, h, w).

    Returns:
        float32 (n, c, 299, 299) in [-1, 127/128], on the same device.

    Reference:
        Parmar, Zhang and Zhu 2022, arXiv:2104.11222. They use Pillow's resize of float channels;
        torch's differs from it by rounding (0.005 of 255 levels at most) and runs batched.
    """
    x = F.interpolate(
        images.float(), size=(SIZE, SIZE), mode="bicubic", align_corners=False, antialias=True
    )
    return (x.clamp(0, 255) - 128) / 128


PROTOCOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "edm": edm_input,
    "pytorch-fid": pytorch_fid_input,
    "clean": clean_input,
}


def tf1_bilinear(x: Tensor, size: int = SIZE) -> Tensor:
    """``tf.image.resize_bilinear`` of TensorFlow 1 with ``align_corners=False``.

    Output pixel i takes the input at i * length / size: corner to corner, without the half-pixel
    centres of later libraries, and without antialias. Beyond the last pixel its value continues.

    Args:
        x: floating (n, c, h, w).
        size: height and width of the result, >= 1.

    Returns:
        (n, c, size, size) of the same dtype and device, within the range of ``x``.
    """
    # Rows first: on large images they are few afterwards, and picking columns is the slow part.
    return _interpolate(_interpolate(x, size, dim=2), size, dim=3)


def _interpolate(x: Tensor, size: int, *, dim: int) -> Tensor:
    length = x.shape[dim]
    # Positions as fractions of whole numbers: exact, also for images of thousands of pixels.
    position = torch.arange(size, device=x.device) * length
    low = position // size
    high = (low + 1).clamp_max(length - 1)
    weight = (position % size).to(x.dtype) / size
    shape = [size if d == dim else 1 for d in range(4)]
    return torch.lerp(x.index_select(dim, low), x.index_select(dim, high), weight.view(shape))
