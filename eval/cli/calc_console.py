"""What the commands about sets of images share: which extractor they use, and who is left out."""

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from fewstep.eval.common.processes import resolve_device
from fewstep.eval.common.text import print_line
from fewstep.eval.images.files import OnError
from fewstep.eval.images.make_reference import check_batch
from fewstep.eval.networks.extractors import Extractor
from fewstep.eval.networks.families import load_extractor


@dataclass(frozen=True)
class Use:
    """How images become features.

    Attributes:
        extractor: a name; by the reference if None.
        weights: of the extractor, or None for the usual ones.
        batch: images at a time.
        device: ``auto`` or a torch device.
        on_error: what to do about files that cannot be used.
    """

    extractor: str | None
    weights: Path | None
    batch: int
    device: str
    on_error: OnError

    def __post_init__(self) -> None:
        check_batch(self.batch)
        if self.on_error not in get_args(OnError):
            raise ValueError(f"on-error must be raise or skip, got {self.on_error!r}")

    def load(self, name: str) -> Extractor:
        """The extractor, before anything else is looked at."""
        return load_extractor(self.extractor or name, resolve_device(self.device), self.weights)


def tell_of_skipped(name: str, skipped: tuple[str, ...]) -> None:
    if skipped:
        print_line(f"{name}: {len(skipped)} files left out, the first {skipped[0]}", stderr=True)
