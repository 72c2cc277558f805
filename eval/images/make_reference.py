"""Statistics of a set of images, and a sample of its features, for others to be compared with."""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from fewstep.eval.common.image_sets import ImageSet, SetHash
from fewstep.eval.common.limits import MAX_BATCH, check_seed
from fewstep.eval.metrics.moments import ExactMoments
from fewstep.eval.metrics.references import FEATURES, Reference, subset
from fewstep.eval.metrics.statistics_files import FeatureStatistics
from fewstep.eval.networks.extractors import Extractor
from fewstep.schedules.limits import at_most

BATCH = 64
Progress = Callable[[int, int], None]  # (images done, images in total)


def make_reference(
    images: ImageSet,
    extractor: Extractor,
    *,
    features: int = FEATURES,
    seed: int = 0,
    batch: int = BATCH,
    progress: Progress | None = None,
) -> Reference:
    """Exact statistics of all images, and features of some; memory does not grow with their number.

    Args:
        images: n >= 2 of them.
        extractor: of the features.
        features: how many to keep for KID, precision, recall and the sliced distance; 0 for none.
        seed: of the choice of these.
        batch: images at a time, >= 1; nothing in the result depends on it.
        progress: told how far it is.

    Raises:
        ValueError: for fewer than two images, or a value outside these ranges.
        TypeError, ValueError: for images that the extractor does not take.
    """
    check_batch(batch)
    check_seed(seed)
    if features < 0:
        raise ValueError(f"features must be at least 0, got {features}; 0 keeps none")
    if images.n < 2:
        raise ValueError(f"{images.name} has 1 image; statistics need at least 2")
    moments = ExactMoments(extractor.dim, extractor.scale, extractor.bound)
    content, kept = SetHash(images.shape), list[Tensor]()
    chosen = torch.zeros(images.n, dtype=torch.bool)
    chosen[subset(images.n, features, seed)] = True
    done = 0
    for pixels, rows in featured(images, extractor, batch):
        content.add(pixels)
        moments.add(rows)
        kept.append(rows[chosen[done : done + len(rows)]])
        done += len(rows)
        if progress is not None:
            progress(done, images.n)
    mu, sigma, n = moments.result()
    family, _, variant = extractor.name.partition(":")
    known = FeatureStatistics(
        mu.numpy(), sigma.numpy(), n,
        protocol=variant if family == "inception" else None, extractor=extractor.name,
        weights_sha256=extractor.fingerprint, dataset_hash=content.hexdigest(),
    )  # fmt: skip
    return Reference(known, torch.cat(kept) if features else None, Path(images.name).name)


def featured(images: ImageSet, extractor: Extractor, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Images and their float32 features on the CPU, ``batch`` at a time."""
    for pixels in images.batches(batch):
        yield pixels, extractor(pixels).float().cpu()


def check_batch(batch: int) -> None:
    """Raises ValueError for a batch of none."""
    if batch < 1:
        raise ValueError(f"batch must be at least 1 image, got {batch}")
    at_most("batch, the images at a time,", batch, MAX_BATCH)
