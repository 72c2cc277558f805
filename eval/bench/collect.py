"""Adds up what the units of a benchmark were scored by."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from fewstep.eval.bench.jobs import Job
from fewstep.eval.bench.setup import environment
from fewstep.eval.bench.units import COSTS, REFERENCE, Case, Numbers, Work
from fewstep.eval.common.amounts import short_mean
from fewstep.eval.common.class_names import class_names
from fewstep.eval.common.phases import PHASES
from fewstep.eval.generate.shards import ShardFolder
from fewstep.eval.metrics.exact import exact_scores
from fewstep.eval.metrics.judge import fd_floor
from fewstep.eval.metrics.scores import SetScores
from fewstep.eval.metrics.spread import FEWEST, replicates, rounded
from fewstep.eval.problems.prompts import read_prompts
from fewstep.eval.reports.results import Results, Row
from fewstep.models.data import to_signed

MEANS = ("rmse", "feature_rmse", "accuracy")  # kept as a sum and a count, and sample by sample


def collect(work: Work, shards: ShardFolder) -> Results:
    """The results of a finished benchmark.

    Raises:
        ValueError: if a unit is missing.
    """
    found = shards.finished(range(work.units))
    if missing := [unit for unit in range(work.units) if unit not in found.records]:
        raise ValueError(f"unit {missing[0]} is not in {shards.path}; start the same bench again")
    paths = {
        record.unit: shards.path / piece.file for piece in found.pieces for record in piece.units
    }
    results = Results(environment(work.bench, work.problem) | _facts(work), [])
    for c, case in enumerate(work.cases):
        text = case.guidance.text
        if case.guidance.has_reference:
            solved = [_total(work, c, REFERENCE, r, paths) for r in range(work.bench.repeats)]
            if work.extractor is not None:
                results.env["reference"][text] = _mean([each.metrics(work) for each in solved])
            if solved[0].shown is not None:
                results.reference_images[text] = to_signed(solved[0].shown)
        for j, job in enumerate(case.jobs):
            totals = [_total(work, c, str(j), r, paths) for r in range(work.bench.repeats)]
            rows = _rows(work, case, job, totals)
            results.rows += rows
            if totals[0].shown is not None:
                key = (text, job.sampler, rows[0].nfe, "")
                results.images[key] = to_signed(totals[0].shown)
                if totals[0].labels is not None:
                    results.labels[key] = _names(work, totals[0].labels.tolist())
    return results


@dataclass
class _Total:
    """What the units of one set of samples add up to."""

    scores: SetScores | None
    sums: dict[str, Tensor] = field(default_factory=dict)
    samples: list[Tensor] = field(default_factory=list)
    peak_memory: int = 0
    shown: Tensor | None = None
    labels: Tensor | None = None
    each: dict[str, list[Tensor]] = field(default_factory=dict)
    seconds_each: list[float] = field(default_factory=list)

    def add(self, numbers: Numbers, rows: int) -> None:
        """Takes in a unit of ``rows`` samples."""
        for name in (*MEANS, "costs", "seconds"):
            if name in numbers:
                self.sums[name] = self.sums.get(name, torch.zeros(())) + numbers[name]
        if self.scores is not None and "features" in numbers:
            self.scores.add(numbers["features"])
        if "samples" in numbers:
            self.samples.append(numbers["samples"])
        self.peak_memory = max(self.peak_memory, int(numbers.get("peak_memory", 0)))
        self.shown = numbers.get("shown", self.shown)
        self.labels = numbers.get("labels", self.labels)
        for name in MEANS:
            if f"{name}_each" in numbers:
                self.each.setdefault(name, []).append(numbers[f"{name}_each"])
        if "seconds" in numbers:
            seconds = dict(zip(PHASES, numbers["seconds"].tolist(), strict=True))
            self.seconds_each.append((seconds["network"] + seconds["solver"]) / rows)

    def replicates(self) -> dict[str, list[float]]:
        """Metrics without some of the samples each; those that are not finite are left out."""
        found = {} if self.scores is None else self.scores.replicates()
        for name, parts in self.each.items():
            values = torch.cat(parts)
            if len(values) >= FEWEST:
                estimate = _mean_of if name == "accuracy" else _root_mean
                found[name] = replicates(values, estimate)
        return {name: values for name, values in found.items() if all(map(math.isfinite, values))}

    def metrics(self, work: Work) -> dict[str, float]:
        """By name; those that do not apply, or are not finite, are left out."""
        found: dict[str, float] = {}
        for name in MEANS:
            if name in self.sums:
                total, count = self.sums[name].tolist()
                found[name] = total / count if name == "accuracy" else math.sqrt(total / count)
        if self.scores is not None:
            found |= self.scores.result()
        if self.samples:
            found |= exact_scores(work.problem, torch.cat(self.samples))
        return {name: value for name, value in found.items() if math.isfinite(value)}


def _total(work: Work, case: int, job: str, repeat: int, paths: Mapping[int, Path]) -> _Total:
    """Batch after batch, of whose files only what is the job's is read."""
    total, prefix = _Total(work.scores()), f"{case}/{job}/"
    for batch in work.batches_of(repeat):
        with safe_open(paths[work.unit(batch, case, job)], "pt") as file:
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
            numbers = {name[len(prefix) :]: file.get_tensor(name) for name in names}
        total.add(numbers, work.rows(batch))
    return total


