"""Teacher trajectories: fine solutions from given noises, at any ratio sigma / alpha."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep.samplers.execute import Executor
from fewstep.samplers.multistep import predictor_corrector
from fewstep.samplers.plan import Plan
from fewstep.samplers.run import levels, start_scale
from fewstep.schedules.grids import Grid, grid_from_rho
from fewstep.schedules.process import NoiseProcess
from fewstep.schedules.rules import softlog_levels
from fewstep.types import Denoiser

CALLS = 96


@dataclass(frozen=True)
class Teacher:
    """Fine solutions.

    Attributes:
        process: the noise process.
        rho: m + 1 ratios that fall; the last is the end.
        scaled: m + 1 states divided by sigma, (n, ...) each; at a last ratio of 0, x itself.
        data: m data predictions.
        cond: of the samples.
    """

    process: NoiseProcess
    rho: tuple[float, ...]
    scaled: tuple[Tensor, ...]
    data: tuple[Tensor, ...]
    cond: Any = None

    @property
    def start(self) -> Tensor:
        """(n, ...) x / sigma at the start, which is finite without signal too."""
        return self.scaled[0]

    @property
    def end(self) -> Tensor:
        """(n, ...) samples."""
        if self.rho[-1] == 0:
            return self.scaled[-1]
        return self.scaled[-1] * float(self.process.from_rho(self.rho[-1])[1])

    def at(self, rho: float) -> Tensor:
        """(n, ...) x / alpha at a finite ratio, by cubic Hermite interpolation in ln rho.

        Its slope is known: d (x / alpha) / d ln rho = x / alpha - D. Towards the noiseless end,
        where ln rho has none, and towards a start without signal, the state is linear in rho and
        x / sigma in 1 / rho, as if D were constant there.

        Raises:
            ValueError: outside the trajectory.
        """
        if not self.rho[-1] <= rho <= self.rho[0] or np.isinf(rho):
            raise ValueError(
                f"the teacher runs from sigma/alpha = {self.rho[0]:g} to {self.rho[-1]:g}; it has "
                f"no state at {rho:g}"
            )
        k = max(1, next(i for i, value in enumerate(self.rho) if value <= rho))
        high, low = self.rho[k - 1], self.rho[k]
        before, after = self.scaled[k - 1], self.scaled[k]
        if low == 0:
            return after + (rho / high) * (high * before - after)
        if np.isinf(high):
            return rho * before + low * (after - before)
        h = float(np.log(low / high))
        t = float(np.log(rho / high)) / h
        x, y = high * before, low * after
        slope_x = x - self.data[k - 1]
        slope_y = y - self.data[k] if k < len(self.data) else (y - x) / h
        return (
            (1 + 2 * t) * (1 - t) ** 2 * x + h * t * (1 - t) ** 2 * slope_x
            + t**2 * (3 - 2 * t) * y + h * t**2 * (t - 1) * slope_y
        )  # fmt: skip


@torch.no_grad()
def teach(
    denoiser: Denoiser, noises: Tensor, cond: Any = None, *, grid: Grid | int = CALLS
) -> Teacher:
    """Solves from given noises with a predictor of third order on a fine grid.

    No corrector, so that every data prediction belongs to the state that is kept beside it.

    Args:
        denoiser: the model, guided or not.
        noises: (n, ...) unit noise, as of ``sample(noise=)``.
        cond: handed to the denoiser.
        grid: noise levels, or a number of calls on :func:`fine_grid`.
    """
    if isinstance(grid, int):
        grid = fine_grid(denoiser.process, grid)
    plan = fine_plan(grid)
    executor, x = Executor(plan), noises * start_scale(plan)
    scaled, data = [], []
    for level in levels(plan):
        scaled.append(x / level.sigma)
        data.append(denoiser(x, level, cond))
        x = executor.step(level.index, data[-1], x, torch.zeros_like)
    end = plan.end[1]
    scaled.append(x / end if end else x)
    rho = tuple(plan.sigmas(native=False))
    return Teacher(denoiser.process, rho, tuple(scaled), tuple(data), cond)


def fine_grid(process: NoiseProcess, calls: int, least: float | None = None) -> Grid:
    """A fine grid of a number of calls, which ends at 0.

    Args:
        process: its range is covered.
        calls: >= 3.
        least: the last ratio before 0, with equal gaps of ln rho from the start to there; for
            models in closed form, which have no least trained level. None for a softlog grid.
    """
    if least is None:
        rho = softlog_levels(process, calls)[1:]
    else:
        finite = bool(np.isfinite(process.rho_max))
        top = process.rho_max if finite else 1 / process.rho_min
        rho = np.append(np.geomspace(top, least, calls - (not finite))[finite:], 0.0)
    return grid_from_rho(process, np.append(process.rho_max, rho))


def teacher_error(denoiser: Denoiser, noises: Tensor, teacher: Teacher) -> float:
    """The root mean square change of a teacher's end when it leaves out every second node.

    Its own error is less: a third of it at second order, a seventh at third. Half the calls.

    Args:
        denoiser: that made the teacher.
        noises: (n, ...) unit noise that made it.
        teacher: as :func:`teach` returned it.
    """
    rho = np.array(teacher.rho)
    kept = np.append(rho[:-2:2], rho[-2:])  # not the last step's, which has no fine version
    coarse = teach(denoiser, noises, teacher.cond, grid=grid_from_rho(teacher.process, kept))
    return float((coarse.end - teacher.end).double().square().mean().sqrt())


def fine_plan(grid: Grid) -> Plan:
    """The exact third-order exponential multistep method."""
    return predictor_corrector(grid, order=3, name="teacher")
