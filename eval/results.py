"""The results of a benchmark, and how they are kept on disk."""

import csv
import io
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

SCHEMA = 1
# name in results -> (title, direction of better, format)
METRICS: dict[str, tuple[str, str, str]] = {
    "rmse": ("RMSE to the reference", "lower", ".4f"),
    "feature_rmse": ("Feature RMSE to the reference", "lower", ".3f"),
    "fd_fashion": ("FD-fashion", "lower", ".3f"),
    "accuracy": ("Class accuracy", "higher", ".3f"),
}
PEER_PREFIX = "diffusers:"


@dataclass(frozen=True)
class Row:
    """One sampler at one number of calls.

    Attributes:
        sampler: a spec, the file name of a saved plan, or a peer.
        nfe: network calls asked for.
        calls: network calls counted, the mean over batches where the solver chooses.
        seed, n, problem, guidance: what was drawn.
        metrics: values by name, see ``METRICS``.
        seconds: for all n samples, without warm-up.
    """

    sampler: str
    nfe: int
    calls: int | float
    seed: int
    n: int
    problem: str
    guidance: str
    metrics: dict[str, float]
    seconds: float


@dataclass
class Results:
    """Rows, the environment, and the first images of each sampler for a look.

    Attributes:
        env: versions, device, and the reference's own scores under ``reference`` and ``floor``.
        rows: in the order they were asked for.
        images: the first samples by (sampler, nfe), in [-1, 1]; empty unless they are images.
        reference_images: the same samples of the reference.
    """

    env: dict[str, Any]
    rows: list[Row]
    images: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    reference_images: Tensor | None = None

    def to_json(self) -> str:
        table = {"schema": SCHEMA, "env": self.env, "rows": [vars(row) for row in self.rows]}
        return json.dumps(table, indent=1, allow_nan=False)

    def to_csv(self) -> str:
        """A column for each metric that any row has."""
        names = [m for m in METRICS if any(m in row.metrics for row in self.rows)]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        fixed = ["sampler", "nfe", "calls", "seed", "n", "problem", "guidance"]
        writer.writerow([*fixed, *names, "seconds"])
        for row in self.rows:
            values = [row.metrics.get(name, "") for name in names]
            writer.writerow([*(getattr(row, key) for key in fixed), *values, f"{row.seconds:.4f}"])
        return text.getvalue()

    def metric(self, name: str) -> dict[str, dict[int, float]]:
        """Values of a metric by sampler and calls asked for."""
        found: dict[str, dict[int, float]] = {}
        for row in self.rows:
            if name in row.metrics:
                found.setdefault(row.sampler, {})[row.nfe] = row.metrics[name]
        return found


def check_writable(folder: Path) -> None:
    """Makes the folder and proves that files can be written there.

    Raises:
        ValueError: in one line, if not.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"cannot write to {folder} ({error.strerror}); choose another folder"
        ) from error


@contextmanager
def all_or_nothing(folder: Path) -> Iterator[Path]:
    """A scratch folder whose files move into ``folder`` when the block ends without an error."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unfinished-") as name:
        scratch = Path(name)
        yield scratch
        for path in sorted(scratch.iterdir()):
            os.replace(path, folder / path.name)
