"""Teacher trajectories: fine solutions from given noises, at any ratio sigma / alpha."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep.samplers.core.execute import Executor
from fewstep.samplers.core.plan import Plan
from fewstep.samplers.core.run import levels, start_scale
from fewstep.samplers.solvers.multistep import predictor_corrector
from fewstep.samplers.tuning.batches import rows_of
from fewstep.schedules.breaks import mark, within
from fewstep.schedules.grids import Grid, grid_from_rho
from fewstep.schedules.process import Array, NoiseProcess
from fewstep.types import Denoiser

CALLS = 48
TOP = 300.0  # above, data of unit scale are all but drowned: one step does
ROUNDING = 6e-4  # of float32 networks, relative
RAMP = np.array([1, 2, 4, 8, 16]) / 16  # where the first step behind a break is divided


@dataclass(frozen=True)
class Teacher:
    """Fine solutions.

    Attributes:
        process: the noise process.
        rho: m + 1 ratios that fall; the last is the end.
        scaled: m + 1 states divided by sigma, (n, ...) each; at a last ratio of 0, x itself.
        data: m data predictions.
        cond: of the samples.
        breakpoints: those of the ratios at which the data predictions jump.
    """

    process: NoiseProcess
    rho: tuple[float, ...]
    scaled: tuple[Tensor, ...]
    data: tuple[Tensor, ...]
    cond: Any = None
    breakpoints: tuple[float, ...] = ()

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

    def part(self, rows: slice) -> "Teacher":
        """Those of some samples."""
        scaled, data = (tuple(t[rows] for t in states) for states in (self.scaled, self.data))
        cond = rows_of(self.cond, rows)
        return Teacher(self.process, self.rho, scaled, data, cond, self.breakpoints)

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
        slope_y = y - self._arriving(k)
        return (
            (1 + 2 * t) * (1 - t) ** 2 * x + h * t * (1 - t) ** 2 * slope_x
            + t**2 * (3 - 2 * t) * y + h * t**2 * (t - 1) * slope_y
        )  # fmt: skip

    def _arriving(self, k: int) -> Tensor:
        """The data prediction at node k on the side that the step to it is on."""
        if k < len(self.data) and self.rho[k] not in self.breakpoints:
            return self.data[k]
        before, middle, after = self.rho[max(0, k - 2)], self.rho[k - 1], self.rho[k]
        if k < 2 or np.isinf(before) or middle in self.breakpoints:
            return self.data[k - 1]
        share = float(np.log(after / middle) / np.log(middle / before))
        return self.data[k - 1] + share * (self.data[k - 1] - self.data[k - 2])


@torch.no_grad()
def teach(
    denoiser: Denoiser, noises: Tensor, cond: Any = None, *, grid: Grid | int = CALLS
) -> Teacher:
    """Solves from given noises with :func:`fine_plan` on a fine grid.

    Args:
        denoiser: the model, guided or not.
        noises: (n, ...) unit noise, as of ``sample(noise=)``.
        cond: handed to the denoiser.
        grid: noise levels, or a number of calls on :func:`fine_grid`. Its breaks, which guidance
            that is switched on or off needs, are the teacher's breakpoints.
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
    rho = tuple(grid.rho.tolist())
    return Teacher(denoiser.process, rho, tuple(scaled), tuple(data), cond, breaks(grid))


def breaks(grid: Grid) -> tuple[float, ...]:
    """The ratios at which a grid has breaks, falling."""
    return tuple(float(grid.rho[k]) for k in sorted(grid.breaks))


def fine_plan(grid: Grid) -> Plan:
    """The exact exponential multistep method of third order, with a corrector at each node.

    A corrector changes the state from which the next step starts, but not the predicted one at
    which the network is called: a teacher keeps that beside its output, so that the two agree.

    Root mean square errors of the end on a grid with equal gaps of ln rho, of 16 images of the
    bundled network (truth: dopri5 at 1e-6; rounding to float32 costs 1.7e-4) and of 256 samples of
    mix8 (truth: dopri8 at 1e-9), with predictors of p nodes and with correctors (PC)::

        calls, model         p = 3    p = 4    p = 5    PC 3     PC 4     ipndm
        40, fashion          9.1e-4   4.4e-4   2.1e-4   4.6e-4   2.6e-4   1.3e-3
        40, fashion, cfg:3   1.1e-3   9.7e-4   7.6e-4   7.8e-4   7.0e-4   1.6e-3
        24, fashion, cfg:3   6.5e-3   6.3e-3   1.2e-2   4.4e-3   8.6e-3   5.8e-3
        64, mix8             7.4e-4   2.1e-4   1.6e-4   2.7e-4   8.0e-5   -

    PC 3 errs least where calls are too few, and at most 2.2 (network) and 3.3 times as much as the
    best where they are enough. On the network ``unipc:order=3,grid=logsnr``, the reference of the
    benchmark, has its errors to within 1 %.
    """
    return predictor_corrector(grid, order=3, corrects=lambda e: True, name="teacher")


