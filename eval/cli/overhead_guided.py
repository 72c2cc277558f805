"""Time of guidance beside the network that it asks.

A guided evaluation of the bundled model is run, and so are its network and classifier calls alone,
on the very tensors that guidance packed. The two alternate, in either order, so that a slow moment
of the machine hits both; what is shown is the median of their differences, as a share of the median
of the bare calls. It is the thread's processor time, which other processes disturb less; on a GPU,
the time until its work is done.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import Tensor

from fewstep.eval.cli.overhead_schedulers import time_when_idle
from fewstep.eval.common.text import print_table
from fewstep.eval.problems import Problem, load_problem
from fewstep.guidance import Expression, parse_guidance
from fewstep.models.ode import level_at

GUIDANCE = (
    "cfg:3", "icg:1.4", "tsg", "cfg:3|interval:0.2,2", "gfcg:2", "cfg:3|project",
    "autoguidance:2", "(icg:1.4|interval:0.2,2)+tsg",
)  # fmt: skip
BATCH = 64


@dataclass(frozen=True)
class GuidedTiming:
    """Seconds of an evaluation: of the bare calls, and of everything else."""

    guidance: str
    bare: float
    added: float


class Recorder:
    """A model that keeps what it was called with; in all else it is the inner one."""

    def __init__(self, inner: Any, calls: list[Callable[[], Any]]) -> None:
        self.inner, self.calls, self.on = inner, calls, True

    def __call__(self, *inputs: Any, **named: Any) -> Tensor:
        if self.on:
            self.calls.append(lambda: self.inner(*inputs, **named))
        made: Tensor = self.inner(*inputs, **named)
        return made

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@torch.no_grad()
def measure_guidance(text: str, problem: Problem, repeats: int) -> GuidedTiming:
    """Times guidance on a batch of ``BATCH``, in the middle of the noise levels."""
    calls: list[Callable[[], Any]] = []
    recorders = [Recorder(problem.denoiser, calls)]

    def recorded(load: Callable[[], Any]) -> Callable[[], Any]:
        def made() -> Any:
            recorders.append(Recorder(load(), calls))
            return recorders[-1]

        return made

    models = {name: recorded(load) for name, load in problem.models.items()}
    guidance = parse_guidance(text, models)
    assert isinstance(guidance, Expression)
    guided = guidance.wrap(recorders[0])
    level = level_at(problem.process, 1.0)
    x, labels = problem.initial_noise(BATCH), problem.labels(BATCH)

    def run_guided() -> None:
        guided(x, level, labels)

    run_guided()
    for recorder in recorders:
        recorder.on = False
    bare, added = [], []

    def run_bare() -> None:
        for call in calls:
            call()

    for i in range(repeats):
        seconds = {}
        for run in (run_bare, run_guided)[:: 1 if i % 2 else -1]:
            started = _now(problem.device)
            run()
            seconds[run] = _now(problem.device) - started
        bare.append(seconds[run_bare])
        added.append(seconds[run_guided] - seconds[run_bare])
    return GuidedTiming(text, statistics.median(bare), statistics.median(added))


def _now(device: str) -> float:
    return time.thread_time() if device == "cpu" else time_when_idle(torch.device(device))


def measure_all_guidance(
    repeats: int = 15, device: str = "cpu", progress: Callable[[int, int], None] | None = None
) -> list[GuidedTiming]:
    """All of ``GUIDANCE``, on one thread of the host; ``progress`` is told of each."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        problem = load_problem("fashion", device)
        timings: list[GuidedTiming] = []
        for text in GUIDANCE:
            if progress is not None:
                progress(len(timings), len(GUIDANCE))
            timings.append(measure_guidance(text, problem, repeats))
        return timings
    finally:
        torch.set_num_threads(threads)


def show_guided_overhead(
    timings: Sequence[GuidedTiming], repeats: int, device: str = "cpu"
) -> None:
    """Prints the table of :func:`measure_all_guidance`."""
    where = f"batch {BATCH}, {device}, one thread, median of {repeats}"
    title = f"One guided evaluation, bundled model, {where}"
    table = Table("guidance", box=SIMPLE_HEAD, title=f"\n{title}")
    for column in ("networks ms", "guidance ms", "overhead"):
        table.add_column(column, justify="right")
    for timing in timings:
        table.add_row(
            timing.guidance, f"{1e3 * timing.bare:.1f}", f"{1e3 * timing.added:.2f}",
            f"{100 * timing.added / timing.bare:.1f} %",
        )  # fmt: skip
    print_table(table)
