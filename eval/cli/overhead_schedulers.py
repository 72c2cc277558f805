"""Time of one ``step()`` beside the diffusers counterpart, in one process.

Runs of ours, theirs and of the same passes over memory written by hand alternate, so that a slow
moment of the machine hits all; what is shown is the median over runs of the mean time of a step.
Network outputs are made before, so only the samplers are timed. On a GPU the time ends when all the
work is done, and how often a step waits for the device is counted, too.
"""

import inspect
import math
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import diffusers
import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import Tensor

from fewstep.eval.common.text import print_table
from fewstep.samplers import Plan
from fewstep.samplers.adapter import schedulers
from fewstep.samplers.core.ops import Op

STEPS = 20
SHAPES = {"small": (1, 4, 64, 64), "large": (8, 4, 128, 128)}
Run = Callable[[], float]  # walks one schedule; seconds of a step


@dataclass(frozen=True)
class Pair:
    """A scheduler of ours and the one of diffusers that does the same.

    Attributes:
        ours: class in ``fewstep.samplers.adapter.schedulers``.
        options: of ours; the rest of its config comes from theirs.
        theirs: class in ``diffusers``.
        their_options: constructor arguments of theirs.
        adopt: whether our config comes from theirs; iPNDM's process there has no counterpart here.
    """

    ours: str
    theirs: str
    options: Mapping[str, Any] = field(default_factory=dict)
    their_options: Mapping[str, Any] = field(default_factory=dict)
    adopt: bool = True

    def __str__(self) -> str:
        return self.ours + "".join(f" {value}" for value in self.options.values())


_DPM, _UNIPC, _DEIS, _SINGLE = (
    "DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "DEISMultistepScheduler",
    "DPMSolverSinglestepScheduler",
)  # fmt: skip
_SA_ORDERS = tuple({"predictor_order": p, "corrector_order": c} for p, c in ((2, 2), (3, 4)))
PAIRS = (
    Pair("DDIM", "DDIMScheduler", {}, {"clip_sample": False}),
    Pair("Euler", "EulerDiscreteScheduler"),
    Pair("Euler", "FlowMatchEulerDiscreteScheduler", {}, {"shift": 3.0}),
    *(Pair("DPMSolverPP", _DPM, {"order": k}, {"solver_order": k}) for k in (2, 3)),
    *(Pair("UniPC", _UNIPC, {"order": k}, {"solver_order": k}) for k in (2, 3)),
    *(
        Pair("DEIS", _DEIS, {"order": k, "variable": "log_rho"}, {"solver_order": k})
        for k in (2, 3)
    ),
    Pair("IPNDM", "IPNDMScheduler", {"order": 4}, adopt=False),
    Pair("IPNDM", "PNDMScheduler", {"order": 4}, {"skip_prk_steps": True}),
    Pair("Heun", "HeunDiscreteScheduler"),
    Pair("EulerAncestral", "EulerAncestralDiscreteScheduler"),
    *(Pair("DPMSolverPPSinglestep", _SINGLE, {"order": k}, {"solver_order": k}) for k in (2, 3)),
    *(Pair("SASolver", "SASolverScheduler", orders, orders) for orders in _SA_ORDERS),
)


@dataclass(frozen=True)
class Timing:
    """Seconds of a step, and how often it waits for the device: ours, theirs, by hand.

    By hand for solvers with a history only; waits are counted on CUDA.
    """

    pair: Pair
    size: str
    ours: float
    theirs: float
    by_hand: float = math.nan
    our_waits: float = math.nan
    their_waits: float = math.nan


def walk(scheduler: Any, sample: Tensor, outputs: Sequence[Tensor]) -> float:
    """Seconds of a step, over one schedule; ``outputs`` stand for the network in turn."""
    run, count = ready(scheduler, sample, outputs)
    started = time_when_idle(sample.device)
    run()
    return (time_when_idle(sample.device) - started) / count


def ready(
    scheduler: Any, sample: Tensor, outputs: Sequence[Tensor]
) -> tuple[Callable[[], None], int]:
    """The loop over a schedule, with timesteps and generator in place, and its number of steps."""
    scheduler.set_timesteps(STEPS, device=sample.device)
    scheduler.is_scale_input_called = True  # of Euler's, which would warn
    noisy = "generator" in inspect.signature(scheduler.step).parameters
    extra = {"generator": torch.Generator(sample.device).manual_seed(0)} if noisy else {}

    def run() -> None:
        x = sample
        for i, t in enumerate(scheduler.timesteps):
            x = scheduler.step(outputs[i % len(outputs)], t, x, return_dict=False, **extra)[0]

    return run, len(scheduler.timesteps)


