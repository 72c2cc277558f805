"""The results of a benchmark, as ``results.json`` and ``results.csv`` have them.

:mod:`fewstep.eval.reports.lines` keeps them in ``results.jsonl``, which all else is made from.
"""

import csv
import io
import json
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from fewstep.eval.reports.thumbnails import Pixels


SCHEMA = 2  # 1 had one guidance, and neither forward rows nor other costs
# name in results -> (title, direction of better, format); titles.py adds the number of samples
METRICS: dict[str, tuple[str, str, str]] = {
    "rmse": ("RMSE to the reference", "lower", ".4f"),
    "feature_rmse": ("Feature RMSE to the reference", "lower", ".3f"),
    "fid": ("FID", "lower", ".3f"),
    "fd_fashion": ("FD-fashion", "lower", ".3f"),
    "fd": ("FD", "lower", ".4g"),
    "fd_infinity": ("FD-infinity", "lower", ".3f"),
    "kid": ("KID", "lower", ".5f"),
    "sw2": ("Sliced W2", "lower", ".4f"),
    "w2_gauss": ("Gaussian W2", "lower", ".4f"),
    "mmd2": ("Squared MMD", "lower", ".5f"),
    "precision": ("Precision", "higher", ".3f"),
    "recall": ("Recall", "higher", ".3f"),
    "density": ("Density", "higher", ".3f"),
    "coverage": ("Coverage", "higher", ".3f"),
    "accuracy": ("Class accuracy", "higher", ".3f"),
}
PEER_PREFIX = "diffusers:"
EXTRA_COSTS = ("backward_rows", "classifier_rows")
# Left out of files where there is none.
OPTIONAL = (*EXTRA_COSTS, "seconds_by", "peak_memory", "seeds", "replicates", "seconds_each")
PARTS = ("replicates", "seconds_each")  # many numbers each, which only ``results.jsonl`` has
# Guidance, sampler, network calls, and seeds where rows have them.
ImageKey = tuple[str, str, int, str]


def metric_entry(name: str) -> tuple[str, str, str]:
    """Title, direction of better and format of a metric; distances may have names of their own."""
    return METRICS.get(name, (name, "lower", ".4g"))


@dataclass(frozen=True)
class Row:
    """One sampler at one number of calls. Rows that differ in their seed only are repeats.

    Attributes:
        sampler: a spec, the file name of a saved plan, or a peer.
        nfe: network calls asked for.
        calls: network calls counted, the mean over batches where the solver chooses.
        rows: forward rows of networks for each sample, those of weak models included.
        seed, n, problem, guidance: what was drawn.
        metrics: values by name, see ``METRICS``.
        seconds: for all n samples, without warm-up.
        backward_rows: rows differentiated through the network, for each sample.
        classifier_rows: forward passes of classifiers, for each sample.
        seconds_by: seconds of each phase, such as ``network`` and ``features``.
        peak_memory: the largest use in bytes; 0 if unknown.
        seeds: of the samples, one each, as in ``0-63``; empty if ``seed`` and the place of a sample
            tell its start.
        replicates: of metrics, the values without some of the samples each, the same ones in all
            rows of these seeds, see :mod:`fewstep.eval.metrics.spread`.
        seconds_each: seconds per image of each unit of samples, which every sampler of the run took
            in turn, so that they were timed side by side; empty of runs on their own.
    """

    sampler: str
    nfe: int
    calls: int | float
    rows: int | float
    seed: int
    n: int
    problem: str
    guidance: str
    metrics: dict[str, float]
    seconds: float
    backward_rows: int | float = 0
    classifier_rows: int | float = 0
    seconds_by: dict[str, float] = field(default_factory=dict)
    peak_memory: int = 0
    seeds: str = ""
    replicates: dict[str, list[float]] = field(default_factory=dict)
    seconds_each: list[float] = field(default_factory=list)

    @property
    def starts(self) -> str:
        """What tells the starting noise of its samples from that of other rows."""
        return self.seeds or str(self.seed)

    def table(self) -> dict[str, Any]:
        """The fields by name, without optional ones that hold nothing."""
        return {k: v for k, v in vars(self).items() if v or k not in OPTIONAL}


