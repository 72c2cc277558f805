"""Tuning nodes and coefficients: a scan of fixed solvers, least squares, then a polish."""

import itertools
import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from fewstep.samplers.spec import parse_spec
from fewstep.samplers.tuning.family import Family, Free, Rebuild
from fewstep.samplers.tuning.flatten import flatten
from fewstep.samplers.tuning.least_squares import RIDGE, least_squares
from fewstep.samplers.tuning.objective import Objective, Pairs
from fewstep.samplers.tuning.polish import BATCH, Entry, Polished, polish
from fewstep.samplers.tuning.rollout import Calls
from fewstep.samplers.tuning.teacher import Teacher
from fewstep.samplers.tuning.tied import Tied
from fewstep.schedules.grids import grid_from_rho
from fewstep.schedules.process import NoiseProcess
from fewstep.types import Denoiser

SOLVERS = ("unipc", "unipc:solver_type=bh1", "dpmpp:order=2", "dpmpp:order=3", "ipndm", "deis")
GRIDS = ("softlog", "karras", "logsnr", "linspace", "quadratic", "tan", "beta")
ENDS = ("zero", "sigma_min")
FIRST_STEPS = 6  # Jacobians of every start, after which the worse ones go


@dataclass(frozen=True)
class Settings:
    """How to tune.

    Attributes:
        free: ``"both"``, ``"grid"`` (the solver is rebuilt on it) or ``"coefficients"``.
        band: outputs before its own that a step may use; None for all.
        starts: how many of the scan are tuned for a few steps; the third of them that is best on
            the selection noises goes on.
        power: of :class:`Objective`; 0 counts squares, 1 distances.
        ridge: of the least squares.
        steps: Jacobians of each start, at most; 0 for least squares alone.
        minutes: after which no step begins.
        batch: most samples in a network call.
    """

    free: Free = "both"
    band: int | None = None
    starts: int = 6
    power: float = 0.5
    ridge: float = RIDGE
    steps: int = 40
    minutes: float = 8.0
    batch: int = BATCH

    def __post_init__(self) -> None:
        if not 0 <= self.power <= 1:
            raise ValueError(f"power must lie in 0 to 1, got {self.power}")
        if self.starts < 1 or self.steps < 0 or self.batch < 1 or not self.minutes > 0:
            raise ValueError(
                f"tuning needs starts >= 1, steps >= 0, batch >= 1 and minutes > 0, got "
                f"{self.starts}, {self.steps}, {self.batch} and {self.minutes}"
            )


@dataclass(frozen=True)
class Start:
    """A fixed solver of the scan, as a table, with its root mean square errors."""

    spec: str
    table: Tied
    tune: float


@dataclass(frozen=True)
class Tuned:
    """What tuning found.

    Attributes:
        table: the tuned one, or that of the start if nothing was gained.
        start: the fixed solver it is compared with, the best of the scan.
        improved: whether ``table`` is another than the start's.
        size: how many numbers were free.
        tune, select: root mean square errors of ``table`` on the two sets of noises.
        select_before: that of the start on the selection noises.
        history: losses of the steps that led to ``table``.
        calls: network calls for each tuning noise, those of the scan included.
        seconds: that it took.
    """

    table: Tied
    start: Start
    improved: bool
    size: int
    tune: float
    select: float
    select_before: float
    history: tuple[Entry, ...]
    calls: float
    seconds: float


