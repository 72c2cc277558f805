"""The families of feature extractors by name; networks are imported when one is made.

To add a family, put a function into :data:`EXTRACTORS` that makes an
:class:`~fewstep.eval.networks.extractors.Extractor`. The first line of its docstring is what
``fewstep list`` says.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fewstep.eval.networks.extractors import Extractor


def _inception(variant: str, device: str, weights: Path | None) -> "Extractor":
    """FID's Inception network; variants edm (default), pytorch-fid, clean: how images are resized.

    Its weights (91 MiB) are not part of fewstep, and its packages are those of the extra ``fid``.
    """
    from fewstep.eval.networks.inception import InceptionExtractor

    return InceptionExtractor(variant or "edm", device, weights)


def _fd_cnn(variant: str, device: str, weights: Path | None) -> "Extractor":
    """The bundled classifier of Fashion-MNIST, as fd-cnn:fashion; its distance is not an FID."""
    from fewstep.eval.networks.extractors import FashionExtractor

    _refuse_weights("fd-cnn", weights)
    if variant != "fashion":
        raise ValueError(f"fd-cnn has a classifier of fashion only, got {variant!r}")
    return FashionExtractor(device)


def _pixels(variant: str, device: str, weights: Path | None) -> "Extractor":
    """The pixels themselves, as pixels:CxHxW; for tests of what is around an extractor."""
    from fewstep.eval.networks.extractors import PixelExtractor

    _refuse_weights("pixels", weights)
    sizes = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)", variant)
    if sizes is None:
        raise ValueError(
            f"pixels needs the shape of the images, as in pixels:3x32x32; got {variant!r}"
        )
    c, h, w = map(int, sizes.groups())
    return PixelExtractor((c, h, w), device)


def _refuse_weights(family: str, weights: Path | None) -> None:
    if weights is not None:
        raise ValueError(f"{family} has no weights of its own to choose, got {weights}")


# By family; called with the variant (maybe empty), the device, and the weights that the user named.
EXTRACTORS: "dict[str, Callable[[str, str, Path | None], Extractor]]" = {
    "inception": _inception,
    "fd-cnn": _fd_cnn,
    "pixels": _pixels,
}


def load_extractor(name: str, device: str = "cpu", weights: Path | None = None) -> "Extractor":
    """The extractor of a name, ready to use: whatever it needs is found here or not at all.

    Args:
        name: ``inception`` (that is ``inception:edm``), ``inception:pytorch-fid``,
            ``inception:clean``, ``fd-cnn:fashion`` or ``pixels:CxHxW``.
        device: where it works.
        weights: a file to use, for ``inception``; searched for if None.

    Raises:
        ValueError: for an unknown name.
        ExtractorUnavailableError: if its package or its weights cannot be had (exit status 3).
    """
    family, _, variant = name.partition(":")
    if family not in EXTRACTORS:
        raise ValueError(f"unknown extractor {name!r}; known families: {', '.join(EXTRACTORS)}")
    return EXTRACTORS[family](variant, device, weights)