@dataclass
class Results:
    """Rows, the environment, and the first images of each sampler for a look.

    Attributes:
        env: versions, device, the references' own scores by guidance under ``reference``, and those
            of real images under ``floor``.
        rows: in the order they were asked for: by guidance, sampler and calls.
        images: the first samples by (guidance, sampler, nfe, seeds of the row), (n, c, h, w) in
            [-1, 1]; empty unless they are images. Those of a file are arrays, which need no torch.
        labels: the names of the classes that those samples were asked for, by the same key; none
            where there are no classes.
        reference_images: the same samples of the references, by guidance.
        settings: what was asked for, resolved; only plain values.
        run: the name of the run in its ``results.jsonl``; empty before it is there.
        started: ISO 8601; empty if unknown.
        part: which of several parts, from 1, see :mod:`fewstep.eval.reports.parts`; 0 of a whole.
    """

    env: dict[str, Any]
    rows: list[Row]
    images: "dict[ImageKey, Tensor | Pixels]" = field(default_factory=dict)
    reference_images: "dict[str, Tensor | Pixels]" = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    run: str = ""
    started: str = ""
    labels: dict[ImageKey, tuple[str, ...]] = field(default_factory=dict)
    part: int = 0

    def to_json(self) -> str:
        rows = [
            {key: value for key, value in row.table().items() if key not in PARTS}
            for row in self.rows
        ]
        table = {"schema": SCHEMA, "env": self.env, "rows": rows}
        return json.dumps(table, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "Results":
        """What :meth:`to_json` wrote, now or in schema 1; without images and parts.

        Raises:
            ValueError: for another schema.
        """
        table = json.loads(text)
        if table.get("schema") not in (1, SCHEMA):
            raise ValueError(f"results of schema {table.get('schema')!r}; known: 1 and {SCHEMA}")
        env, rows = table["env"], table["rows"]
        if table["schema"] == 1:
            rows = [{"rows": _old_rows(row), **row} for row in rows]
            if "reference" in env:
                env["reference"] = {rows[0]["guidance"]: env["reference"]}
        return cls(env, [Row(**row) for row in rows])

    @property
    def is_side_by_side(self) -> bool:
        """Whether all samplers took turns in one run, so that their times may be compared."""
        return not {"calc", "merged"} & self.settings.keys()

    @property
    def guidance(self) -> list[str]:
        """Every guidance that was run, in order."""
        return list(dict.fromkeys(row.guidance for row in self.rows))

    @property
    def metrics(self) -> list[str]:
        """The names of every metric that any row has, known ones first."""
        found = dict.fromkeys(name for row in self.rows for name in row.metrics)
        return [*(m for m in METRICS if m in found), *(m for m in found if m not in METRICS)]

    def to_csv(self) -> str:
        """A line for each row; a column for each metric, cost and phase that any row has."""
        names = self.metrics
        costs = [name for name in EXTRA_COSTS if any(getattr(row, name) for row in self.rows)]
        phases = list(dict.fromkeys(name for row in self.rows for name in row.seconds_by))
        memory = ["peak_memory"] if any(row.peak_memory for row in self.rows) else []
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        fixed = ["sampler", "nfe", "calls", "rows", *costs, "seed", "n", "problem", "guidance"]
        timed = [f"seconds_{name}" for name in phases]
        writer.writerow([*fixed, *names, "seconds", *timed, *memory])
        for row in self.rows:
            values = [row.metrics.get(name, "") for name in names]
            seconds = [row.seconds, *(row.seconds_by.get(name, 0) for name in phases)]
            extra = [*(f"{s:.4f}" for s in seconds), *(getattr(row, name) for name in memory)]
            writer.writerow([*(getattr(row, key) for key in fixed), *values, *extra])
        return text.getvalue()

    def values(self, name: str, guidance: str | None = None) -> dict[str, dict[int, list[float]]]:
        """Values of a metric over repeats, by sampler and calls, under a guidance (the first)."""
        found: dict[str, dict[int, list[float]]] = {}
        guidance = self.guidance[0] if guidance is None else guidance
        for row in self.rows:
            if row.guidance == guidance and name in row.metrics:
                points = found.setdefault(row.sampler, {})
                points.setdefault(row.nfe, []).append(row.metrics[name])
        return found

    def metric(self, name: str, guidance: str | None = None) -> dict[str, dict[int, float]]:
        """As :meth:`values`, the mean of the repeats."""
        return {
            sampler: {n: statistics.fmean(values) for n, values in points.items()}
            for sampler, points in self.values(name, guidance).items()
        }


def _old_rows(row: dict[str, Any]) -> int | float:
    """Forward rows of a row of schema 1, where ``cfg:SCALE`` was the only guidance."""
    scale = row["guidance"].removeprefix("cfg:")
    calls: int | float = row["calls"]
    return calls if scale == "none" or float(scale) == 1 else 2 * calls
