"""What the commands about sets of images share: which extractor they use, and how they speak."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fewstep.eval.images.files import OnError
from fewstep.eval.images.make_reference import Progress as Told
from fewstep.eval.images.make_reference import check_batch
from fewstep.eval.networks.extractors import Extractor, load_extractor
from fewstep.eval.processes import resolve_device


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
        say(f"{name}: {len(skipped)} files left out, the first {skipped[0]}", stderr=True)


def say(line: str, *, stderr: bool = False) -> None:
    Console(stderr=stderr).print(line, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def bar(text: str) -> Iterator[Told]:
    """A progress bar, on terminals only."""
    errors = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(),
        TextColumn("{task.completed}/{task.total}"), TimeElapsedColumn(), TextColumn("left"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(
        *columns, console=errors, disable=not sys.stderr.isatty(), transient=True
    ) as shown:
        task = shown.add_task(text, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)
