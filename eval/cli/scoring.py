"""What ``fewstep calc`` does."""

import json
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fewstep.eval.cli.calc_console import Use, tell_of_skipped
from fewstep.eval.cli.calc_results import (
    Calculation,
    check_one_problem,
    sampler_names,
    save_result,
    to_results,
)
from fewstep.eval.cli.next_steps import after_scores
from fewstep.eval.common.differences import differing
from fewstep.eval.common.folders import check_writable
from fewstep.eval.common.limits import check_repeats
from fewstep.eval.common.paths import check_folder_name
from fewstep.eval.common.text import print_line as say
from fewstep.eval.common.text import print_table
from fewstep.eval.generate.seeds import read_seeds
from fewstep.eval.generate.shards import ShardFolder
from fewstep.eval.images.calculate import SetScore, calculate, extractor_for, find_reference
from fewstep.eval.images.paired import paired_difference
from fewstep.eval.images.recheck import RESULT
from fewstep.eval.images.samples import Samples, open_samples
from fewstep.eval.images.sources import is_generated, open_images
from fewstep.eval.metrics.choices import METRIC_CHOICES
from fewstep.eval.networks.extractors import Extractor
from fewstep.eval.reports.lines import LINES, read_runs
from fewstep.eval.reports.report import write_report
from fewstep.progress import Progress

# Settings of a folder that say nothing of how one sample was made.
NOT_OF_SAMPLES = (
    "seeds", "keep", "extractor", "extractor_weights", "extractor_scale", "extractor_code",
)  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """What ``fewstep calc`` is to find out.

    Attributes:
        samples: names of sets.
        ref: the reference; may be None if ``paired`` is not.
        metrics: of ``METRIC_CHOICES``.
        repeats: in how many parts each set is scored.
        num: how many samples of each set; all if None.
        paired: a set made from the same seeds.
        out: a folder whose ``results.jsonl`` takes a run.
        json: whether to print JSON.
    """

    samples: tuple[str, ...]
    ref: str | None
    metrics: tuple[str, ...] = ("fd",)
    repeats: int = 1
    num: int | None = None
    paired: str | None = None
    out: Path | None = None
    json: bool = False

    def __post_init__(self) -> None:
        if self.ref is None and self.paired is None:
            raise ValueError("nothing to compare with; give --ref, --paired or both")
        if len(set(self.samples)) < len(self.samples):
            raise ValueError("a set of samples is named twice; name each once")
        for metric in self.metrics:
            if metric not in METRIC_CHOICES:
                raise ValueError(f"metrics must be of {', '.join(METRIC_CHOICES)}, got {metric!r}")
        check_repeats(self.repeats)
        if self.out is not None and self.ref is None:
            raise ValueError("--out takes scores, which need --ref; leave it out")


def run_calc(asked: Asked, use: Use, progress: Progress) -> None:
    """Scores sets of samples, prints the scores, and keeps them if a folder is given."""
    calculation = None
    if asked.ref is not None:
        extractor = use.load("" if use.extractor else extractor_for(asked.ref))
        calculation = _calculation(asked, asked.ref, extractor, use, progress)
    pairs = [] if asked.paired is None else _pairs(asked, asked.paired, use)
    progress.close()
    written: list[str] = []
    if calculation is not None and asked.out is not None:
        written = _keep(calculation, asked.out, [Path(name) for name in asked.samples])
    if asked.json:
        for line in written:
            say(line, stderr=True)  # so that what is printed stays JSON
        table = {} if calculation is None else json.loads(calculation.to_json())
        table |= {"paired": pairs} if pairs else {}
        print(json.dumps(table, indent=1))
        return
    if calculation is not None:
        _show(calculation)
    for pair in pairs:
        psnr = "equal" if pair["psnr"] is None else f"PSNR {pair['psnr']:.2f} dB"
        say(
            f"{pair['samples']} and {pair['other']}: RMSE {pair['rmse']:.6f} of {pair['n']} pairs "
            f"in [-1, 1], {psnr}"
        )
    for line in (*written, *_next(asked)):
        say(line)


