"""Networks at one fixed batch size and precision, so that features depend on the image alone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def check_images(images: Tensor, channels: tuple[int, ...]) -> None:
    """Passes uint8 images (n, c, h, w) with c among ``channels``.

    Raises:
        TypeError: for another dtype; rounding to 8 bits is part of a metric, and done once.
        ValueError: for another shape.
    """
    if images.dtype != torch.uint8:
        raise TypeError(
            f"images must be uint8 in 0..255, got {images.dtype}; quantise them first, as a saved "
            "file would be"
        )
    if images.ndim != 4 or images.shape[1] not in channels:
        wanted = " or ".join(map(str, channels))
        raise ValueError(
            f"images must have shape (n, c, h, w) with c = {wanted}, got {tuple(images.shape)}"
        )


def in_micro_batches(
    images: Tensor, size: int, compute: Callable[[Tensor], Tensor], device: torch.device
) -> Tensor:
    """``compute`` of every ``size`` images in turn, the last ones filled up with black images.

    Convolutions sum in an order that depends on the batch size: features of one image, alone and
    among others, differ in the last bits. With one shape for all calls they do not.

    Args:
        images: (n, c, h, w), any n, on any device; moved to ``device`` part by part.
        size: of every call, >= 1.
        compute: (size, c, h, w) to (size, dim), row by row.
        device: where ``compute`` works.

    Returns:
        (n, dim), on ``device``.
    """
    parts = []
    for start in range(0, max(len(images), 1), size):
        rows = images[start : start + size].to(device)
        filling = rows.new_zeros(size - len(rows), *rows.shape[1:])
        full = torch.cat((rows, filling)).contiguous()  # the layout chooses kernels, too
        parts.append(compute(full)[: len(rows)])
    return torch.cat(parts)


@contextmanager
def strict_float32(device: torch.device) -> Iterator[None]:
    """Within, convolutions on ``device`` are in float32 and repeatable, whatever the caller set.

    cuDNN rounds their inputs to 10 bits (TF32) unless told not to; autocast rounds them further.
    """
    with torch.autocast(device.type, enabled=False):
        if device.type != "cuda":
            yield
            return
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            yield
