"""What a benchmark would take: calls, disk, memory and time, from one timed call of each kind."""

import math
import time
from dataclasses import dataclass

import torch

from fewstep.eval.bench.runner import prepare, units_there
from fewstep.eval.bench.sweeps import Sweep
from fewstep.eval.bench.units import Case, Work, warm_up
from fewstep.eval.common.amounts import bytes_text, seconds_text
from fewstep.eval.common.clock import peak_memory
from fewstep.eval.common.processes import Processes
from fewstep.eval.common.text import print_line
from fewstep.eval.metrics.judge import features_of
from fewstep.eval.problems.guides import Meter
from fewstep.models.ode import level_at
from fewstep.progress import Progress
from fewstep.schedules.breaks import within
from fewstep.types import Level


@dataclass(frozen=True)
class Estimate:
    """Of a whole benchmark on all processes together, but for the memory of one.

    Attributes:
        calls: of the network, those of the references included.
        rows: of those calls; at most so many where guidance is switched on and off.
        disk: bytes of the units, until the report is written.
        memory: bytes.
        seconds: if references are not cached, on one process.
        units: of work, shared out among processes.
    """

    calls: int
    rows: int
    disk: int
    memory: int
    seconds: float
    units: int


def estimate(work: Work) -> Estimate:
    """Makes each kind of call once on the starts of the first batch, and counts the others."""
    warm_up(work, 0)
    whole = work.bench.n * work.bench.repeats / work.rows(0)  # batches, the last of them in part
    calls, rows, seconds = 0, 0.0, _feature_seconds(work) * whole * _sets(work)
    for case in work.cases:
        spent, call_rows = _dearest_call(work, case)
        planned = work.calls_of(case)
        calls += planned * work.batches * work.bench.repeats
        rows += planned * call_rows * whole
        seconds += planned * spent * whole
    return Estimate(
        calls, round(rows), _disk(work), peak_memory(work.problem.device) + _sums(work),
        seconds, work.units,
    )  # fmt: skip


def show_estimate(sweep: Sweep, progress: Progress | None = None) -> None:
    """Prints the estimate of a sweep; nothing is sampled or written."""
    processes = Processes.start(sweep.device)
    work = prepare(sweep, processes.device)
    there = units_there(work, sweep.out)
    found = estimate(work)
    if progress is not None:
        progress.close()
    seconds = found.seconds * (1 - there / found.units) / processes.world
    if not processes.is_main:
        return
    sets = sum(len(case.jobs) for case in work.cases)
    world = f" on {processes.world} processes" if processes.world > 1 else ""
    lines = {
        "sets of samples": f"{sets} of {sweep.n}, {sweep.repeats} times",
        "network calls": f"{found.calls:,} with {found.rows:,} rows, references included",
        "units": f"{found.units}, {there} of them there{world}",
        "disk": f"{bytes_text(found.disk)} in {sweep.out / 'units'} until the report is written",
        "memory": f"{bytes_text(found.memory)} a process",
        "time": f"about {seconds_text(seconds)}{world}",
    }
    for name, text in lines.items():
        print_line(f"{name:>16}  {text}")


def _dearest_call(work: Work, case: Case) -> tuple[float, int]:
    """Seconds and rows of the call with most rows, of one between any two breakpoints."""
    process, guidance = work.problem.process, case.guidance.expression
    breaks = () if guidance is None else guidance.breakpoints()
    inside = within((process.rho_max, process.rho_min), breaks)
    levels = [work.problem.start_level, *(level_at(process, rho) for rho in inside)]
    return max((_timed_call(work, case, at) for at in levels), key=lambda call: call[1])


def _timed_call(work: Work, case: Case, level: Level) -> tuple[float, int]:
    """Seconds and rows of one call under the guidance."""
    problem, batch, meter = work.sampled, work.batch(0), Meter(case.guidance.expression)
    guided = meter.wrap(problem.denoiser, batch.seeds)
    started = time.perf_counter()
    with torch.no_grad():
        x = guided(batch.noise, level, batch.labels)
    float(x.flatten()[0])  # the device has finished
    return time.perf_counter() - started, meter.counters.rows


def _feature_seconds(work: Work) -> float:
    """Of a batch's images: decoding, and features."""
    if work.extractor is None:
        return 0.0
    noise = work.batch(0).noise / work.problem.start_scale
    features_of(work.extractor, work.problem.images(noise))
    started = time.perf_counter()
    float(features_of(work.extractor, work.problem.images(noise)).flatten()[0])
    return time.perf_counter() - started


def _sets(work: Work) -> int:
    return sum(len(case.jobs) + case.guidance.has_reference for case in work.cases)


def _disk(work: Work) -> int:
    """Features, and samples where they are kept."""
    kept = 4 * work.extractor.dim if work.extractor else 0
    if work.keeps_samples:
        kept += 8 * math.prod(work.problem.shape)
    return (kept + 64) * _sets(work) * work.bench.n * work.bench.repeats


def _sums(work: Work) -> int:
    """Of one set's features at a time, when the results are added up."""
    return 3 * 8 * work.extractor.dim**2 if work.extractor else 0
