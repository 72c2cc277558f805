"""``fewstep tune``: from a model to a tuned plan, its file and its report."""

import time
import warnings
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from fewstep.eval.tune.families import Task, tune_family
from fewstep.eval.tune.judge import Error, Judge
from fewstep.eval.tune.landings import (
    CALLS,
    Fit,
    cfg_scale,
    find_landings,
    fitted_count,
    model_samples,
)
from fewstep.eval.tune.report import write_tuning
from fewstep.eval.tune.settings import TIED, TuneSettings, batch_of
from fewstep.eval.tune.setup import Setup
from fewstep.eval.tune.stages import (
    FEW,
    KEPT,
    Progress,
    Stages,
    Ticking,
    estimate,
    estimate_line,
    minutes_left,
    report_calls,
    speed,
)
from fewstep.eval.tune.teachers import cached_teacher, error_of, teacher_grid
from fewstep.eval.tune.tuning import Tuning
from fewstep.samplers.gaussian.class_gaussians import ClassGaussians
from fewstep.samplers.gaussian.gaussian import Gaussian, GaussianFit
from fewstep.samplers.tuning.pairs import Pairs
from fewstep.samplers.tuning.result import Tuned
from fewstep.samplers.tuning.rollout import Calls
from fewstep.samplers.tuning.scan import SOLVERS, Landings, rms, scan
from fewstep.samplers.tuning.teacher import Teacher

SHOWN = 10  # samples of each sampler in a report


