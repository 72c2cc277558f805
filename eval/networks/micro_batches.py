"""Networks at one fixed batch size and precision, so that features depend on the image alone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

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


@contextmanager
def strict_products() -> Iterator[None]:
    """Within, products of float32 matrices are in float32, whatever the caller set.

    With ``torch.set_float32_matmul_precision`` below "highest" they are rounded to 10 bits or 7.
    """
    backends: Any = torch.backends
    settings: list[tuple[Any, str, Any]] = [(backends.cuda.matmul, "allow_tf32", False)]
    if hasattr(backends.cuda.matmul, "fp32_precision"):  # torch 2.9 and later
        products = (backends.cuda.matmul, backends.mkldnn.matmul)
        settings = [(part, "fp32_precision", "ieee") for part in products]
    before = [getattr(part, name) for part, name, _ in settings]
    for part, name, strict in settings:
        setattr(part, name, strict)
    try:
        yield
    finally:
        for (part, name, _), value in zip(settings, before, strict=True):
            setattr(part, name, value)