def _mean_of(values: Tensor) -> float:
    return float(values.mean())


def _root_mean(values: Tensor) -> float:
    return float(values.mean().sqrt())


def _names(work: Work, labels: list[int]) -> tuple[str, ...]:
    prompts = work.bench.prompts
    texts = [] if prompts is None else read_prompts(prompts)
    return tuple(class_names(work.bench.problem, labels, texts))


def _mean(repeats: list[dict[str, float]]) -> dict[str, float]:
    return {name: sum(each[name] for each in repeats) / len(repeats) for name in repeats[0]}


def _rows(work: Work, case: Case, job: Job, totals: list[_Total]) -> list[Row]:
    rows = [_row(work, case, job, repeat, total) for repeat, total in enumerate(totals)]
    # Repeats of a solver that chooses its calls stand under one number.
    own = round(sum(row.calls for row in rows) / len(rows))
    return [replace(row, nfe=job.nfe or own) for row in rows]


def _row(work: Work, case: Case, job: Job, repeat: int, total: _Total) -> Row:
    bench, costs = work.bench, dict(zip(COSTS, total.sums["costs"].tolist(), strict=True))
    calls = costs["calls"] / work.batches
    seconds = dict(zip(PHASES, total.sums["seconds"].tolist(), strict=True))
    each = {name: short_mean(costs[name] / bench.n) for name in COSTS[1:]}
    return Row(
        job.sampler, job.nfe, short_mean(calls), each["rows"], bench.seed + repeat,
        bench.n, bench.problem, case.guidance.text, total.metrics(work),
        round(seconds["network"] + seconds["solver"], 4),
        each["backward_rows"], each["classifier_rows"],
        seconds_by={name: round(spent, 4) for name, spent in seconds.items() if spent},
        peak_memory=total.peak_memory, replicates=rounded(total.replicates()),
        seconds_each=[float(f"{spent:.4g}") for spent in total.seconds_each],
    )  # fmt: skip


def _facts(work: Work) -> dict[str, Any]:
    """What images were scored by, and what real images score."""
    extractor, reference = work.extractor, work.reference
    if extractor is None or reference is None:
        return {}
    facts: dict[str, Any] = {
        "reference": {},
        "extractor": {
            "name": extractor.name,
            "sha256": extractor.fingerprint,
            "comparable": extractor.comparable,
            "dim": extractor.dim,
        },
        "ref": reference.describe(),
    }
    if work.bench.ref is None:
        facts["floor"] = {"fd_fashion": fd_floor(work.bench.n)}
    return facts
