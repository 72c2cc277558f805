"""Scores sets of samples against a reference."""

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fewstep.eval.common.cache import digest
from fewstep.eval.images.arrays import holds_images
from fewstep.eval.images.files import OnError
from fewstep.eval.images.make_reference import BATCH, Progress, check_batch, make_reference
from fewstep.eval.images.samples import Samples
from fewstep.eval.images.sources import BUNDLED, open_images
from fewstep.eval.metrics.extrapolation import smallest_count
from fewstep.eval.metrics.manifold import K
from fewstep.eval.metrics.moments import ExactMoments
from fewstep.eval.metrics.references import BUNDLED as BUNDLED_REFERENCES
from fewstep.eval.metrics.references import FEATURES, Reference, load_reference
from fewstep.eval.metrics.scores import SetScores, needs_features
from fewstep.eval.metrics.spread import deviation
from fewstep.eval.metrics.statistics_files import load_statistics
from fewstep.eval.networks.extractors import Extractor
from fewstep.eval.reports.titles import feature_title

DEFAULT_EXTRACTOR = "inception:edm"


@dataclass(frozen=True)
class SetScore:
    """What a set of samples, or one of its parts, scored.

    Attributes:
        samples: name of the whole set.
        first: index there of the first sample.
        n: how many.
        samples_hash: of the images of the whole set.
        statistics_hash: SHA-256 of the exact sums of these n.
        metrics: by key, see :class:`SetScores`.
        replicates: the same without some of the samples each, see
        :mod:`fewstep.eval.metrics.spread`.
    """

    samples: str
    first: int
    n: int
    samples_hash: str
    statistics_hash: str
    metrics: dict[str, float]
    replicates: dict[str, list[float]] = field(default_factory=dict)

    def table(self) -> dict[str, Any]:
        """The fields by name, of which one can see whether two sets are the same."""
        return {name: value for name, value in asdict(self).items() if name != "replicates"}

    @property
    def spread(self) -> dict[str, float]:
        """By key, the standard deviation of a score from one set of as many samples to another."""
        return {key: deviation(values) for key, values in self.replicates.items()}


def calculate(
    samples: Samples,
    reference: Reference,
    *,
    metrics: Sequence[str] = ("fd",),
    repeats: int = 1,
    batch: int = BATCH,
    progress: Progress | None = None,
) -> list[SetScore]:
    """Scores a set, or each of ``repeats`` consecutive parts of equal size, in one pass.

    Args:
        samples: of the extractor that the reference is of.
        reference: what to compare with.
        metrics: of ``METRIC_CHOICES``.
        repeats: in how many parts; their number divides that of the samples.
        batch: images at a time; nothing in the result depends on it.
        progress: told how far it is.

    Raises:
        ValueError: before any network runs, for a value outside these, or too few samples.
    """
    check_batch(batch)
    size = _part_size(samples, repeats)
    _check_counts(samples, size, metrics, reference)
    if samples.sums is not None:
        scores = SetScores(samples.extractor, reference, metrics)
        scores.add_sums(samples.sums)
        return [_score(samples, 0, scores)]
    found: list[SetScores] = []
    done = 0
    for rows in samples.features(batch):
        while len(rows):
            if done % size == 0:
                found.append(SetScores(samples.extractor, reference, metrics, size))
            taken = rows[: size - done % size]
            found[-1].add(taken)
            done += len(taken)
            rows = rows[len(taken) :]
        if progress is not None:
            progress(done, samples.n)
    return [_score(samples, part * size, scores) for part, scores in enumerate(found)]


def _score(samples: Samples, first: int, scores: SetScores) -> SetScore:
    return SetScore(
        samples.name, first, scores.n, samples.hash(), statistics_hash(scores.sums),
        scores.result(), scores.replicates(),
    )  # fmt: skip


def statistics_hash(moments: ExactMoments) -> str:
    """SHA-256 of exact sums: of integers, so that it is equal or the features were others."""
    state = moments.state()
    return digest([state[name] for name in ("n", "sums", "products")])


def column_title(extractor: Extractor, key: str, n: int) -> str:
    """A metric with the number of samples that it was taken from: ``FID-50k``, ``KID-10k``."""
    return feature_title(key, n, extractor.name, comparable=extractor.comparable)


def extractor_for(ref: str) -> str:
    """The extractor to use with a reference, if the user named none."""
    if ref in BUNDLED_REFERENCES:
        return BUNDLED_REFERENCES[ref]
    if not _is_statistics(Path(ref)):
        return DEFAULT_EXTRACTOR
    return load_statistics(ref).extractor or DEFAULT_EXTRACTOR


def find_reference(
    ref: str,
    extractor: Extractor,
    *,
    metrics: Sequence[str] = ("fd",),
    batch: int = BATCH,
    on_error: OnError = "raise",
    progress: Progress | None = None,
) -> Reference:
    """The reference of a name: a file of statistics, the bundled one, or made of images.

    Args:
        ref: a file .npz or .pkl of statistics; ``fashion``; or images, see ``open_images``.
        extractor: that the samples go through.
        metrics: that will be asked for.
        batch, on_error, progress: for images.

    Raises:
        FileNotFoundError, ValueError: as ``load_reference`` or ``open_images``.
    """
    wanted = needs_features(metrics)
    if BUNDLED_REFERENCES.get(ref) == extractor.name or _is_statistics(Path(ref)):
        return load_reference(ref, extractor, features=wanted)
    images = open_images(ref, on_error=on_error)
    if images.skipped:
        warnings.warn(
            f"{ref}: {len(images.skipped)} files left out, the first {images.skipped[0]}",
            stacklevel=2,
        )
    features = FEATURES if wanted else 0
    return make_reference(images, extractor, features=features, batch=batch, progress=progress)


def _is_statistics(path: Path) -> bool:
    suffix = path.suffix.lower()
    if str(path) == BUNDLED or path.is_dir() or suffix not in (".npz", ".pkl", ".pickle"):
        return False
    if not path.is_file():
        raise FileNotFoundError(
            f"no reference {path}; make one by `fewstep ref DATA -o {path}`, or use fashion"
        )
    return suffix != ".npz" or not holds_images(path)


def _part_size(samples: Samples, repeats: int) -> int:
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    if samples.sums is not None and repeats > 1:
        raise ValueError(f"{samples.name} keeps one sum of all its samples; leave out --repeats")
    if samples.n % repeats:
        raise ValueError(
            f"the {samples.n} samples of {samples.name} make no {repeats} equal parts; use --num "
            f"{samples.n // repeats * repeats}"
        )
    return samples.n // repeats


def _check_counts(samples: Samples, n: int, metrics: Sequence[str], reference: Reference) -> None:
    SetScores(samples.extractor, reference, metrics)  # raises for metrics that it does not know
    real = 0 if reference.features is None else len(reference.features)
    dim = samples.extractor.dim
    least = {"fd": 2, "kid": 2, "prdc": K + 1, "sw2": 2, "fd_infinity": smallest_count(dim)}
    for metric in metrics:
        there = min(n, real) if needs_features([metric]) else n
        if there < least[metric]:
            whose = f"{samples.name} has" if there == n else "the reference has features of"
            raise ValueError(
                f"{metric} needs at least {least[metric]} samples of {dim} features, {whose} "
                f"{there}; use more, or leave {metric} out"
            )
