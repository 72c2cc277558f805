"""Tuning nodes and coefficients: a scan of fixed solvers, least squares, then a polish."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from fewstep.samplers.tuning.family import Family, Free
from fewstep.samplers.tuning.least_squares import RIDGE, least_squares
from fewstep.samplers.tuning.objective import Objective, floor_of
from fewstep.samplers.tuning.pairs import Pairs
from fewstep.samplers.tuning.polish import BATCH, Polished, polish
from fewstep.samplers.tuning.result import Tuned, warn_no_gain
from fewstep.samplers.tuning.rollout import Calls
from fewstep.samplers.tuning.scan import (
    SOLVERS,
    Landings,
    Start,
    pairs_from,
    rms,
    scan,
    scan_landed,
    solver_on,
)
from fewstep.samplers.tuning.teacher import Teacher
from fewstep.samplers.tuning.tied import Tied
from fewstep.types import Denoiser

FIRST_STEPS = 6  # Jacobians of every start, after which the worse ones go
FITTED = 4  # tables fitted by least squares for each that is polished


@dataclass(frozen=True)
class Settings:
    """How to tune.

    Attributes:
        free: ``"both"``, ``"grid"`` (the solver is rebuilt on it) or ``"coefficients"``.
        band: outputs before its own that a step may use; None for all.
        starts: how many tables are tuned for a few steps, those that least squares brings closest
            on the selection noises; the third of them that is best there goes on.
        power: of :class:`Objective`; 0 counts squares, 1 distances.
        ridge: of the least squares.
        steps: Jacobians of each start, at most; 0 for least squares alone.
        scan: noises that fixed solvers are scanned on, at most.
        minutes: after which no step begins.
        batch: most samples in a network call.
    """

    free: Free = "both"
    band: int | None = None
    starts: int = 6
    power: float = 0.5
    ridge: float = RIDGE
    steps: int = 40
    scan: int = 1024
    minutes: float = 8.0
    batch: int = BATCH

    def __post_init__(self) -> None:
        if not 0 <= self.power <= 1:
            raise ValueError(f"power must lie in 0 to 1, got {self.power}")
        least = min(self.starts, self.batch, self.scan)
        if least < 1 or self.steps < 0 or not self.minutes > 0:
            raise ValueError(
                f"tuning needs starts, batch and scan >= 1, steps >= 0 and minutes > 0, got "
                f"{self.starts}, {self.batch}, {self.scan}, {self.steps} and {self.minutes}"
            )


@torch.no_grad()
def tune_tied(
    denoiser: Denoiser,
    nfe: int,
    tune: Teacher,
    select: Teacher,
    settings: Settings | None = None,
    *,
    solvers: Sequence[str] = SOLVERS,
    landings: Landings | None = None,
    breakpoints: Sequence[float] = (),
    progress: Callable[[str, float], None] = lambda what, error: None,
) -> Tuned:
    """Fits nodes and coefficients of ``nfe`` calls to a teacher.

    The best few of a scan of fixed solvers and grids are fitted by least squares, then polished on
    the error at the end; so are those that start from a landing. What has the least root mean
    square error on the selection noises is kept.

    Args:
        denoiser: the model, guided or not; the same sample must get the same answer, whatever was
            asked before, so no guidance with memory.
        nfe: network calls, >= 1.
        tune: fine solutions to fit to; 256 noises or more, fewer for images.
        select: fine solutions of other noises, that decide when to stop and what is kept.
        settings: how.
        solvers: specs of the scan; those with no grid are tried on each of ``GRIDS``.
        landings: where a jump may land; None for no jump.
        breakpoints: ratios where the denoiser may jump, as of guidance that is switched on there.
        progress: told what was reached, and its error on the selection noises.

    Returns:
        The table and how it was found; the start's, with a warning, if it is no better.

    Raises:
        ValueError: for nfe < 1, teachers of another process, or a model that is not finite.
    """
    settings = settings or Settings()
    if nfe < 1:
        raise ValueError(f"a sampler needs at least 1 call, got nfe = {nfe}")
    began, calls = time.perf_counter(), Calls(denoiser, settings.batch)
    few, points = tune.part(slice(0, settings.scan)), tuple(breakpoints)
    scanned = scan(calls, nfe, Pairs.of(few), solvers, points)
    fixed = scanned[0]
    check = Pairs.of(select)
    before = rms(calls, fixed.table, check)
    progress(f"best fixed solver: {fixed.spec}", before)
    landed = scan_landed(calls, nfe, few, scanned, landings, points) if landings else []
    squares = Objective(Pairs.of(tune)).squares(calls, fixed.table)
    search = _Search(calls, tune, select, settings, points, landings, floor_of(squares),
                     began + 60 * settings.minutes, progress)  # fmt: skip
    best = search.best_of([group for group in (scanned, landed) if group])
    after = rms(calls, best.table, search.pairs(best.table, select))
    improved = after < before
    if not improved:
        warn_no_gain(f"tuning at {nfe} calls", before, after, fixed.spec)
    table = best.table if improved else fixed.table
    return Tuned(
        plan=table.plan(f"tuned:{nfe}") if improved else fixed.table.plan(fixed.spec),
        start=fixed.table.plan(fixed.spec), spec=fixed.spec, family="tied", improved=improved,
        size=_size(table, settings, points),
        tune=rms(calls, table, search.pairs(table, tune)), select=after if improved else before,
        select_before=before, history=best.history if improved else (),
        calls=calls.samples / len(tune.start), seconds=time.perf_counter() - began,
    )  # fmt: skip


def _size(table: Tied, settings: Settings, breakpoints: tuple[float, ...]) -> int:
    """How many numbers were free: levels too, if there was a polish."""
    free = settings.free if settings.steps else "coefficients"
    return Family(table, free, settings.band, breakpoints=breakpoints).size


@dataclass
class _Search:
    """What every start is tuned with."""

    calls: Calls
    tune: Teacher
    select: Teacher
    settings: Settings
    breakpoints: tuple[float, ...]
    landings: Landings | None
    floor: float
    deadline: float
    progress: Callable[[str, float], None]

    def stop(self) -> bool:
        return time.perf_counter() > self.deadline

    def pairs(self, table: Tied, teacher: Teacher) -> Pairs:
        return pairs_from(table, teacher, self.landings)

    def objective(self, table: Tied, teacher: Teacher) -> Objective:
        return Objective(self.pairs(table, teacher), self.settings.power, self.floor)

    def best_of(self, groups: Sequence[Sequence[Start]]) -> Polished:
        """The table of least error; each group may take its share of the time that is left."""
        end, found = self.deadline, []
        for later, group in enumerate(groups):
            now = time.perf_counter()
            self.deadline = now + (end - now) / (len(groups) - later)
            found.append(self.best(self.starts(group)))
        return min(
            found, key=lambda one: rms(self.calls, one.table, self.pairs(one.table, self.select))
        )

    def starts(self, scanned: Sequence[Start]) -> list[tuple[Family, Tied]]:
        """Families and tables to polish from: what least squares does best with."""
        settings, made = self.settings, []
        for start in scanned[: FITTED * settings.starts]:
            table = start.table
            if settings.free == "grid":
                if table.history:
                    continue  # the solver would have to be rebuilt above the landing too
                rebuild = solver_on(start.spec, table.process, self.breakpoints)
                family = Family(table, "grid", rebuild=rebuild, breakpoints=self.breakpoints)
            else:
                table = least_squares(
                    self.calls, table, self.tune, ridge=settings.ridge, band=settings.band,
                    pairs=self.pairs(table, self.tune), breakpoints=self.breakpoints,
                )  # fmt: skip
                family = Family(table, settings.free, settings.band, None, self.breakpoints)
            goal = self.objective(table, self.select)
            made.append((goal.loss(goal.squares(self.calls, table)), family, table))
            if self.stop():
                break
        made.sort(key=lambda entry: entry[0])
        self.progress("least squares", made[0][0])
        return [(family, table) for _, family, table in made[: settings.starts]]

    def best(self, starts: Sequence[tuple[Family, Tied]]) -> Polished:
        """A few steps from every start, the rest from the better third."""
        first = min(FIRST_STEPS, self.settings.steps)
        found = [(family, self.polished(family, table, first)) for family, table in starts]
        found.sort(key=lambda pair: pair[1].select)
        done = [found[0][1]]
        for family, one in found[: math.ceil(len(found) / 3)]:
            more = self.polished(family, one.table, self.settings.steps - first)
            done.append(replace(more, history=(*one.history, *more.history[1:])))
        return min(done, key=lambda one: one.select)

    def polished(self, family: Family, table: Tied, steps: int) -> Polished:
        goal, check = (self.objective(table, t) for t in (self.tune, self.select))
        run = partial(polish, self.calls, family, table, goal, check)
        found = run(steps=steps, batch=self.settings.batch, stop=self.stop)
        self.progress("polish", found.select)
        return found
