"""How far two sets of images that were made from the same seeds are apart."""

import math
from dataclasses import dataclass
from pathlib import Path

from fewstep.eval.common.image_sets import ImageSet
from fewstep.eval.generate.seeds import read_seeds, seeds_text
from fewstep.eval.generate.shards import ShardFolder
from fewstep.eval.images.make_reference import BATCH
from fewstep.eval.images.sources import is_generated


@dataclass(frozen=True)
class Difference:
    """Of pairs of 8-bit images.

    Attributes:
        n: how many pairs.
        rmse: root mean square difference over pixels, in units where black is -1 and white is 1.
    """

    n: int
    rmse: float

    @property
    def psnr(self) -> float:
        """20 log10(2 / rmse) in decibels, of the mean over all images; inf of equal ones."""
        return 20 * math.log10(2 / self.rmse) if self.rmse else math.inf


def paired_difference(first: ImageSet, second: ImageSet, batch: int = BATCH) -> Difference:
    """Compares image i with image i; exact sums, so that ``batch`` does not matter.

    Raises:
        ValueError: for sets of different numbers or shapes, or generated from other seeds.
    """
    for what, one, other in (
        ("images", first.n, second.n), ("shape", first.shape, second.shape),
        ("seeds", _seeds(first), _seeds(second)),
    ):  # fmt: skip
        if one != other and None not in (one, other):
            raise ValueError(
                f"{first.name} and {second.name} make no pairs: {what} {one} and {other}; generate "
                "both with the same --seeds, or use --num"
            )
    total = 0
    for x, y in zip(first.batches(batch), second.batches(batch), strict=True):
        total += int((x.long() - y.long()).square().sum())
    return Difference(first.n, math.sqrt(total / first.n / math.prod(first.shape)) / 127.5)


def _seeds(images: ImageSet) -> str | None:
    """The seeds of a folder of ``fewstep gen``; None of files."""
    folder = Path(images.name)
    if not is_generated(folder):
        return None
    return seeds_text(read_seeds(ShardFolder(folder).config()["seeds"])[: images.n])