@torch.no_grad()
def run_tune(
    settings: TuneSettings | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> Tuning:
    """Tunes a plan, measures it on noises that took no part and, if asked to, writes it.

    Teachers are kept on disk, so that a run that was stopped goes on with those.

    Args:
        settings: what to tune, and where to write it; the bundled model at 5 calls if None.
        progress: told how far the run is: estimated seconds done and in all, and what runs now.
        say: told what a user should know on the way, line by line.

    Raises:
        ValueError: in one line, for settings that do not fit; before anything is sampled.
        FileNotFoundError: for weights or prompts that are missing.
    """
    setup, say = Setup.of(settings or TuneSettings()), say or (lambda line: None)
    return _Run(setup, progress or (lambda done, total, text: None), say).tuning()


class _Run:
    """The stages of a run."""

    def __init__(self, setup: Setup, progress: Progress, say: Callable[[str], None]) -> None:
        self.setup, self.say = setup, say
        settings, problem = setup.settings, setup.problem
        self.grid = teacher_grid(problem, setup.guidance.expression)
        fitted = fitted_count(problem) * CALLS if settings.lands else 0
        rate = speed(problem, setup.denoiser)
        seconds = estimate(settings, problem, rate, self.grid.nfe, fitted)
        say(estimate_line(seconds, rate))
        if settings.teleport is None and not settings.lands and settings.family in TIED:
            say(f"no start by a Gaussian is tried, which {settings.out} cannot hold: a folder can")
        self.began = time.perf_counter()
        self.stages = Stages(seconds, progress)

    def tuning(self) -> Tuning:
        setup, stages = self.setup, self.stages
        stages.enter("teacher")
        teachers = {name: self.teacher(name) for name in ("tune", "select", "report")}
        report = teachers["report"]
        own = error_of(
            setup.problem, report, setup.splits["report"].noise, setup.guidance.expression
        )
        self.say(f"the teacher's own error: {own:.2g}, with {self.grid.nfe} calls")
        landings = self.landings(teachers["tune"]) if setup.settings.lands else None
        stages.enter("tuning")
        found = self.tuned(teachers, landings)
        stages.enter("report")
        made = self.judged(found, teachers, landings)
        made = replace(made, teacher=own, seconds=stages.finish())
        for line in made.notes():
            self.say(line)
        if setup.settings.out is not None:
            write_tuning(made, setup.settings.out)
        return made

    def teacher(self, name: str) -> Teacher:
        """The fine solutions of a purpose."""
        splits, split = self.setup.splits, self.setup.splits[name]
        everything = sum(map(len, splits.values()))
        before = sum(len(splits[other]) for other in list(splits)[: list(splits).index(name)])

        def told(done: int, total: int) -> None:
            share = (before + len(split) * done / total) / everything
            self.stages.at(share, f"teacher: noises to {name}")

        return cached_teacher(
            self.setup.problem, split.noise, split.labels, self.setup.guidance.expression,
            grid=self.grid, progress=told,
        )  # fmt: skip

    def landings(self, teacher: Teacher) -> Landings:
        setup, stages = self.setup, self.stages
        stages.enter("Gaussian")
        samples, labels = model_samples(
            setup.problem, setup.guidance.expression, setup.settings.seed, len(teacher.start),
            lambda done, total: stages.at(done / total),
        )  # fmt: skip
        scale = cfg_scale(setup.guidance.expression)
        return find_landings(setup.problem, samples, labels, teacher, scale)

    def tuned(self, teachers: dict[str, Teacher], landings: Landings | None) -> Tuned:
        setup, stages, split = self.setup, self.stages, self.setup.splits["tune"]
        said = ["scan"]

        def told(what: str, error: float) -> None:
            said[0] = f"{what}: error {error:.4g}"

        spent = time.perf_counter() - self.began
        search = replace(
            setup.settings.search(setup.problem),
            minutes=minutes_left(setup.settings.minutes, spent / 60),
        )
        task = Task(
            Ticking(setup.denoiser, lambda: stages.at(stages.by_time(), said[0])),
            setup.settings.nfe, setup.settings.family, teachers["tune"], teachers["select"],
            split.noise / setup.problem.start_scale, search,
            landings, setup.breakpoints, setup.featured, told,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*gains nothing")  # notes() has it
            return tune_family(task)

    def judged(
        self, found: Tuned, teachers: dict[str, Teacher], landings: Landings | None
    ) -> Tuning:
        """Everything measured on the noises to report on."""
        setup, split, n = self.setup, self.setup.splits["report"], self.setup.settings.nfe
        total, done = report_calls(len(split), n), 0

        def ran(calls: int) -> None:
            nonlocal done
            done += calls
            self.stages.at(done / total)

        goal = teachers["report"].end
        judge = Judge(
            setup.problem, setup.guidance.expression, split.noise, split.labels, goal, ran,
            None if setup.featured is None else setup.featured.features,
        )  # fmt: skip
        fit = _kept(landings.fit) if landings and found.landing is not None else None
        specs = [found.spec, self.best_at(2 * n, teachers["tune"])]
        fixed: dict[str, dict[int, Error]] = {}
        for nfe in (n, 2 * n):
            for spec, error in judge.fixed(specs, nfe):
                fixed.setdefault(spec, {})[nfe] = error
        made = Tuning(
            setup, found, fit, judge.error(found.plan, fit), judge.error(found.start), fixed, 0.0
        )
        return replace(made, pictures=self.pictures(judge, made))

    def best_at(self, nfe: int, teacher: Teacher) -> str:
        """The best solver and grid at a number of calls: all on a few noises, the better on more.

        The noises are those that tuning scans on.
        """
        setup = self.setup
        calls = Calls(setup.denoiser, batch_of(setup.problem))
        more = teacher.part(slice(0, setup.settings.search(setup.problem).scan))
        few = Pairs.of(more.part(slice(0, FEW)))
        found = scan(calls, nfe, few, SOLVERS, setup.breakpoints)[:KEPT]
        return min(found, key=lambda start: rms(calls, start.table, Pairs.of(more))).spec

    def pictures(self, judge: Judge, made: Tuning) -> dict[str, Tensor]:
        """The first samples of a few, if they are images."""
        problem, n = self.setup.problem, self.setup.settings.nfe
        if len(problem.image_shape) != 3 or problem.image_shape[0] not in (1, 3):
            return {}
        count = min(SHOWN, len(judge.noise))
        rows = {
            f"start, {n} calls": judge.run(made.found.start, None, count),
            f"tuned, {n} calls": judge.run(made.found.plan, made.gaussian, count),
        }
        best = made.best(2 * n)
        plan = None if best is None else judge.plan(best[0], 2 * n)
        if best is not None and plan is not None:
            rows[f"{best[0]}, {2 * n} calls"] = judge.run(plan, None, count)
        rows[f"teacher, {self.grid.nfe} calls"] = judge.goal[:count]
        return {name: problem.images(x).cpu() for name, x in rows.items()}


def _kept(fit: Gaussian) -> Fit:
    assert isinstance(fit, GaussianFit | ClassGaussians)
    return fit
