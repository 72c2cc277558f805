"""Tuning by family: the tied tables, the numbers of a known method, or nodes among fine ones."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fewstep.eval.tune.featured import Featured, tune_in_features
from fewstep.eval.tune.settings import TIED, parse_family
from fewstep.samplers.core.plan import Plan
from fewstep.samplers.solvers.spec import parse_spec
from fewstep.samplers.tuning.compensation_family import compensation_numbers
from fewstep.samplers.tuning.dp import best_path, path_grid
from fewstep.samplers.tuning.epsilon import epsilon_numbers
from fewstep.samplers.tuning.grid_search import Rollouts
from fewstep.samplers.tuning.jumps import gits_cost, teacher_cost
from fewstep.samplers.tuning.klub import klub_cost, prediction_distances
from fewstep.samplers.tuning.numeric import Numbers, plan_squares, tune_numbers
from fewstep.samplers.tuning.optimise import Settings, tune_tied
from fewstep.samplers.tuning.pairs import Pairs
from fewstep.samplers.tuning.polish import Entry
from fewstep.samplers.tuning.result import Tuned, warn_no_gain
from fewstep.samplers.tuning.rollout import Calls
from fewstep.samplers.tuning.scan import SOLVERS, Landings, Start, scan
from fewstep.samplers.tuning.teacher import Teacher
from fewstep.schedules import make_grid
from fewstep.schedules.breaks import snap
from fewstep.schedules.grids import Grid
from fewstep.schedules.process import Array
from fewstep.types import Denoiser

FINE, EVERY = 60, 3  # fine steps of a search, and every how many of its nodes a rollout may take
ROLLED = ("ipndm", "unipc")  # solvers that are rolled out


@dataclass(frozen=True)
class Task:
    """What every family is tuned with.

    Attributes:
        denoiser: guided, if it will be.
        nfe: network calls.
        family: of ``fewstep.eval.tune.settings.FAMILIES``.
        tune, select: fine solutions of separate noises.
        noise: (n, ...) unit noise of ``tune``.
        settings: of the search.
        landings: where a jump may land; None for no jump.
        breakpoints: ratios where guidance is switched on or off.
        featured: where the errors of a tied table are measured; None for samples.
        progress: told what was reached, and its error on the selection noises.
    """

    denoiser: Denoiser
    nfe: int
    family: str
    tune: Teacher
    select: Teacher
    noise: Tensor
    settings: Settings
    landings: Landings | None = None
    breakpoints: tuple[float, ...] = ()
    featured: Featured | None = None
    progress: Callable[[str, float], None] = lambda what, error: None


@dataclass(frozen=True)
class _Found:
    """A plan, how many numbers were free, and the losses on the way."""

    plan: Plan
    size: int
    history: tuple[Entry, ...] = ()


def tune_family(task: Task) -> Tuned:
    """The best plan of a family, or with a warning the best fixed one.

    Raises:
        ValueError: for a family that has no plan of so many calls, or a model that is not finite.
    """
    kind, number = parse_family(task.family)
    if kind in TIED:
        settings = task.settings
        if task.featured is not None:
            settings = replace(settings, minutes=settings.minutes / 2)
        found = tune_tied(
            task.denoiser, task.nfe, task.tune, task.select, settings,
            landings=task.landings, breakpoints=task.breakpoints, progress=task.progress,
        )  # fmt: skip
        if task.featured is None:
            return found
        return tune_in_features(
            task.denoiser, found, task.tune, task.select, settings, where=task.featured,
            landings=task.landings, breakpoints=task.breakpoints,
        )  # fmt: skip
    return _Numeric(task, kind, number).tuned()


class _Numeric:
    """The families that are runs of whole plans."""

    def __init__(self, task: Task, kind: str, number: float) -> None:
        self.task, self.kind, self.number = task, kind, number
        self.began, self.calls = time.perf_counter(), Calls(task.denoiser, task.settings.batch)
        self.pairs, self.check = Pairs.of(task.tune), Pairs.of(task.select)

    @torch.no_grad()
    def tuned(self) -> Tuned:
        task = self.task
        few = Pairs.of(task.tune.part(slice(0, task.settings.scan)))
        scanned = scan(self.calls, task.nfe, few, SOLVERS, task.breakpoints)
        start = scanned[0].table.plan(scanned[0].spec)
        before = self.error(start, self.check)
        task.progress(f"best fixed solver: {scanned[0].spec}", before)
        if self.kind in ("compensation", "epsilon"):
            found = self.by_numbers(scanned)
        else:
            found = self.on_nodes()
        after = self.error(found.plan, self.check)
        task.progress(self.kind, after)
        improved = after < before
        if not improved:
            warn_no_gain(f"{task.family} at {task.nfe} calls", before, after, scanned[0].spec)
        plan = found.plan.renamed(f"tuned:{task.nfe}") if improved else start
        return Tuned(
            plan=plan, start=start, spec=scanned[0].spec, family=task.family, improved=improved,
            size=found.size, tune=self.error(plan, self.pairs), select=min(after, before),
            select_before=before, history=found.history if improved else (),
            calls=self.calls.samples / len(self.pairs), seconds=time.perf_counter() - self.began,
        )  # fmt: skip

    def error(self, plan: Plan, pairs: Pairs) -> float:
        squares = plan_squares(self.calls, plan, pairs, self.task.settings.batch)
        return math.sqrt(float(squares.mean()))

    def by_numbers(self, scanned: list[Start]) -> _Found:
        """Ratios, or divisors of the noise, of the best solver that has some."""
        settings, numbers = self.task.settings, self.numbers(scanned)
        deadline = self.began + 60 * settings.minutes
        vector, history = tune_numbers(
            self.calls, numbers, self.pairs, self.check, power=settings.power,
            steps=settings.steps, batch=settings.batch,
            stop=lambda: time.perf_counter() > deadline,
        )  # fmt: skip
        return _Found(numbers.plan(vector), len(vector), history)

    def numbers(self, scanned: list[Start]) -> Numbers:
        task = self.task
        if self.kind == "epsilon":
            return epsilon_numbers(scanned[0].table.plan(scanned[0].spec))
        for start in scanned:
            try:
                return compensation_numbers(
                    start.spec, task.denoiser.process, task.nfe, breakpoints=task.breakpoints
                )
            except ValueError:
                continue
        raise ValueError(f"no solver of the scan takes ratios at {task.nfe} calls")

    def on_nodes(self) -> _Found:
        """The best fixed solver on nodes that a search found."""
        found: list[tuple[float, int, Plan]] = []
        for grid, solvers in self.grids():
            moved = snap(grid, self.task.breakpoints)
            for solver in solvers:
                spec = parse_spec(solver)
                try:
                    plan = spec.sampler.plan(moved, moved.nfe, spec.options)
                except ValueError:
                    continue
                error = self.error(plan, self.pairs)
                found.append((error, len(found), plan))
        if not found:
            raise ValueError(f"no solver runs on the nodes of {self.task.family}")
        return _Found(min(found)[2], self.task.nfe - 1)

    def grids(self) -> list[tuple[Grid, tuple[str, ...]]]:
        """Nodes, those to the least trained level and those to 0, and the solvers to run there."""
        process, n = self.task.denoiser.process, self.task.nfe
        steps = max(FINE, 2 * EVERY * math.ceil(n / EVERY))
        fine = make_grid(process, steps, "logsnr", final="sigma_min")
        if self.kind == "search":
            return [(self.rolled(fine, solver), (solver,)) for solver in ROLLED]
        path = best_path(self.costs(fine), n, discount=self.discount)
        made = [(path_grid(fine, path, end=None), SOLVERS)]
        if self.kind == "klub":  # whose integral does not exist down to 0
            return [*made, (path_grid(fine, path, end=0.0), SOLVERS)]
        fine = make_grid(process, steps, "logsnr")
        path = best_path(self.costs(fine), n, discount=self.discount)
        return [*made, (path_grid(fine, path), SOLVERS)]

    @property
    def discount(self) -> float:
        return self.number if self.kind == "gits" else 1.0

    def costs(self, fine: Grid) -> Array:
        """Of jumps between fine nodes."""
        task, cond = self.task, self.task.tune.cond
        batch = task.settings.batch
        if self.kind == "klub":
            distances = prediction_distances(
                task.denoiser, task.tune.end, fine, cond=cond, batch=batch
            )
            return klub_cost(fine.rho, distances, power=self.number)
        if self.kind == "gits":
            return gits_cost(task.denoiser, task.noise, fine, cond=cond, batch=batch)
        order = int(self.number)
        return teacher_cost(task.denoiser, task.noise, fine, order=order, cond=cond, batch=batch)

    def rolled(self, fine: Grid, solver: str) -> Grid:
        """The nodes on which a solver stays nearest to a teacher."""
        task, every = self.task, EVERY if fine.nfe % EVERY == 0 else 1
        rollouts = Rollouts(task.denoiser, task.noise, fine, every=every, cond=task.tune.cond)
        return path_grid(fine, rollouts.search(task.nfe, solver), end=None)
