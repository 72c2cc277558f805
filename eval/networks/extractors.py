"""Feature extractors by name: what a Frechet distance between sets of images is measured in.

A name is a family and a variant: ``inception:edm``, ``fd-cnn:fashion``, ``pixels:3x32x32``. Only
the published Inception network with 50,000 samples gives an FID; :func:`metric_name` says so. The
families are in :mod:`fewstep.eval.networks.families`.
"""

from typing import Protocol

import torch
from torch import Tensor

from fewstep.eval.common.cache import digest
from fewstep.eval.common.limits import LARGEST_FEATURE
from fewstep.eval.networks.micro_batches import (
    check_images,
    in_micro_batches,
    strict_float32,
    strict_products,
)
from fewstep.models.bundled import bundled_classifier, weights_sha256
from fewstep.models.data import to_signed


class Extractor(Protocol):
    """Maps uint8 images (n, c, h, w) to float32 features (n, dim), each row from its image alone.

    Attributes:
        name: family and variant, which load the same extractor again.
        dim: size of a feature vector.
        fingerprint: SHA-256 of the weights: statistics of another one cannot be compared.
        comparable: whether it is the network and input of a published FID.
        bound: no feature is meant to exceed it in size.
        scale: a power of two; exact sums take features rounded to multiples of 1 / scale.
            bound * scale <= ``fewstep.eval.common.limits.LARGEST_FEATURE``.
    """

    name: str
    dim: int
    fingerprint: str
    comparable: bool
    bound: float
    scale: float

    def __call__(self, images: Tensor) -> Tensor:
        """Raises TypeError or ValueError for images it cannot take."""
        ...


class FashionExtractor:
    """The 64 features of the bundled Fashion-MNIST classifier, after its last ReLU.

    Args:
        device: where the network goes.

    Raises:
        FileNotFoundError: if its weights are missing.
    """

    name = "fd-cnn:fashion"
    dim = 64
    comparable = False
    bound = 16.0  # of real images the largest is 4.4
    scale = LARGEST_FEATURE / bound
    micro_batch = 64

    def __init__(self, device: str = "cpu") -> None:
        self._net = bundled_classifier(device)
        self._device = torch.device(device)
        self.fingerprint = weights_sha256("classifier")

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """float32 (n, 64) features of uint8 images (n, 1, 28, 28), on the network's device.

        Raises:
            TypeError, ValueError: for another dtype or shape.
        """
        check_images(images, channels=(1,))
        if images.shape[2:] != (28, 28):
            raise ValueError(
                f"{self.name} takes images of 28 x 28 pixels, got {tuple(images.shape)}"
            )
        return in_micro_batches(images, self.micro_batch, self._features, self._device)

    @torch.no_grad()
    def logits(self, features: Tensor) -> Tensor:
        """(n, 10) float32 of the classes, from (n, 64) features."""
        with strict_float32(self._device), strict_products():
            found: Tensor = self._net.head(features.to(self._device, torch.float32))
        return found

    def _features(self, images: Tensor) -> Tensor:
        with strict_float32(self._device), strict_products():
            return self._net.features(to_signed(images))


class PixelExtractor:
    """The pixels themselves, in [-1, 1]: for tests of everything around an extractor.

    Args:
        shape: (c, h, w) of the images.
        device: where the features go.
    """

    comparable = False
    bound = 1.0
    scale = 2.0**16  # many pixels lie at the bound: a finer scale would overflow at 115,000 images

    def __init__(self, shape: tuple[int, int, int], device: str = "cpu") -> None:
        c, h, w = self._shape = shape
        self.dim = c * h * w
        self.name = f"pixels:{c}x{h}x{w}"
        self.fingerprint = digest([self.name])  # it has no weights
        self._device = torch.device(device)

    def __call__(self, images: Tensor) -> Tensor:
        """float32 (n, c h w) pixels of uint8 images (n, c, h, w).

        Raises:
            TypeError, ValueError: for another dtype or shape.
        """
        check_images(images, channels=self._shape[:1])
        if images.shape[1:] != self._shape:
            raise ValueError(f"{self.name} cannot take images of shape {tuple(images.shape)}")
        return to_signed(images.to(self._device)).flatten(1)