def fine_grid(
    process: NoiseProcess,
    calls: int,
    least: float | None = None,
    breakpoints: Sequence[float] = (),
) -> Grid:
    """A fine grid of a number of calls with equal gaps of ln rho, and a last step to 0.

    From a start above 300, or without signal, the first step leads there.

    Args:
        process: its range is covered.
        calls: >= 3, and 5 more for each breakpoint.
        least: the last ratio before 0; None for the least trained one, below which a network's
            answer means nothing. Models in closed form need 1e-3 for errors of 1e-5.
        breakpoints: ratios at which nodes are put, each marked as a break. The method starts anew
            behind it, so the first gap there is divided.

    Raises:
        ValueError: for too few calls.
    """
    least = process.rho_min if least is None else least
    inside = within((process.rho_max, least), breakpoints)
    top = min(process.rho_max, max([TOP, *(2 * ratio for ratio in inside)]))
    units = calls - 1 - (top < process.rho_max) - (len(RAMP) - 1) * len(inside)
    if units <= len(inside):
        raise ValueError(
            f"a fine grid needs at least 3 calls and 5 more for each breakpoint, got {calls} for "
            f"{len(inside)} breakpoints: use more"
        )
    edges = np.log([top, *inside, least])
    rho = [process.rho_max] if top < process.rho_max else []
    for j, count in enumerate(_shares(-np.diff(edges), units)):
        places = np.arange(count + 1.0)
        if j:
            places = np.concatenate([[0.0], RAMP, places[2:]])
        nodes = np.exp(edges[j] + (edges[j + 1] - edges[j]) * places / count)
        rho += [inside[j - 1] if j else top, *nodes[1:-1].tolist()]
    return mark(grid_from_rho(process, np.array([*rho, least, 0.0])), inside)


def _shares(lengths: Array, units: int) -> list[int]:
    """Whole numbers >= 1 of sum ``units``, in the proportion of the lengths."""
    bounds, last = [0], len(lengths)
    for j, length in enumerate(np.cumsum(lengths), 1):
        wanted = round(float(units * length / lengths.sum()))
        bounds.append(min(max(wanted, bounds[-1] + 1), units - last + j))
    return [b - a for a, b in itertools.pairwise(bounds)]


def teacher_error(denoiser: Denoiser, noises: Tensor, teacher: Teacher) -> float:
    """The root mean square error of a teacher's end, estimated by half its calls.

    Args:
        denoiser: that made the teacher.
        noises: (n, ...) unit noise that made it.
        teacher: as :func:`teach` returned it.
    """
    coarse = teach(denoiser, noises, teacher.cond, grid=coarser(teacher))
    return error_from(coarse.end, teacher.end)


def error_from(coarse: Tensor, fine: Tensor) -> float:
    """The error of an end, from that of :func:`coarser`: a third of their difference.

    The true error was 0.05 to 0.26 of it with 32 to 192 calls on mix8, ring2 (betas scaled, linear
    and, mix8, as a flow) and 32 to 64 on the bundled network, plain and under cfg:3; at 24 calls
    up to 0.78. In float32 rounding is up to 5e-4 of the samples' size (measured with 96 calls), and
    the third alone would hide it. What the last step adds, both have: of order its ratio squared.

    Args:
        coarse, fine: (n, ...) ends of the same noises.
    """
    change = float((coarse - fine).double().square().mean().sqrt())
    if fine.dtype == torch.float64:
        return change / 3
    return max(change / 3, min(change, ROUNDING * float(fine.double().square().mean().sqrt())))


def coarser(teacher: Teacher) -> Grid:
    """Every second node of a teacher's grid; its breaks and the last step stay."""
    rho, last = teacher.rho, len(teacher.rho) - 2  # the last step has no fine version
    edges = [0, *(rho.index(ratio) for ratio in teacher.breakpoints), last]
    kept = [k for a, b in itertools.pairwise(edges) for k in range(a, b, 2)]
    grid = grid_from_rho(teacher.process, np.array([rho[k] for k in (*kept, last, last + 1)]))
    return mark(grid, teacher.breakpoints)
