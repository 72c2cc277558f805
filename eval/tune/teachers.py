"""Noises to tune, select and report on, and the fine solutions from them, kept on disk."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep.eval.common.cache import cached
from fewstep.eval.common.keys import checked_field, reference_key
from fewstep.eval.problems import Problem, rmse
from fewstep.eval.problems.problem import SOLVED_ELEMENTS, SOLVED_SAMPLES
from fewstep.guidance import Expression
from fewstep.samplers.tuning.batches import parts
from fewstep.samplers.tuning.teacher import (
    Teacher,
    breaks,
    coarser,
    error_from,
    fine_grid,
    fine_plan,
    teach,
)
from fewstep.schedules import NoiseProcess
from fewstep.schedules.breaks import TOLERANCE, within
from fewstep.schedules.grids import Grid
from fewstep.types import Denoiser, Level

NETWORK_CALLS, EXACT_CALLS = 48, 128
CALLS_PER_BREAK = 8  # more for each breakpoint, behind which the first gap is divided
EXACT_LEAST = 1e-3  # sigma / alpha of an exact model's last call
CHECKED = 64  # samples by which the error of a teacher is measured, at most
STREAMS = ("tune", "select", "report")
STREAM_WORD = 0xF5E90000  # third 32-bit word of our seeds; index of no sample of another seed

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Split:
    """Noises of one purpose.

    Attributes:
        seed: of :meth:`Problem.initial_noise`; no two purposes share one.
        noise: (n, ...) states at the start.
        labels: (n,) random classes, or None without classes.
    """

    seed: int
    noise: Tensor
    labels: Tensor | None

    def __len__(self) -> int:
        return len(self.noise)


def split_noises(problem: Problem, seed: int, counts: Mapping[str, int]) -> dict[str, Split]:
    """Separate noises and random classes to tune, to select and to report on.

    Sample i of a purpose depends on ``seed``, the purpose and i alone, so more samples begin with
    the fewer ones. A benchmark's samples have seeds below 2^64, and so other noise than these.

    Args:
        problem: gives shape, dtype and device.
        seed: 0 .. 2^64 - 1.
        counts: samples of each purpose: ``"tune"``, ``"select"``, ``"report"``.

    Raises:
        ValueError: for another seed, purpose or count.
    """
    if not 0 <= seed < 2**64:
        raise ValueError(f"the seed of tuning must lie in 0 .. 2^64 - 1, got {seed}")
    found = {}
    for name, n in counts.items():
        if name not in STREAMS or n < 1:
            raise ValueError(
                f"noises are for {', '.join(STREAMS)}, at least 1 each, got {n} for {name!r}"
            )
        own = seed + ((STREAM_WORD + STREAMS.index(name)) << 64)
        noise = problem.initial_noise(n, own, problem.dtype)
        found[name] = Split(own, noise, _labels(problem, n, own))
    return found


def _labels(problem: Problem, n: int, seed: int) -> Tensor | None:
    if not problem.num_classes:
        return None
    # The word behind the seed is that of no sample, which count from 0.
    generator = np.random.default_rng(np.random.SeedSequence((seed, 2**32 - 1)))
    drawn = generator.random(n) * problem.num_classes
    return torch.from_numpy(drawn.astype(np.int64)).to(problem.device)


def teacher_grid(
    problem: Problem, guidance: Expression | None = None, calls: int | None = None
) -> Grid:
    """The levels of a problem's teacher, with nodes where guidance is switched on or off.

    Root mean square errors, of 256 samples of the mixtures and 16 images::

        calls                            48       64       96       128
        mix8                             1.1e-3   4.2e-4   8.8e-5   2.7e-5
        ring2                            1.6e-4   3.7e-5   6.9e-6   4.4e-6
        fashion                          2.9e-4   1.9e-4   1.7e-4
        fashion, cfg:3                   5.4e-4   4.4e-4   4.3e-4
        fashion, cfg:3|interval:0.2,2    1.8e-3   5.8e-4

    The network's reference is itself good to 7e-5, and to 2e-4 under guidance. At 10 calls the
    best fixed samplers tried err by 0.009 (ring2), 0.016 (fashion) and 0.040 (cfg:3).

    Args:
        problem: exact ones are solved almost to 0, networks to their least trained level.
        guidance: None for the plain conditional prediction.
        calls: of the denoiser; None for 48 of a network and 128 of an exact model, and 8 more
            for each breakpoint.

    Raises:
        ValueError: for guidance without a solution, or too few calls.
    """
    breakpoints = checked_field(guidance)
    usual = EXACT_CALLS if problem.exact else NETWORK_CALLS
    calls = usual + CALLS_PER_BREAK * len(breakpoints) if calls is None else calls
    return fine_grid(problem.process, calls, EXACT_LEAST if problem.exact else None, breakpoints)


def cached_teacher(
    problem: Problem,
    noise: Tensor,
    labels: Tensor | None,
    guidance: Expression | None = None,
    *,
    grid: Grid | int | None = None,
    progress: Progress | None = None,
) -> Teacher:
    """Fine solutions, cached on disk in parts, so that a stopped run goes on where it was.

    A part holds states and data predictions of 128 small images (39 MB at 48 calls) or 16 latents
    of 4x64x64 (102 MB). It is found again by model, process, guidance, noises, labels, the solver's
    table and the code of all that.

    Args:
        problem: gives the denoiser.
        noise: (n, ...) from :meth:`Problem.initial_noise`; its device and dtype are the result's.
        labels: (n,) classes, or None.
        guidance: None for the plain conditional prediction.
        grid: levels, or calls; None for those of :func:`teacher_grid`.
        progress: called with (done, all) after each call, in samples times calls.

    Returns:
        The teacher, whose ``breakpoints`` are nodes of its grid.

    Raises:
        ValueError: for guidance without a solution, or a grid without its breakpoints.
    """
    if not isinstance(grid, Grid):
        grid = teacher_grid(problem, guidance, grid)
    _check_breaks(grid, checked_field(guidance))
    inner = problem.denoiser if guidance is None else guidance.wrap(problem.denoiser)
    denoiser = _Watched(inner, progress, len(noise) * grid.nfe)
    size = max(1, min(SOLVED_SAMPLES, SOLVED_ELEMENTS // math.prod(problem.shape)))
    states, data = [], []
    for rows in parts(noise, size):
        some = None if labels is None else labels[rows]
        key = _key(problem, noise[rows], some, guidance, grid)
        unit = noise[rows] / problem.start_scale
        solve = partial(_solved, denoiser, unit, some, grid)
        solved = cached(key, solve, problem.answers).to(noise.device)
        denoiser.reach(rows.stop * grid.nfe)
        states.append(solved[: grid.nfe + 1])
        data.append(solved[grid.nfe + 1 :])
    return Teacher(
        problem.process, tuple(grid.rho.tolist()),
        tuple(torch.cat(states, 1)), tuple(torch.cat(data, 1)),
        labels, breaks(grid),
    )  # fmt: skip


def _solved(denoiser: Denoiser, unit: Tensor, labels: Tensor | None, grid: Grid) -> Tensor:
    """(2 m + 1, n, ...) the m + 1 scaled states and the m data predictions of some samples."""
    made = teach(denoiser, unit, labels, grid=grid)
    return torch.stack([*made.scaled, *made.data]).cpu()


def _key(
    problem: Problem, noise: Tensor, labels: Tensor | None, guidance: Expression | None, grid: Grid
) -> str | None:
    key = reference_key(
        problem, guidance, "teacher", fine_plan(grid).to_json(), noise, labels, by=teach
    )  # fmt: skip
    return key and f"teacher-{key[:32]}"


def error_of(
    problem: Problem, teacher: Teacher, noise: Tensor, guidance: Expression | None = None
) -> float:
    """A teacher's own root mean square error, by its first 64 samples.

    Of an exact problem it is the difference to the adaptive reference, of a network an estimate by
    half the calls (:func:`fewstep.samplers.tuning.teacher.error_from`); both are cached.

    Args:
        problem, noise, guidance: what the teacher was made with.
        teacher: as :func:`cached_teacher` returned it.
    """
    rows = slice(CHECKED)
    some, labels = noise[rows], None if teacher.cond is None else teacher.cond[rows]
    if problem.exact:
        return rmse(teacher.end[rows], problem.reference(some, labels, guidance))
    coarse = cached_teacher(problem, some, labels, guidance, grid=coarser(teacher))
    return error_from(coarse.end, teacher.end[rows])


def _check_breaks(grid: Grid, breakpoints: tuple[float, ...]) -> None:
    missed = [
        ratio for ratio in within(grid.rho[:-1], breakpoints)
        if not any(math.isclose(ratio, known, rel_tol=TOLERANCE) for known in breaks(grid))
    ]  # fmt: skip
    if missed:
        raise ValueError(
            f"the teacher's grid has no break at sigma/alpha {', '.join(f'{r:g}' for r in missed)},"
            " where guidance is switched on or off: make it by teacher_grid"
        )


class _Watched:
    """A denoiser that tells how many of ``total`` samples times calls are done."""

    def __init__(self, denoiser: Denoiser, progress: Progress | None, total: int) -> None:
        self.denoiser, self.progress, self.total, self.done = denoiser, progress, total, 0

    @property
    def process(self) -> NoiseProcess:
        return self.denoiser.process

    def __call__(self, x: Tensor, level: Level, cond: Any = None) -> Tensor:
        made = self.denoiser(x, level, cond)
        self.reach(self.done + len(x))
        return made

    def reach(self, done: int) -> None:
        if done > self.done:
            self.done = done
            if self.progress is not None:
                self.progress(done, self.total)
