"""What ``fewstep calc`` found out, as a table, as JSON, and as a run for ``fewstep report``."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

import fewstep
from fewstep.eval.common.amounts import short_mean
from fewstep.eval.common.differences import differing
from fewstep.eval.common.durable import write_durably
from fewstep.eval.generate.seeds import read_seeds, seeds_text
from fewstep.eval.generate.shards import ShardFolder
from fewstep.eval.generate.verification import Verification, verify
from fewstep.eval.images.calculate import SetScore, column_title
from fewstep.eval.images.contact_sheet import first_samples
from fewstep.eval.images.recheck import FORMAT, RESULT
from fewstep.eval.metrics.names import comparison_note, metric_key
from fewstep.eval.metrics.references import Reference
from fewstep.eval.metrics.repeats import Summary
from fewstep.eval.metrics.spread import rounded
from fewstep.eval.networks.extractors import Extractor
from fewstep.eval.reports.results import Results, Row, metric_entry
from fewstep.eval.reports.titles import few_samples
from fewstep.models.data import to_signed

SHOWN = 12  # images kept for a look
SPREAD = (
    "± is the standard deviation from one set of so many samples to another, by the jackknife: "
    "smaller differences may be chance"
)
SHARED = ("problem", "fingerprint", "process", "shape", "dtype", "classes")
ANSWERED = ("answers", "decoder")  # which folders of former versions lack


@dataclass(frozen=True)
class Calculation:
    """Scores, and all that they depend on.

    Attributes:
        extractor: of the features.
        reference: what the sets were compared with.
        asked: the options that scores can be had again by: ``ref``, ``metrics``, ``num``,
            ``repeats``, ``on_error``, ``weights``.
        scores: of each set, or of its parts.
        repeats: whether the sets differ in their seeds alone, so that their mean has a meaning.
    """

    extractor: Extractor
    reference: Reference
    asked: dict[str, Any]
    scores: Sequence[SetScore]
    repeats: bool = True

    @property
    def note(self) -> str:
        """Whether some score here may not stand beside a published FID."""
        notes = {comparison_note(self.extractor, score.n) for score in self.scores}
        return max(notes)

    def summaries(self) -> dict[str, Summary]:
        """Each metric over repeats of equal size; nothing for one value, or sets of other kinds."""
        if len(self.scores) < 2 or not self.repeats or len({score.n for score in self.scores}) > 1:
            return {}
        return {key: Summary(score.metrics[key] for score in self.scores) for key in self._keys()}

    def _keys(self) -> list[str]:
        return list(dict.fromkeys(key for score in self.scores for key in score.metrics))

    def facts(self) -> dict[str, Any]:
        """Extractor and reference, as JSON values."""
        extractor = self.extractor
        return {
            "extractor": {
                "name": extractor.name,
                "sha256": extractor.fingerprint,
                "comparable": extractor.comparable,
                "dim": extractor.dim,
            },
            "ref": self.reference.describe(),
        }

    def to_json(self) -> str:
        """Everything there is to know."""
        table = {
            "format": FORMAT, "fewstep": fewstep.__version__, **self.facts(), "note": self.note,
            "asked": self.asked, "sets": [
                score.table() | ({"spread": score.spread} if score.spread else {})
                for score in self.scores
            ],
        }  # fmt: skip
        summary = {
            key: {"values": found.values, "min": found.min, "mean": found.mean, "sd": found.sd}
            for key, found in self.summaries().items()
        }
        return json.dumps(table | ({"summary": summary} if summary else {}), indent=1)

    def table(self) -> Table:
        """For the terminal: a line for each set or part, a column for each metric."""
        sizes = sorted({score.n for score in self.scores})
        table = Table(box=SIMPLE_HEAD)
        table.add_column("samples", no_wrap=True)
        columns = [(key, n) for n in sizes for key in self._keys()]
        for key, n in columns:
            title = column_title(self.extractor, key, n)
            table.add_column(title, justify="right", no_wrap=True)
        for score in self.scores:
            parts = self.asked["repeats"] > 1
            part = f" [{score.first}:{score.first + score.n}]" if parts else ""
            cells = [
                _number(key, score) if n == score.n and key in score.metrics else ""
                for key, n in columns
            ]
            table.add_row(escape(f"{score.samples}{part}"), *cells)
        return table

    def lines(self) -> list[str]:
        """What belongs to the table: the extractor, the reference, and a warning."""
        extractor, reference = self.extractor, self.reference
        of = reference.statistics.n
        lines = [
            f"extractor {extractor.name}, weights {extractor.fingerprint[:8]}; reference "
            f"{reference.name}, {f'{of} samples' if of else 'of unknown size'}, hash "
            f"{reference.hash[:8]}"
        ]
        if any(score.spread for score in self.scores):
            lines.append(SPREAD)
        return [*lines, *self._few(), *([self.note] if self.note else [])]

    def _few(self) -> list[str]:
        """That some sets are too small for a covariance of full rank."""
        sizes = {score.n: score for score in self.scores if score.n <= self.extractor.dim}
        key = metric_key(self.extractor)
        return [
            few_samples(column_title(self.extractor, key, n), n, self.extractor.dim)
            for n, score in sorted(sizes.items())
            if key in score.metrics
        ]

    def summary_lines(self) -> list[str]:
        """All values of each metric with min, mean and sd."""
        n = self.scores[0].n
        return [
            f"{column_title(self.extractor, key, n)}: {found}"
            for key, found in self.summaries().items()
        ]


def save_result(calculation: Calculation, folder: Path) -> None:
    """Writes what a folder of ``fewstep gen`` scored to its ``result.json``, for ``verify``."""
    scores = [score for score in calculation.scores if Path(score.samples) == folder]
    own = Calculation(calculation.extractor, calculation.reference, calculation.asked, scores)
    write_durably(folder / RESULT, (own.to_json() + "\n").encode())


def to_results(calculation: Calculation, folders: Sequence[Path]) -> Results:
    """The scores of folders of ``fewstep gen`` as rows, as a benchmark has them.

    Raises:
        ValueError: if the folders' samples are not of one problem.
    """
    results = Results(_environment(folders) | calculation.facts(), [])
    results.settings = {"calc": calculation.asked}
    names = sampler_names(folders, calculation.asked["num"])
    for folder in folders:
        config, found = ShardFolder(folder).config(), verify(folder)
        rows = [
            replace(_row(config, found, score, _peak_memory(folder)), sampler=names[folder])
            for score in calculation.scores
            if Path(score.samples) == folder
        ]
        results.rows += rows
        if config["keep"] == "images" and len(config["image_shape"]) == 3:
            row, shown = rows[0], first_samples(folder, SHOWN)
            key = (row.guidance, row.sampler, row.nfe, row.seeds)
            results.images[key], results.labels[key] = to_signed(shown.images), shown.names
    return results


def sampler_names(folders: Sequence[Path], num: int | None = None) -> dict[Path, str]:
    """What the sampler of each folder is called in a report.

    That is its name, with the folder's where two of one name are not the same: saved plans may be
    called alike.

    Args:
        folders: of ``fewstep gen``.
        num: how many samples of each count; all if None.

    Raises:
        ValueError: if two folders hold the same samples.
    """
    named: dict[str, dict[Path, Any]] = {}
    for folder in folders:
        config = ShardFolder(folder).config()
        key = json.dumps([config[name] for name in ("guidance", "sampler", "nfe")])
        made_by = [config[name] for name in ("plan", "guidance_models")]
        seeds = set(read_seeds(config["seeds"])[:num])
        for other, (there, theirs) in named.setdefault(key, {}).items():
            if there == made_by and seeds & theirs:
                raise ValueError(
                    f"{other} and {folder} hold samples of the same sampler and the same seeds, "
                    f"{seeds_text(sorted(seeds & theirs))}, which are no repeats: name one of them"
                )
        named[key][folder] = made_by, seeds
    found: dict[Path, str] = {}
    for key, group in named.items():
        differ = len({json.dumps(made_by) for made_by, _ in group.values()}) > 1
        name = str(json.loads(key)[1])
        found |= {folder: f"{name} ({folder.name})" if differ else name for folder in group}
    return found


def check_one_problem(folders: Sequence[Path]) -> dict[str, Any]:
    """The settings of the first folder.

    Raises:
        ValueError: if those of another differ in what samplers must share to be compared.
    """
    first, *others = (ShardFolder(folder).config() for folder in folders)
    for folder, config in zip(folders[1:], others, strict=True):
        for key in SHARED:
            if config[key] != first[key]:
                raise ValueError(
                    f"{folders[0]} and {folder} make no one report: {key} {first[key]} and "
                    f"{config[key]}; keep them in two, by --out"
                )
        known = ({key: one[key] for key in ANSWERED if key in first and key in config}
                 for one in (first, config))  # fmt: skip
        if differing(*known):
            raise ValueError(
                f"{folders[0]} and {folder} make no one report: the model answered fixed noise in "
                "two ways, so something changed in between; keep them in two, by --out"
            )
    return first


def _environment(folders: Sequence[Path]) -> dict[str, Any]:
    """Where the samples were made, and not where they were scored."""
    config = check_one_problem(folders)
    known = ("fewstep", "torch", "device", "threads", "fingerprint")
    on_cpu = str(config["device"]).startswith("cpu")
    return {
        **{key: config[key] for key in known},
        **({"answers": config["answers"]} if config.get("answers") else {}),
        "determinism": "bitwise" if on_cpu else "numeric",
    }


def _row(config: dict[str, Any], found: Verification, score: SetScore, memory: int) -> Row:
    records = found.records.values()
    share = score.n / found.rows
    seconds: dict[str, float] = {}
    for record in records:
        for phase, spent in record.seconds.items():
            seconds[phase] = seconds.get(phase, 0.0) + spent * share
    # The filling of a last unit is sampled, too, and no one's cost.
    rows = sum(record.network_rows for record in records) / len(records) / config["unit_size"]
    seeds = read_seeds(config["seeds"])[score.first : score.first + score.n]
    return Row(
        config["sampler"], config["nfe"], short_mean(sum(r.calls for r in records) / len(records)),
        short_mean(rows), seeds[0], score.n, config["problem"],
        config["guidance"], score.metrics,
        round(seconds.get("network", 0.0) + seconds.get("solver", 0.0), 4),
        seconds_by={phase: round(spent, 4) for phase, spent in seconds.items() if spent},
        peak_memory=memory, seeds=seeds_text(seeds), replicates=rounded(score.replicates),
    )  # fmt: skip


def _peak_memory(folder: Path) -> int:
    """The largest of all ranks and starts, from their logs; 0 if there are none."""
    facts = [
        json.loads(line)
        for path in folder.glob("log-*.jsonl")
        for line in path.read_text().splitlines()
        if line.endswith("}")
    ]
    return max((int(fact.get("peak_memory", 0)) for fact in facts), default=0)


def _number(key: str, score: SetScore) -> str:
    form = metric_entry(key)[2]
    spread = f" ± {score.spread[key]:{form}}" if key in score.spread else ""
    return f"{score.metrics[key]:{form}}{spread}"
