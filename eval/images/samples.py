"""Features of generated samples: of image files, or of what ``fewstep gen`` kept."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from fewstep.eval.common.image_sets import ImageSet, SetHash, check_count
from fewstep.eval.generate.collected import statistics, unit_features
from fewstep.eval.generate.seeds import read_seeds
from fewstep.eval.generate.shards import ShardFolder
from fewstep.eval.generate.verification import verify
from fewstep.eval.images.files import OnError
from fewstep.eval.images.make_reference import featured
from fewstep.eval.images.sources import BUNDLED, is_generated, open_images
from fewstep.eval.metrics.moments import ExactMoments
from fewstep.eval.networks.extractors import Extractor


class Samples(ABC):
    """A set of samples, looked through and not yet read.

    Attributes:
        name: as the user gave it.
        n: how many.
        folder: of ``fewstep gen``, if it is one.
        skipped: files that cannot be used, and why.
        extractor: of the features.
    """

    name: str
    n: int
    folder: Path | None = None
    skipped: tuple[str, ...] = ()
    extractor: Extractor

    @property
    def sums(self) -> ExactMoments | None:
        """Of the features, where nothing else was kept."""
        return None

    @abstractmethod
    def features(self, batch: int) -> Iterator[Tensor]:
        """float32 (k, dim) in order, on the CPU; images are taken ``batch`` at a time."""

    @abstractmethod
    def hash(self) -> str:
        """SHA-256 of the images; of files, after they were read."""


def open_samples(
    source: str | Path,
    extractor: Extractor,
    *,
    num: int | None = None,
    on_error: OnError = "raise",
) -> Samples:
    """The samples of a name, see :func:`fewstep.eval.images.sources.open_images`.

    Folders of ``fewstep gen`` need no images where they have features of this extractor.

    Raises:
        FileNotFoundError, ValueError: as ``open_images``; or if a folder is not complete, or holds
            nothing but features of another extractor.
    """
    if str(source) != BUNDLED and is_generated(Path(source)):
        return _Generated(Path(source), extractor, num)
    return _Files(open_images(source, num=num, on_error=on_error), extractor)


class _Files(Samples):
    def __init__(self, images: ImageSet, extractor: Extractor) -> None:
        self.name, self.n, self.skipped = images.name, images.n, images.skipped
        self.extractor, self._images = extractor, images
        self._content = SetHash(images.shape)

    def features(self, batch: int) -> Iterator[Tensor]:
        self._content = SetHash(self._images.shape)
        for pixels, rows in featured(self._images, self.extractor, batch):
            self._content.add(pixels)
            yield rows

    def hash(self) -> str:
        return self._content.hexdigest()


class _Generated(Samples):
    def __init__(self, folder: Path, extractor: Extractor, num: int | None) -> None:
        self.name, self.folder, self.extractor = str(folder), folder, extractor
        config = ShardFolder(folder).config()
        total = len(read_seeds(config["seeds"]))
        self.n = check_count(self.name, total, num)
        found = verify(folder)
        if found.hash is None:
            raise ValueError(
                f"{folder} lacks {len(found.missing)} of its units; generate the rest first: the "
                "same fewstep gen goes on where it ended"
            )
        self._hash = found.hash
        self._sums = statistics(folder, extractor) if config["keep"] == "none" else None
        if self._sums is not None and self.n < total:
            raise ValueError(f"{folder} keeps sums of all {total} samples; leave out --num")

    @property
    def sums(self) -> ExactMoments | None:
        return self._sums

    def features(self, batch: int) -> Iterator[Tensor]:
        left = self.n
        for rows in unit_features(self.name, self.extractor):
            yield rows[:left]
            left -= len(rows)
            if left <= 0:
                return

    def hash(self) -> str:
        return self._hash
