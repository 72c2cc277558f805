"""The benchmark: samplers against the fine solution from the same starts.

Batches of samples are the outer loop, so that each one's noise and references are made once and
memory does not grow with n; every sampler sees exactly the same states under every guidance. What
a unit, a batch through one sampler, was scored by is kept in a file until the report is written: a
benchmark that was stopped goes on where it ended, with any number of processes, and has lost less
than a minute of work.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence, Set
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torch import Tensor

from fewstep.eval.bench.collect import collect
from fewstep.eval.bench.jobs import (
    DEFAULT_CALLS,
    make_jobs,
    make_peer_jobs,
    split_specs,
    warn_of_strangers,
)
from fewstep.eval.bench.setup import Bench, compiled
from fewstep.eval.bench.sweeps import resolved, save_sweep
from fewstep.eval.bench.units import BatchRun, Case, Made, Work, scoring_code, warm_up
from fewstep.eval.common.cache import digest
from fewstep.eval.common.folders import check_writable
from fewstep.eval.common.keys import stable
from fewstep.eval.common.processes import Processes
from fewstep.eval.common.source_code import code_digest
from fewstep.eval.generate.shards import CONFIG, ShardFolder, UnitRecord
from fewstep.eval.generate.units import arithmetic
from fewstep.eval.metrics.choices import EXACT
from fewstep.eval.metrics.references import load_reference
from fewstep.eval.metrics.scores import needs_features
from fewstep.eval.networks.extractors import FashionExtractor
from fewstep.eval.networks.families import load_extractor
from fewstep.eval.problems import Problem, load_problem
from fewstep.eval.problems.guided_plans import process_digest
from fewstep.eval.problems.guides import read_guidance, split_guidance
from fewstep.eval.reports.results import Results
from fewstep.progress import count

FORMAT = 3
FASHION_SHAPE = (1, 28, 28)  # images that the bundled classifier takes
SAVE_SECONDS = 10.0  # of work that waits to be written, at most, beside the unit that runs
UNITS = "units"  # below the folder of the report, until that is written
Progress = Callable[[int, int, str], None]  # (work done, work in total, what runs now)


def run_bench(
    bench: Bench | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> Results:
    """Runs a benchmark and, if ``out`` is given, writes its report there.

    On several processes, started by torchrun or accelerate, each takes its share of the samples.

    Args:
        bench: what to run; the default problem and samplers if None.
        out: folder for the report (:func:`fewstep.eval.reports.report.write_report`), made if
            needed, and checked before anything is sampled. Needed with several processes.
        progress: told how far this process is.

    Raises:
        ValueError: for an unknown name, a sampler or guidance that does not fit, a folder that
            cannot be written, or one with an unfinished benchmark of other settings.
        FileNotFoundError: if bundled weights, a saved plan or statistics are missing.
        ExtractorUnavailableError: if the extractor cannot be had, before anything is sampled.
    """
    bench, started = bench or Bench(), datetime.now(UTC).isoformat(timespec="seconds")
    if out == "":
        raise ValueError("out is an empty text; name a folder, or leave it out")
    if out is not None:
        check_writable(Path(out))
    processes = Processes.start(bench.device)
    if out is None and processes.world > 1:
        raise ValueError("several processes meet in a folder; pass out")
    work = prepare(bench, processes.device)
    with ExitStack() as stack:
        folder = out or stack.enter_context(tempfile.TemporaryDirectory())
        shards = ShardFolder(Path(folder) / UNITS)
        _sample(work, shards, processes, progress or (lambda done, total, text: None))
        processes.barrier()
        results = collect(work, shards)
        results.started = started
        processes.barrier()
        if out is not None and processes.is_main:
            from fewstep.eval.reports.report import write_report

            write_report(results, Path(out), resolved(bench))
            save_sweep(bench, Path(out) / "sweep.yaml")
            # At once, so that a stop in between leaves no folder of half a run.
            finished = shards.path.rename(shards.path.with_name(f".{UNITS}-{os.getpid()}"))
            shutil.rmtree(finished)
    return results


def prepare(bench: Bench, device: str) -> Work:
    """Everything that will run, built and checked; nothing is sampled."""
    # First what may not be had here at all.
    extractor = bench.extractor and load_extractor(bench.extractor, device, bench.weights)
    problem = load_problem(bench.problem, device, prompts=bench.prompts, dtype=bench.dtype)
    if not extractor and problem.image_shape == FASHION_SHAPE:
        extractor = FashionExtractor(device)
    if bench.ref is not None and not extractor:
        raise ValueError(
            f"ref is of features of images, and there are none of {problem.name!r}: leave it out"
        )
    reference = None
    if extractor:
        wanted = needs_features(bench.metrics)
        reference = load_reference(bench.ref or "fashion", extractor, features=wanted)
    _check_metrics(bench, problem, bool(extractor))
    sampled = compiled(problem) if bench.compile else problem
    warn_of_strangers(split_specs(bench.samplers), problem, split_guidance(bench.guidance))
    cases: list[Case] = []
    nfe = None if bench.nfe is None else sorted(set(bench.nfe))
    for text in split_guidance(bench.guidance):
        guidance = read_guidance(text, sampled)
        specs, expression = split_specs(bench.samplers), guidance.expression
        jobs = make_jobs(specs, problem.process, nfe, expression)
        if bench.peers == "diffusers":
            jobs += make_peer_jobs(problem.process, nfe or DEFAULT_CALLS, expression)
        cases.append(Case(guidance, jobs))
    work = Work(bench, problem, sampled, cases, extractor or None, reference)
    work.scores()  # raises for what cannot be scored
    return work


def _check_metrics(bench: Bench, problem: Problem, judged: bool) -> None:
    """Raises ValueError for a metric that cannot be had; ``fd``, the default, is left out."""
    if EXACT in bench.metrics and not problem.exact:
        raise ValueError(
            f"metric {EXACT} compares with data known in closed form, and {problem.name!r} is a "
            "network; leave it out"
        )
    if lost := [name for name in bench.metrics if name not in ("fd", EXACT) and not judged]:
        raise ValueError(
            f"metric {lost[0]} is of features of images, and there are none of {problem.name!r}; "
            f"leave it out{f', or ask for {EXACT}' if problem.exact else ', or name an extractor'}"
        )


def units_there(work: Work, out: Path) -> int:
    """How many units an unfinished benchmark in the folder holds.

    Raises:
        ValueError: if it has other settings, with a line for each difference.
    """
    shards = ShardFolder(out / UNITS)
    if not (shards.path / CONFIG).exists():
        return 0
    shards.check(_config(work))
    return len(shards.finished(range(work.units)).records)


def _sample(work: Work, shards: ShardFolder, processes: Processes, progress: Progress) -> None:
    """Makes the units of this process that are not there yet."""
    shards.claim(_config(work))
    each = len(work.steps)
    batches = range(processes.rank, work.batches * work.bench.repeats, processes.world)
    own = [batch * each + step for batch in batches for step in range(each)]
    with shards.locked(processes.rank):
        finished = shards.finished(set(own)).records
        keeper = _Keeper(work, shards, processes.rank, own, finished.keys() & set(own), progress)
        warm: set[int] = set()
        for batch in batches:
            todo = [u for u in range(batch * each, (batch + 1) * each) if u not in finished]
            if not todo:
                continue
            if work.rows(batch) not in warm:
                warm_up(work, batch)
                warm.add(work.rows(batch))
            for made in BatchRun(work, batch, todo).units():
                keeper.add(made)
            keeper.commit()


class _Keeper:
    """Writes units to files as they come, and tells how far the process is.

    Short units share a file: one is due every ``SAVE_SECONDS``, and at the end of a batch.
    """

    def __init__(
        self, work: Work, shards: ShardFolder, rank: int, own: Sequence[int],
        there: Set[int], progress: Progress,
    ) -> None:  # fmt: skip
        self._work, self._shards, self._rank, self._progress = work, shards, rank, progress
        self._todo = [unit for unit in own if unit not in there]
        self._done, self._all = len(there), len(own)
        self._calls, self._total = sum(map(self._work_of, there)), sum(map(self._work_of, own))
        self._rows, self._seconds = 0.0, 0.0
        self._waiting: list[Made] = []
        self._saved = time.monotonic()
        self._tell()

    def add(self, made: Made) -> None:
        """Takes in a unit."""
        self._waiting.append(made)
        self._done += 1
        self._calls += self._work_of(made.unit)
        rows, seconds = made.rows_and_seconds
        self._rows, self._seconds = self._rows + rows, self._seconds + seconds
        if time.monotonic() - self._saved > SAVE_SECONDS:
            self.commit()
        self._tell()

    def commit(self) -> None:
        """Keeps the units that are waiting."""
        if self._waiting:
            numbers, records = dict[str, Tensor](), []
            for made in self._waiting:
                numbers |= made.numbers
                rows = self._work.rows(made.unit // len(self._work.steps))
                pixels = digest(made.numbers.values())
                records.append(UnitRecord(made.unit, pixels, rows, 0, 0, {}))
            name = f"unit-{self._waiting[0].unit:06d}.safetensors"
            self._shards.commit(self._rank, name, numbers, records)
            self._waiting.clear()
        self._saved = time.monotonic()

    def _work_of(self, unit: int) -> int:
        """Calls times samples of a unit."""
        return self._work.calls_of_unit(unit) * self._work.rows(unit // len(self._work.steps))

    def _tell(self) -> None:
        """How much there is, and what is next: units come in the order of ``own``."""
        text = f"{self._done} of {self._all} units"
        made = self._done - (self._all - len(self._todo))  # by this run
        now = self._todo[made : made + 1]
        if self._seconds:
            text += f", {count(self._rows / self._seconds)} network rows a second"
        text += f" (now {self._work.told(now[0])})" if now else ""
        self._progress(self._calls, self._total, text)


def _config(work: Work) -> dict[str, Any]:
    """All that the numbers of a unit depend on, as JSON values."""
    bench, problem, extractor = work.bench, work.problem, work.extractor
    return {
        "format": FORMAT,
        "problem": problem.name,
        "fingerprint": problem.fingerprint,
        **problem.identity,
        "process": process_digest(problem.process),
        "dtype": [str(problem.dtype), bench.dtype],
        "n": bench.n,
        "seed": bench.seed,
        "repeats": bench.repeats,
        "batch": work.batch_size,
        "jobs": [
            [case.guidance.text, job.sampler, job.nfe, job.identity]
            for case in work.cases
            for job in case.jobs
        ],
        "guidance_models": [_known(case) for case in work.cases],
        "extractor": extractor and extractor.name,
        "extractor_weights": extractor and extractor.fingerprint,
        "extractor_code": extractor and code_digest(extractor),
        "code_of_fewstep": scoring_code(problem, [case.guidance.expression for case in work.cases]),
        "exact": EXACT in bench.metrics,
        "compile": bench.compile,
        **arithmetic(problem.device),
    }


def _known(case: Case) -> str | None:
    try:
        return digest([stable(case.guidance.expression)])
    except TypeError:
        return None  # of a function there is only the name, in the text of the guidance