def _next(asked: Asked) -> list[str]:
    """The command to type next, where there is one."""
    folders = [Path(name) for name in asked.samples]
    if asked.ref is None or not all(is_generated(folder) for folder in folders):
        return []
    return [after_scores(folders, asked.ref, asked.out, ",".join(asked.metrics))]


def _calculation(
    asked: Asked, ref: str, extractor: Extractor, use: Use, progress: Progress
) -> Calculation:
    sets = [
        open_samples(name, extractor, num=asked.num, on_error=use.on_error)
        for name in asked.samples
    ]
    if asked.out is not None:
        _check_folders(asked.out, sets, asked.num)
    progress.stage("reference")
    reference = find_reference(
        ref, extractor, metrics=asked.metrics, batch=use.batch, on_error=use.on_error,
        progress=lambda done, total: progress.at(done, total, "reference"),
    )  # fmt: skip
    scores: list[SetScore] = []
    for samples in sets:
        tell_of_skipped(samples.name, samples.skipped)
        progress.stage(samples.name)
        scores += calculate(
            samples, reference, metrics=asked.metrics, repeats=asked.repeats, batch=use.batch,
            progress=partial(progress.at, text=samples.name),
        )  # fmt: skip
    options = {
        "ref": str(Path(ref).resolve()) if Path(ref).exists() else ref,
        "metrics": list(asked.metrics), "num": asked.num, "repeats": asked.repeats,
        "on_error": use.on_error, "weights": use.weights and str(use.weights.resolve()),
    }  # fmt: skip
    return Calculation(extractor, reference, options, scores, _are_repeats(sets))


def _are_repeats(sets: list[Samples]) -> bool:
    """Whether they differ in their seeds, and in nothing else.

    That is known of folders of ``fewstep gen``, if no seed is in two of them; other sets of images
    may be of any sampler.
    """
    if len(sets) == 1:
        return True
    configs, seeds = [], list[int]()
    for samples in sets:
        if samples.folder is None:
            return False
        configs.append(ShardFolder(samples.folder).config())
        seeds += read_seeds(configs[-1]["seeds"])[: samples.n]
    others = {key for config in configs[1:] for key in differing(configs[0], config)}
    return not others - set(NOT_OF_SAMPLES) and len(set(seeds)) == len(seeds)


def _check_folders(out: Path, sets: list[Samples], num: int | None) -> None:
    check_folder_name(out, "--out")
    for samples in sets:
        if samples.folder is None:
            raise ValueError(
                f"--out takes scores of folders of fewstep gen, which tell how samples were made; "
                f"{samples.name} is none: use --json > FILE"
            )
        check_writable(samples.folder)
    folders = [samples.folder for samples in sets if samples.folder is not None]
    check_one_problem(folders)
    if len({samples.n for samples in sets}) > 1:
        raise ValueError("--out takes sets of equal size; use --num, or keep them in two")
    sampler_names(folders, num)  # raises for samples that are there twice
    check_writable(out)


def _keep(calculation: Calculation, out: Path, folders: list[Path]) -> list[str]:
    """Writes the run, its report and each folder's result; says what is where."""
    results = to_results(calculation, folders)  # raises before anything is written
    older = len(read_runs(out / LINES)) if (out / LINES).is_file() else 0
    for folder in folders:
        save_result(calculation, folder)
    write_report(results, out)
    lines = [f"scores: {folder / RESULT}" for folder in folders]
    alone = f"; its {older} older runs are in {LINES} and not on the page" if older else ""
    return [*lines, f"report: {out / 'report.html'}{alone}"]


def _pairs(asked: Asked, other: str, use: Use) -> list[dict[str, Any]]:
    found = []
    for name in asked.samples:
        first, second = (
            open_images(source, num=asked.num, on_error="raise") for source in (name, other)
        )
        difference = paired_difference(first, second, use.batch)
        psnr = difference.psnr if math.isfinite(difference.psnr) else None
        found.append(
            {"samples": name, "other": other, "n": difference.n, "rmse": difference.rmse,
             "psnr": psnr}
        )  # fmt: skip
    return found


def _show(calculation: Calculation) -> None:
    say(calculation.lines()[0])
    print_table(calculation.table())
    for line in (*calculation.summary_lines(), *calculation.lines()[1:]):
        say(line)
