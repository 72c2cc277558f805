"""The benchmark: samplers against the fine solution from the same starts.

Batches are the outer loop, so that each one's noise and reference are made once and memory does not
grow with n; every sampler sees exactly the same states.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from fewstep.eval.features import Judge, Scores, judge_for
from fewstep.eval.jobs import Batch, Job, make_jobs, make_peer_jobs, split_specs
from fewstep.eval.problems import Problem, load_problem
from fewstep.eval.reference import CountingDenoiser, fine_reference
from fewstep.eval.results import Results, Row, check_writable
from fewstep.eval.setup import Bench, compiled, environment, resolve_device
from fewstep.guidance import CFG, parse_guidance

BATCH_ELEMENTS = 128 * 784
SHOWN = 12  # samples kept for the picture
Progress = Callable[[int, int, str], None]  # (work done, work in total, what runs now)


@dataclass
class Tally:
    """What one job adds up over the batches."""

    job: Job
    scores: Scores = field(default_factory=Scores)
    calls: int = 0
    batches: int = 0
    seconds: float = 0.0
    images: Tensor | None = None

    def row(self, bench: Bench) -> Row:
        mean = self.calls / self.batches
        calls = int(mean) if mean == int(mean) else round(mean, 2)
        return Row(
            self.job.sampler, self.job.nfe or round(mean), calls, bench.seed, bench.n,
            bench.problem, bench.guidance, self.scores.result(), round(self.seconds, 4),
        )  # fmt: skip


def batches(problem: Problem, bench: Bench) -> Iterator[Batch]:
    """The starts, in pieces of bounded size; exact problems in float64."""
    dtype = torch.float64 if problem.exact else torch.float32
    size = max(1, min(4096, BATCH_ELEMENTS // int(torch.Size(problem.shape).numel())))
    labels = problem.labels(bench.n)
    for start in range(0, bench.n, size):
        rows = slice(start, min(start + size, bench.n))
        noise = problem.initial_noise(rows.stop - start, bench.seed, dtype, first=start)
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
        ValueError: for an unknown name, a sampler that does not fit, or a folder that cannot be
            written.
        FileNotFoundError: if bundled weights or a saved plan are missing.
    """
    bench = bench or Bench()
    if out is not None:
        check_writable(Path(out))
    problem = load_problem(bench.problem, resolve_device(bench.device))
    guidance = parse_guidance(bench.guidance)
    if guidance is not None and not problem.num_classes:
        raise ValueError(
            f"problem {problem.name!r} has no classes to guide by; use --guidance none"
        )
    jobs = make_jobs(split_specs(bench.samplers), problem.process, sorted(set(bench.nfe)))
    if bench.peers == "diffusers":
        jobs += make_peer_jobs(problem.process, sorted(set(bench.nfe)))
    results = _run(bench, problem, guidance, jobs, progress or (lambda done, total, text: None))
    if out is not None:
        from fewstep.eval.report import write_report

        write_report(results, Path(out))
    return results


def _run(
    bench: Bench, problem: Problem, guidance: CFG | None, jobs: list[Job], progress: Progress
) -> Results:
    sampled = compiled(problem) if bench.compile else problem
    judge = judge_for(problem)
    tallies, of_reference = [Tally(job) for job in jobs], Scores()
    shown: Tensor | None = None
    work = [job.nfe or 50 for job in jobs]
    done, total, warm = 0, bench.n * (sum(work) + 60), set[int]()
    for batch in batches(problem, bench):
        size = len(batch.noise)
        progress(done, total, "reference")
        reference = fine_reference(problem, batch.noise, batch.labels, guidance)
        judged = _judge(judge, reference)
        of_reference.add(reference, reference, batch.labels, judged)
        shown = reference[:SHOWN].cpu() if shown is None else shown
        done += 60 * size
        if size not in warm:
            _warm_up(sampled, guidance, batch)
            warm.add(size)
        for tally, weight in zip(tallies, work, strict=True):
            progress(done, total, f"{tally.job.sampler}, {tally.job.nfe or 'own'} calls")
            x = _timed(tally, sampled, guidance, batch)
            features = None if judged is None else judged[0]
            tally.scores.add(x, reference, batch.labels, _judge(judge, x), features)
            tally.images = x[:SHOWN].cpu() if tally.images is None else tally.images
            done += weight * size
    progress(total, total, "done")
    scores = of_reference.result()
    scores = {name: value for name, value in scores.items() if "rmse" not in name}
    results = Results(environment(bench, problem, scores), [t.row(bench) for t in tallies])
    if len(problem.shape) == 3:
        results.reference_images = shown
        results.images = {
            (row.sampler, row.nfe): tally.images
            for row, tally in zip(results.rows, tallies, strict=True)
            if tally.images is not None
        }
    return results


def _judge(judge: Judge | None, x: Tensor) -> tuple[Tensor, Tensor] | None:
    return None if judge is None else judge(x)


def _guided(problem: Problem, guidance: CFG | None) -> tuple[Problem, CountingDenoiser]:
    counter = CountingDenoiser(problem.denoiser)
    return replace(problem, denoiser=guidance.wrap(counter) if guidance else counter), counter


def _timed(tally: Tally, problem: Problem, guidance: CFG | None, batch: Batch) -> Tensor:
    guided, counter = _guided(problem, guidance)
    _synchronise(problem.device)
    started = time.perf_counter()
    x = tally.job.run(guided, batch)
    _synchronise(problem.device)
    tally.seconds += time.perf_counter() - started
    tally.calls += counter.calls
    tally.batches += 1
    return x


@torch.no_grad()
def _warm_up(problem: Problem, guidance: CFG | None, batch: Batch) -> None:
    guided, _ = _guided(problem, guidance)
    guided.denoiser(batch.noise, problem.start_level, batch.labels)


def _synchronise(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
