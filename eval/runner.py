"""The benchmark: samplers against the fine solution from the same starts.

Batches are the outer loop, so that each one's noise and references are made once and memory does
not grow with n; every sampler sees exactly the same states under every guidance.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from fewstep.eval.features import Judge, Scores, judge_for
from fewstep.eval.guides import Meter, WrittenGuidance, read_guidance, split_guidance
from fewstep.eval.jobs import Batch, Job, make_jobs, make_peer_jobs, split_specs
from fewstep.eval.problems import Problem, load_problem
from fewstep.eval.reference import fine_reference
from fewstep.eval.results import Results, Row, check_writable
from fewstep.eval.setup import Bench, compiled, environment, resolve_device
from fewstep.guidance import Counters

BATCH_ELEMENTS = 128 * 784
REFERENCE_CALLS = 60  # for the progress bar
SHOWN = 12  # samples kept for the picture
Progress = Callable[[int, int, str], None]  # (work done, work in total, what runs now)


@dataclass
class Tally:
    """What one job adds up over the batches."""

    job: Job
    scores: Scores = field(default_factory=Scores)
    counters: Counters = field(default_factory=Counters)
    batches: int = 0
    seconds: float = 0.0
    images: Tensor | None = None

    def row(self, bench: Bench, guidance: str) -> Row:
        cost, calls = self.counters, self.counters.calls / self.batches
        return Row(
            self.job.sampler, self.job.nfe or round(calls), _short(calls),
            _short(cost.rows / bench.n), bench.seed, bench.n, bench.problem, guidance,
            self.scores.result(), round(self.seconds, 4), _short(cost.backward_rows / bench.n),
            _short(cost.classifier_rows / bench.n),
        )  # fmt: skip


def _short(mean: float) -> int | float:
    return int(mean) if mean == int(mean) else round(mean, 2)


@dataclass
class Case:
    """One guidance: its jobs, and what its reference scores if it has one."""

    guidance: WrittenGuidance
    tallies: list[Tally]
    of_reference: Scores = field(default_factory=Scores)
    shown: Tensor | None = None

    @property
    def work(self) -> int:
        """Calls for each sample, about."""
        own = sum(tally.job.nfe or 50 for tally in self.tallies)
        return own + REFERENCE_CALLS * self.guidance.has_reference


def batches(problem: Problem, bench: Bench) -> Iterator[Batch]:
    """The starts, in pieces of bounded size; exact problems in float64."""
    size = max(1, min(4096, BATCH_ELEMENTS // int(torch.Size(problem.shape).numel())))
    labels = problem.labels(bench.n)
    for start in range(0, bench.n, size):
        rows = slice(start, min(start + size, bench.n))
        noise = problem.initial_noise(rows.stop - start, bench.seed, problem.dtype, first=start)
        # Far from the small integers that seed the starts.
        seeds = [bench.seed * 2**32 + 2**24 + i for i in range(rows.start, rows.stop)]
        yield Batch(noise, None if labels is None else labels[rows], seeds)


def run_bench(
    bench: Bench | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> Results:
    """Runs a benchmark and, if ``out`` is given, writes its report there.

    Args:
        bench: what to run; the default problem and samplers if None.
        out: folder for ``results.json``, ``results.csv``, ``report.md`` and the pictures, made if
            needed, and checked before anything is sampled.
        progress: told how far it is.

    Raises:
        ValueError: for an unknown name, a sampler or guidance that does not fit, or a folder that
            cannot be written.
        FileNotFoundError: if bundled weights or a saved plan are missing.
    """
    bench = bench or Bench()
    if out is not None:
        check_writable(Path(out))
    problem = load_problem(bench.problem, resolve_device(bench.device))
    sampled = compiled(problem) if bench.compile else problem
    cases = _cases(bench, sampled)
    results = _run(bench, problem, sampled, cases, progress or (lambda done, total, text: None))
    if out is not None:
        from fewstep.eval.report import write_report

        write_report(results, Path(out))
    return results


def _cases(bench: Bench, problem: Problem) -> list[Case]:
    """Everything that will run, built and checked."""
    cases, nfe = [], sorted(set(bench.nfe))
    for text in split_guidance(bench.guidance):
        guidance = read_guidance(text, problem)
        specs, expression = split_specs(bench.samplers), guidance.expression
        jobs = make_jobs(specs, problem.process, nfe, expression)
        if bench.peers == "diffusers":
            jobs += make_peer_jobs(problem.process, nfe, expression)
        cases.append(Case(guidance, [Tally(job) for job in jobs]))
    return cases


def _run(
    bench: Bench, problem: Problem, sampled: Problem, cases: list[Case], progress: Progress
) -> Results:
    judge = judge_for(problem)
    done, total, warm = 0, bench.n * sum(case.work for case in cases), set[int]()
    for batch in batches(problem, bench):
        size = len(batch.noise)
        if size not in warm:
            for case in cases:
                _warm_up(sampled, case, batch)
            warm.add(size)
        for case in cases:
            told = f"reference, guidance {case.guidance.text}"
            progress(done, total, told)
            reference, features = _reference(case, problem, batch, judge)
            done += REFERENCE_CALLS * size * case.guidance.has_reference
            for tally in case.tallies:
                progress(done, total, f"{tally.job.sampler}, {tally.job.nfe or 'own'} calls")
                x = _timed(tally, sampled, case, batch)
                judged = None if judge is None else judge(x)
                tally.scores.add(x, reference, batch.labels, judged, features)
                tally.images = x[:SHOWN].cpu() if tally.images is None else tally.images
                done += (tally.job.nfe or 50) * size
    progress(total, total, "done")
    return _results(bench, problem, cases, judged=judge is not None)


def _reference(
    case: Case, problem: Problem, batch: Batch, judge: Judge | None
) -> tuple[Tensor | None, Tensor | None]:
    """The reference of a batch and its features, where there is one."""
    if not case.guidance.has_reference:
        return None, None
    found = fine_reference(problem, batch.noise, batch.labels, case.guidance.expression)
    case.shown = found[:SHOWN].cpu() if case.shown is None else case.shown
    if judge is None:
        return found, None
    judged = judge(found)
    case.of_reference.add(found, None, batch.labels, judged)
    return found, judged[0]


def _results(bench: Bench, problem: Problem, cases: list[Case], *, judged: bool) -> Results:
    scores = {
        case.guidance.text: case.of_reference.result()
        for case in cases
        if judged and case.guidance.has_reference
    }
    results = Results(environment(bench, problem, scores, judged=judged), [])
    for case in cases:
        text = case.guidance.text
        rows = [tally.row(bench, text) for tally in case.tallies]
        results.rows += rows
        if len(problem.shape) < 3:
            continue
        if case.shown is not None:
            results.reference_images[text] = case.shown
        for row, tally in zip(rows, case.tallies, strict=True):
            if tally.images is not None:
                results.images[text, row.sampler, row.nfe] = tally.images
    return results


def _timed(tally: Tally, problem: Problem, case: Case, batch: Batch) -> Tensor:
    meter = Meter(case.guidance.expression)
    _synchronise(problem.device)
    started = time.perf_counter()
    x = tally.job.run(problem, batch, meter)
    _synchronise(problem.device)
    tally.seconds += time.perf_counter() - started
    for name, cost in vars(meter.counters).items():
        setattr(tally.counters, name, getattr(tally.counters, name) + cost)
    tally.batches += 1
    return x


@torch.no_grad()
def _warm_up(problem: Problem, case: Case, batch: Batch) -> None:
    guided = Meter(case.guidance.expression).wrap(problem.denoiser, batch.seeds)
    guided(batch.noise, problem.start_level, batch.labels)


def _synchronise(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
