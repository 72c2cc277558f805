"""Inputs of the Inception network: the three published resizes, against other implementations."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fewstep.eval.networks.resize import (
    PROTOCOLS,
    SIZE,
    clean_input,
    pytorch_fid_input,
    tf1_bilinear,
)

SIZES = [(32, 32), (28, 28), (64, 48), (299, 299), (512, 512), (700, 40), (1, 1), (598, 23)]


def noise(*shape: int) -> Tensor:
    """uint8 noise: the worst case for every interpolation."""
    generator = torch.Generator().manual_seed(shape[-1])
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def hat_weights(length: int) -> NDArray[np.float64]:
    """(299, length) weights of linear interpolation at i * length / 299, as a sum of hats."""
    position = np.minimum(np.arange(SIZE) * length / SIZE, length - 1)
    return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(length)))


@pytest.mark.parametrize("size", SIZES)
def test_tf1_resize_is_its_formula(size: tuple[int, int]) -> None:
    images = noise(1, 3, *size)
    height, width = map(hat_weights, size)
    expected = height @ images.numpy().astype(np.float64) @ width.T
    # 255 levels in float32, two interpolations: 2e-5.
    np.testing.assert_allclose(tf1_bilinear(images.float()).numpy(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("size", "levels"), [((32, 32), 1e-3), ((512, 512), 5e-3)])
def test_clean_resize_is_that_of_pillow(size: tuple[int, int], levels: float) -> None:
    """Measured: 0.0005 grey levels up, 0.003 down; both sides round their weights in float32."""
    image = pytest.importorskip("PIL.Image")
    images = noise(2, 3, *size)
    for channel, found in zip(images.flatten(0, 1), clean_input(images).flatten(0, 1), strict=True):
        picture = image.fromarray(channel.numpy().astype(np.float32))
        expected = np.asarray(picture.resize((SIZE, SIZE), image.BICUBIC)).clip(0, 255)
        np.testing.assert_allclose(found.numpy() * 128 + 128, expected, rtol=0, atol=levels)


@pytest.mark.parametrize("size", [(32, 32), (400, 350)])
def test_pytorch_fid_resize_is_its_two_lines(size: tuple[int, int]) -> None:
    images = noise(2, 3, *size)
    x = F.interpolate(images / 255, size=(299, 299), mode="bilinear", align_corners=False)
    torch.testing.assert_close(pytorch_fid_input(images), 2 * x - 1, rtol=0, atol=1e-6)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_images_of_299_pixels_keep_them(protocol: str) -> None:
    images = noise(1, 3, SIZE, SIZE)
    centre, unit = (127.5, 127.5) if protocol == "pytorch-fid" else (128, 128)
    expected = (images.float() - centre) / unit
    torch.testing.assert_close(PROTOCOLS[protocol](images), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_range_and_flat_images(protocol: str, size: tuple[int, int]) -> None:
    """Bicubic overshoot is clipped, and flat images stay flat up to the border."""
    prepare = PROTOCOLS[protocol]
    white = 1 if protocol == "pytorch-fid" else 127 / 128
    found = prepare(noise(1, 3, *size).bitwise_and(128) // 128 * 255)  # black and white pixels
    assert found.shape == (1, 3, SIZE, SIZE)
    assert found.dtype == torch.float32
    assert found.min() >= -1 - 1e-6
    assert found.max() <= white + 1e-6
    for level, expected in ((0, -1), (255, white)):
        flat = prepare(torch.full((1, 1, *size), level, dtype=torch.uint8))
        torch.testing.assert_close(flat, torch.full_like(flat, expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_images_and_channels_are_on_their_own(protocol: str) -> None:
    images = noise(3, 3, 32, 40)
    together = PROTOCOLS[protocol](images)
    # torch has another bilinear kernel for one channel, which rounds differently.
    for part in ((slice(1, 2),), (slice(None), slice(2, 3))):
        alone = PROTOCOLS[protocol](images[part])
        torch.testing.assert_close(alone, together[part], rtol=0, atol=1e-6)


def test_protocols_are_far_apart() -> None:
    """On noise tens of grey levels, as centres and kernels differ; so none stands for another."""
    edm, torchs, clean = (prepare(noise(1, 3, 32, 32)) for prepare in PROTOCOLS.values())
    for a, b in ((edm, torchs), (edm, clean), (torchs, clean)):
        assert (a - b).abs().mean() * 128 > 5