def time_when_idle(device: torch.device) -> float:
    """The time in seconds when the device has done all that was queued."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()
    return time.perf_counter()


def waits(scheduler: Any, sample: Tensor, outputs: Sequence[Tensor]) -> float:
    """How often a step makes the host wait for a CUDA device, over one schedule."""
    if sample.device.type != "cuda":
        return math.nan
    run, count = ready(scheduler, sample, outputs)
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    found = sum("synchronizing CUDA operation" in str(warning.message) for warning in caught)
    return found / count


def by_hand(plan: Plan, sample: Tensor, outputs: Sequence[Tensor]) -> Run:
    """The passes of a plan with preallocated buffers and one fresh output a step.

    One pass converts the output; an op of m terms takes m passes, one fewer with a coefficient 1,
    and noise is drawn and takes one more. The numbers themselves do not matter to the time.
    """
    depth = 1 + max(len(op.w) for row in plan.evaluations for op in row.ops)
    history = [torch.empty_like(sample) for _ in range(depth)]
    registers = {"base": torch.empty_like(sample), "x": torch.empty_like(sample)}
    shapes = [[_pass_shape(op) for op in row.ops] for row in plan.evaluations]
    last_x = [max(i for i, op in enumerate(row.ops) if op.reg == "x") for row in plan.evaluations]

    def run() -> float:
        x, generator = sample, torch.Generator(sample.device).manual_seed(0)
        started = time_when_idle(sample.device)
        for e, ops in enumerate(shapes):
            history.insert(0, history.pop())
            torch.add(outputs[e % len(outputs)], x, alpha=0.5, out=history[0])
            fresh = x
            for i, (reg, reads, unit, noisy) in enumerate(ops):
                out = torch.empty_like(x) if i == last_x[e] else registers[reg]
                sources = [x, *history][: max(reads, 2)]
                if unit:
                    torch.add(sources[0], sources[1], alpha=0.5, out=out)
                else:
                    torch.mul(sources[0], 0.5, out=out)
                for source in sources[1 + unit : reads]:
                    out.add_(source, alpha=0.5)
                if noisy:
                    noise = torch.randn(x.shape, generator=generator, device=x.device)
                    out.add_(noise, alpha=0.5)
                fresh = out if i == last_x[e] else fresh
            x = fresh
        return (time_when_idle(sample.device) - started) / len(shapes)

    return run


def _pass_shape(op: Op) -> tuple[str, int, bool, bool]:
    """The register written, how many are read, whether one of several has coefficient 1, noise."""
    coefficients = [c for c in (op.c_x, op.c_b, *op.w) if c]
    unit = len(coefficients) > 1 and 1.0 in coefficients
    return ("base" if op.reg == "base" else "x"), len(coefficients), unit, bool(op.nu)


@torch.no_grad()
def measure(pair: Pair, size: str, repeats: int, device: str = "cpu") -> Timing:
    """Times a pair at one of ``SHAPES``, on however many threads torch has."""
    generator = torch.Generator().manual_seed(0)
    x, *outputs = torch.randn(3, *SHAPES[size], generator=generator).to(device)
    theirs = getattr(diffusers, pair.theirs)(**pair.their_options)
    config = theirs.config if pair.adopt else {}
    ours = getattr(schedulers, pair.ours).from_config(config, **pair.options)
    ours.set_timesteps(STEPS)
    runs: dict[str, Run] = {
        "ours": lambda: walk(ours, x, outputs),
        "theirs": lambda: walk(theirs, x, outputs),
    }
    if max(len(op.w) for row in ours.plan.evaluations for op in row.ops) > 1:
        runs["by_hand"] = by_hand(ours.plan, x, outputs)
    for run in runs.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            seconds[name].append(run())
    medians = {name: statistics.median(s) for name, s in seconds.items()}
    waiting = [waits(scheduler, x, outputs) for scheduler in (ours, theirs)]
    return Timing(pair, size, **medians, our_waits=waiting[0], their_waits=waiting[1])


def measure_all(
    repeats: int = 15, device: str = "cpu", progress: Callable[[int, int], None] | None = None
) -> list[Timing]:
    """All pairs at both sizes, on one thread of the host; ``progress`` is told of each."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        cases, timings = [(pair, size) for size in SHAPES for pair in PAIRS], list[Timing]()
        for pair, size in cases:
            if progress is not None:
                progress(len(timings), len(cases))
            timings.append(measure(pair, size, repeats, device))
        return timings
    finally:
        torch.set_num_threads(threads)


def show_overhead(timings: Sequence[Timing], repeats: int, device: str = "cpu") -> None:
    """Prints the tables of :func:`measure_all`."""
    for size, shape in SHAPES.items():
        form = "x".join(map(str, shape))
        title = f"One step(), {form} float32 on {device}, one thread, median of {repeats}"
        table = Table("fewstep", "diffusers", box=SIMPLE_HEAD, title=f"\n{title}")
        for column in ("ours us", "theirs us", "ratio", "by hand us", "ratio"):
            table.add_column(column, justify="right")
        if torch.device(device).type == "cuda":
            table.add_column("waits, theirs", justify="right")
        for timing in timings:
            if timing.size == size:
                table.add_row(*_cells(timing))
        print_table(table)


def _cells(timing: Timing) -> list[str]:
    own, other, hand = (1e6 * s for s in (timing.ours, timing.theirs, timing.by_hand))
    cells = [str(timing.pair), timing.pair.theirs.removesuffix("Scheduler")]
    cells += [f"{own:.1f}", f"{other:.1f}", f"{own / other:.2f}"]
    cells += ["", ""] if math.isnan(hand) else [f"{hand:.1f}", f"{own / hand:.2f}"]
    if not math.isnan(timing.our_waits):
        cells += [f"{timing.our_waits:.2f}, {timing.their_waits:.2f}"]
    return cells
