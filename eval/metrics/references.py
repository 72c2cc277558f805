"""What sets of samples are compared with: statistics of real features, and some of the features.

Statistics are enough for a Frechet distance. KID, precision, recall and the sliced distance need
features: of 10,000 real samples, by ADM's convention, which a file of ours may hold.
"""

from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewstep.eval.common.cache import cached, digest
from fewstep.eval.common.source_code import code_digest, function_text
from fewstep.eval.metrics.frechet import FrechetReference
from fewstep.eval.metrics.statistics_files import (
    FeatureStatistics,
    load_features,
    load_npz,
    load_statistics,
    save_npz,
)
from fewstep.eval.networks.extractors import Extractor
from fewstep.models.data import REMEDY, fashion_folder, load_fashion

FEATURES = 10_000  # of a reference, at most
BUNDLED = {"fashion": "fd-cnn:fashion"}  # name of a reference, and its extractor


@dataclass(frozen=True, eq=False)
class Reference:
    """Statistics of real features, and maybe a sample of them.

    Args:
        statistics: of all of them.
        features: (k, d) of k samples drawn from them, or None.
        name: for reports: its file or bundled name.

    Raises:
        ValueError: if the features are of another size than the statistics.
    """

    statistics: FeatureStatistics
    features: Tensor | None = field(default=None, repr=False)
    name: str = ""

    def __post_init__(self) -> None:
        if self.features is not None and self.features.shape[1:] != self.statistics.mu.shape:
            raise ValueError(
                f"features of a reference must be (k, {self.dim}), got "
                f"{tuple(self.features.shape)}; take both from one extractor"
            )

    @property
    def dim(self) -> int:
        """Size of a feature."""
        return len(self.statistics.mu)

    @cached_property
    def frechet(self) -> FrechetReference:
        """What measures Frechet distances from it; its factor is computed once."""
        return FrechetReference(self.statistics.mu, self.statistics.sigma)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the mean and covariance."""
        return digest(map(torch.from_numpy, (self.statistics.mu, self.statistics.sigma)))

    def describe(self) -> dict[str, Any]:
        """What is known of it, for reports; a row of numbers is comparable with the same only."""
        known = self.statistics
        facts = {
            "name": self.name or None,
            "hash": self.hash,
            "extractor": known.extractor,
            "protocol": known.protocol,
            "weights_sha256": known.weights_sha256,
            "dataset_hash": known.dataset_hash,
            "n": known.n,
            "features": None if self.features is None else len(self.features),
        }
        return {key: value for key, value in facts.items() if value is not None}


def load_reference(name: str | Path, extractor: Extractor, *, features: bool = False) -> Reference:
    """The reference of a name, checked to be of this extractor.

    Args:
        name: a file .npz or .pkl (see :mod:`fewstep.eval.metrics.statistics_files`), or the bundled
            ``fashion``: the 60,000 training images in ``fd-cnn:fashion``.
        extractor: that the samples go through.
        features: whether a metric needs them (``scores.needs_features``). The bundled reference
            has none in its file: they are computed of 10,000 training images, where those are.

    Raises:
        FileNotFoundError: no such file, or no dataset to compute features of.
        ValueError: in one line: a file that is no statistics, of another extractor or other
            weights, or without the features that are needed.
    """
    if str(name) in BUNDLED:
        reference = _bundled(str(name), extractor, features)
    else:
        reference = _from_file(Path(name))
    _check_extractor(reference, extractor)
    if features:
        check_features(reference)
    return reference


def save_reference(reference: Reference, path: str | Path) -> None:
    """Writes an .npz that :func:`load_reference` and the other harnesses read.

    Raises:
        ValueError: if ``path`` does not end in .npz.
    """
    real = reference.features
    save_npz(reference.statistics, path, None if real is None else real.cpu().numpy())


def subset(n: int, k: int = FEATURES, seed: int = 0) -> Tensor:
    """(min(n, k),) indices of a seeded random subset of n samples, ascending, without repeats."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(n, generator=generator)[:k].sort().values


def check_features(reference: Reference) -> None:
    """Passes a reference that has features.

    Raises:
        ValueError: for another.
    """
    if reference.features is None:
        raise ValueError(
            f"reference {reference.name or reference.hash[:8]} has no features, which kid, prdc "
            f"and sw2 need; make one by `fewstep ref DATA -o ref.npz --features {FEATURES}`"
        )


def _bundled(name: str, extractor: Extractor, with_features: bool) -> Reference:
    if extractor.name != BUNDLED[name]:
        raise ValueError(
            f"the bundled reference {name} is of {BUNDLED[name]}, not of {extractor.name}; make "
            "one by `fewstep ref DATA -o ref.npz`"
        )
    path = files("fewstep.eval") / "data" / "fashion_stats.npz"
    features = _fashion_features(extractor) if with_features else None
    return Reference(load_npz(Path(str(path))), features, name)


def _fashion_features(extractor: Extractor) -> Tensor:
    """Of a seeded 10,000 of the training images; the test features in the file are not theirs."""

    def compute() -> Tensor:
        try:
            fashion_folder(download=False)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                "the bundled reference fashion needs the training images for kid, prdc and sw2; "
                f"{REMEDY}, or leave those metrics out"
            ) from error
        images, _ = load_fashion("train")
        return extractor(images[subset(len(images))]).cpu()

    code = digest([code_digest(extractor, load_fashion), function_text(subset)])
    key = f"fashion-features-{extractor.fingerprint[:24]}-{FEATURES}-{code[:24]}"
    return cached(key, compute)


def _from_file(path: Path) -> Reference:
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no reference {path}; give an .npz or .pkl of statistics, or one of the "
            f"bundled names: {', '.join(BUNDLED)}"
        )
    features = load_features(path)
    real = None if features is None else torch.from_numpy(features)
    return Reference(load_statistics(path), real, path.name)


def _check_extractor(reference: Reference, extractor: Extractor) -> None:
    """Files of other harnesses know nothing but the size."""
    known, where = reference.statistics, f"reference {reference.name}"
    remedy = "make one by `fewstep ref DATA -o ref.npz` with this extractor"
    if reference.dim != extractor.dim:
        raise ValueError(
            f"{where} has features of size {reference.dim}, {extractor.name} of {extractor.dim}; "
            f"{remedy}"
        )
    if known.extractor not in (None, extractor.name):
        raise ValueError(f"{where} is of {known.extractor}, not of {extractor.name}; {remedy}")
    if known.weights_sha256 not in (None, extractor.fingerprint):
        raise ValueError(
            f"{where} was made with weights {str(known.weights_sha256)[:8]}, {extractor.name} has "
            f"{extractor.fingerprint[:8]}; {remedy}"
        )
