"""How long a tuning takes, and how far it is."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.eval.common.amounts import seconds_text
from fewstep.eval.problems import Problem
from fewstep.eval.tune.families import EVERY, FINE, ROLLED
from fewstep.eval.tune.judge import FIXED
from fewstep.eval.tune.settings import TuneSettings, batch_of, parse_family
from fewstep.samplers.tuning.optimise import FIRST_STEPS, FITTED, Settings
from fewstep.samplers.tuning.scan import ENDS, GRIDS, HISTORIES, LANDED, SCALES, SOLVERS
from fewstep.schedules import NoiseProcess
from fewstep.types import Denoiser, Level

SCANNED = len(SOLVERS) * len(GRIDS) * len(ENDS)  # tables of a scan, at most
# Calls for each tuning noise of searches among fine nodes, of n calls.
SEARCHED: dict[str, Callable[[int], int]] = {
    "klub": lambda n: FINE,
    "gits": lambda n: 2 * FINE,
    "teacher": lambda n: 2 * FINE,
    "search": lambda n: len(ROLLED) * n * BEAM * FINE // EVERY,
}
FEW, KEPT = 8, 16  # noises of a first scan for the report, and tables that go on to all of them
LANDED_TABLES = len(SCALES) * len(HISTORIES) * LANDED

BEAM = 3  # paths that a rollout keeps

Progress = Callable[[float, float, str], None]  # (seconds done, in all, what runs now)


class Stages:
    """Tells how much of a run is done, from what each of its stages was estimated to take."""

    def __init__(self, seconds: Mapping[str, float], progress: Progress) -> None:
        self.seconds, self.progress = dict(seconds), progress
        self.stage, self.spent, self._began = "", dict[str, float](), time.perf_counter()

    def enter(self, stage: str) -> None:
        self._close()
        self.stage, self._began = stage, time.perf_counter()
        self.at(0.0)

    def at(self, share: float, text: str = "") -> None:
        """So much of the stage is done."""
        names = list(self.seconds)
        before = sum(self.seconds[name] for name in names[: names.index(self.stage)])
        done = before + min(share, 1.0) * self.seconds[self.stage]
        self.progress(done, sum(self.seconds.values()), text or self.stage)

    def by_time(self) -> float:
        """The share of the stage by the clock."""
        return (time.perf_counter() - self._began) / max(self.seconds[self.stage], 1e-9)

    def finish(self) -> dict[str, float]:
        """Seconds that each stage took."""
        self._close()
        total = sum(self.seconds.values())
        self.progress(total, total, "done")
        return self.spent

    def _close(self) -> None:
        if self.stage:
            self.spent[self.stage] = round(time.perf_counter() - self._began, 2)


@dataclass(frozen=True)
class Ticking:
    """A denoiser that tells of each of its calls."""

    denoiser: Denoiser
    tick: Callable[[], None]

    @property
    def process(self) -> NoiseProcess:
        return self.denoiser.process

    def __call__(self, x: Tensor, level: Level, cond: Any = None) -> Tensor:
        made = self.denoiser(x, level, cond)
        self.tick()
        return made


@torch.no_grad()
def speed(problem: Problem, denoiser: Denoiser) -> float:
    """Samples a second that a denoiser takes, in a batch as tuning has them."""
    n = batch_of(problem)
    x, labels = problem.initial_noise(min(n, 64), 0, problem.dtype), problem.labels(n)
    x = x.repeat(math.ceil(n / len(x)), *[1] * (x.ndim - 1))[:n]
    float(denoiser(x, problem.start_level, labels).sum())  # loads what the first call loads
    began = time.perf_counter()
    float(denoiser(x, problem.start_level, labels).sum())  # waits for the device
    return n / (time.perf_counter() - began)


def estimate(
    settings: TuneSettings, problem: Problem, rate: float, teacher_calls: int, fitted: int
) -> dict[str, float]:
    """Seconds of each stage at most, if the network is all that takes time.

    Args:
        settings, problem: of the run.
        rate: samples a second of the guided denoiser.
        teacher_calls: of each noise.
        fitted: samples for a Gaussian times their calls; 0 for no Gaussian.
    """
    tune, select, report = settings.counts(problem)
    search, n = settings.search(problem), settings.nfe
    few = min(search.scan, tune)
    scanned = few * (SCANNED + (LANDED_TABLES if fitted else 0)) * n
    kind, _ = parse_family(settings.family)
    tuned = (scanned + tuning_calls(search, n, tune, select)) / rate
    if kind in SEARCHED:  # which run to their end
        tuned = (scanned + tune * SEARCHED[kind](n)) / rate
    teacher, gaussian = (tune + select + report + 32) * teacher_calls / rate, fitted / rate
    if kind not in SEARCHED:
        tuned = min(60 * minutes_left(settings.minutes, (teacher + gaussian) / 60), tuned)
    again = 2 * n * (min(few, FEW) * SCANNED + few * KEPT)
    reported = (report_calls(report, n) + again) / rate
    return {"teacher": teacher, "Gaussian": gaussian, "tuning": tuned + 1, "report": reported}


def minutes_left(minutes: float, spent: float) -> float:
    """For the tuning itself, a quarter of all at least."""
    return max(minutes - spent, minutes / 4)


def tuning_calls(search: Settings, n: int, tune: int, select: int) -> float:
    """Samples times calls of least squares and polish, if no start ends early."""
    steps = search.starts * min(FIRST_STEPS, search.steps)
    steps += math.ceil(search.starts / 3) * max(0, search.steps - FIRST_STEPS)
    numbers = (n - 1) + n * (n - 1) // 2
    polished = steps * n * (tune * (numbers / 2 + 4) + select)
    return FITTED * search.starts * (tune + select) * n + polished


def report_calls(samples: int, nfe: int) -> int:
    """Samples times calls of the runs that a report compares."""
    return samples * nfe * (3 * (len(FIXED) + 2) + 2)


def estimate_line(seconds: Mapping[str, float], rate: float) -> str:
    """The estimate in one line."""
    parts = [f"{name} {seconds_text(spent)}" for name, spent in seconds.items() if spent]
    total = seconds_text(sum(seconds.values()))
    return (
        f"calls of the network take about {total} at most, at {rate:.3g} samples a second: "
        f"{', '.join(parts)}"
    )