@torch.no_grad()
def tune_tied(
    denoiser: Denoiser,
    nfe: int,
    tune: Teacher,
    select: Teacher,
    settings: Settings | None = None,
    *,
    solvers: Sequence[str] = SOLVERS,
) -> Tuned:
    """Fits nodes and coefficients of ``nfe`` calls to a teacher.

    The best few of a scan of fixed solvers and grids are fitted by least squares, then polished on
    the error at the end. What is best on the selection noises is kept.

    Args:
        denoiser: the model, guided or not; the same sample must get the same answer, whatever was
            asked before, so no guidance with memory.
        nfe: network calls, >= 1.
        tune: fine solutions to fit to; 256 noises or more, fewer for images.
        select: fine solutions of other noises, that decide when to stop and what is kept.
        settings: how.
        solvers: specs of the scan; those with no grid are tried on each of ``GRIDS``.

    Returns:
        The table and how it was found; the start's, with a warning, if it is no better.

    Raises:
        ValueError: for nfe < 1, teachers of another process, or a model that is not finite.
    """
    settings = settings or Settings()
    if nfe < 1:
        raise ValueError(f"a sampler needs at least 1 call, got nfe = {nfe}")
    began, calls = time.perf_counter(), Calls(denoiser)
    pairs, others = Pairs.of(tune), Pairs.of(select)
    scanned = scan(calls, nfe, pairs, solvers)
    fixed = scanned[0]
    squares = Objective(pairs).squares(calls, fixed.table)
    floor = max(float(squares.median()), 1e-12 * float(squares.mean()) + 1e-30)
    goal, check = (Objective(p, settings.power, floor) for p in (pairs, others))

    def stop() -> bool:
        return time.perf_counter() - began > 60 * settings.minutes

    best = _best(calls, _starts(calls, scanned, tune, settings), goal, check, settings, stop)
    rms = [_rms(calls, table, others) for table in (fixed.table, best.table)]
    improved = rms[1] < rms[0]
    if not improved:
        warnings.warn(
            f"tuning at {nfe} calls gains nothing on the selection noises (error {rms[0]:.4g} "
            f"before, {rms[1]:.4g} after): the table of {fixed.spec!r} is kept",
            stacklevel=2,
        )
    table = best.table if improved else fixed.table
    return Tuned(
        table, fixed, improved, Family(table, settings.free, settings.band).size,
        _rms(calls, table, pairs), rms[improved], rms[0], best.history if improved else (),
        calls.samples / len(pairs), time.perf_counter() - began,
    )  # fmt: skip


def _best(
    calls: Calls,
    starts: Sequence[tuple[Family, Tied]],
    goal: Objective,
    check: Objective,
    settings: Settings,
    stop: Callable[[], bool],
) -> Polished:
    """A few steps from every start, the rest from the better third."""
    first = min(FIRST_STEPS, settings.steps)
    run = partial(polish, calls, tune=goal, select=check, batch=settings.batch, stop=stop)
    found = [(family, run(family, table, steps=first)) for family, table in starts]
    found.sort(key=lambda pair: pair[1].select)
    done = [found[0][1]]
    for family, one in found[: math.ceil(len(found) / 3)]:
        more = run(family, one.table, steps=settings.steps - first)
        done.append(replace(more, history=(*one.history, *more.history[1:])))
    return min(done, key=lambda one: one.select)


def scan(calls: Calls, nfe: int, pairs: Pairs, solvers: Sequence[str] = SOLVERS) -> list[Start]:
    """Fixed solvers on fixed grids, those that have a tied form, the least error first.

    Raises:
        ValueError: if there is none, or the model is not finite.
    """
    process = calls.denoiser.process
    found: dict[tuple[float, ...], Start] = {}
    for solver, grid, final in itertools.product(solvers, GRIDS, ENDS):
        options = "" if "grid=" in solver else f"grid={grid},final={final}"
        spec = f"{solver}{',' if ':' in solver else ':'}{options}" if options else solver
        try:
            table = flatten(parse_spec(spec).build(process, nfe), process)
        except ValueError:
            continue  # a grid that this many calls cannot divide, two calls at a level
        key = (*table.rho, *table.weights().flatten().tolist())
        if table.rho[0] == process.rho_max and key not in found:
            found[key] = Start(spec, table, _rms(calls, table, pairs))
    if not found:
        raise ValueError(f"no solver of {list(solvers)} has a tied form at {nfe} calls")
    ordered = sorted(found.values(), key=lambda start: start.tune)
    if not math.isfinite(ordered[0].tune):
        raise ValueError(
            "the runs of every fixed solver are not finite on these noises: check the denoiser "
            "and its conditions"
        )
    return ordered


def _starts(
    calls: Calls, scanned: Sequence[Start], teacher: Teacher, settings: Settings
) -> list[tuple[Family, Tied]]:
    """Families and tables to polish from: least squares on the grids of the best fixed solvers."""
    made = []
    for start in scanned[: settings.starts]:
        table = start.table
        if settings.free == "grid":
            rebuild = solver_on(start.spec, table.process)
            made.append((Family(table, "grid", rebuild=rebuild), table))
            continue
        table = least_squares(calls, table, teacher, ridge=settings.ridge, band=settings.band)
        made.append((Family(table, settings.free, settings.band), table))
    return made


def solver_on(spec: str, process: NoiseProcess) -> Rebuild:
    """From n + 1 ratios to the table of a solver there."""
    known = parse_spec(spec)

    def rebuild(rho: tuple[float, ...]) -> Tied:
        grid = grid_from_rho(process, torch.tensor(rho, dtype=torch.float64).numpy())
        return flatten(known.sampler.plan(grid, grid.nfe, known.options), process)

    return rebuild


def _rms(calls: Calls, table: Tied, pairs: Pairs) -> float:
    return math.sqrt(float(Objective(pairs).squares(calls, table).mean()))
