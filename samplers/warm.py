"""Teleported multistep runs with a history: what the Gaussian predicts above the landing.

A multistep solver that starts at a landing level has nothing to look back at, and its first step
is of first order, just where the model begins to bend. But above the landing the Gaussian stands
in for the model, and its predictions along its own trajectory cost no call. A warm plan has
``history`` rows more, above the landing, which only fill the history::

    warm = WarmTeleport("ipndm", process, 5, fit, landing)
    x = sample(warm.over(denoiser), warm.plan, warm.plan.nfe, noise=noise, hooks=[warm])

calls the denoiser 5 times. The state is that of the landing from the beginning: its rows of history
leave it as it is, and are answered on the way back up from it, which is exact.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from fewstep.samplers.gaussian import Gaussian, level_of
from fewstep.samplers.plan import Op, Plan
from fewstep.samplers.spec import parse_spec
from fewstep.samplers.teleport import Teleport, teleported_plan
from fewstep.schedules.breaks import TOLERANCE, mark
from fewstep.schedules.grids import Grid
from fewstep.schedules.process import NoiseProcess
from fewstep.types import Denoiser, Level

LAST_RATIO = 2.0  # between rows of history above a single call, which has no step of its own


class WarmTeleport(Teleport):
    """A run hook that starts at the landing level with a history.

    Args:
        spec: a multistep solver, as ``"ipndm"`` or ``"dpmpp:order=3,grid=karras"``.
        process: the noise process of the model.
        nfe: calls of the denoiser, >= 1, all at or below the landing.
        fit: one Gaussian, or one for each class.
        landing: sigma / alpha where the denoiser takes over, between the ends of the process.
        labels: (n,) classes of the samples, for fits by class.
        history: rows above the landing, >= 0; a solver of order p has use for p - 1.
        breakpoints: ratios that nodes are moved onto, as in ``Spec.build``.

    Attributes:
        plan: the table, of ``history + nfe`` rows; its provenance has ``landing`` and ``history``.

    Raises:
        ValueError: for a solver with several calls a step, and as :func:`teleported_plan`.
    """

    def __init__(
        self,
        spec: str,
        process: NoiseProcess,
        nfe: int,
        fit: Gaussian,
        landing: float,
        *,
        labels: Tensor | None = None,
        history: int = 2,
        breakpoints: Sequence[float] = (),
    ) -> None:
        super().__init__(fit, process, landing, labels=labels)
        self.plan = warm_plan(spec, process, nfe, landing, history, breakpoints)
        self._form = self.plan.evaluations[0].form
        self._level = level_of(process, self._landing)

    @property
    def start_rho(self) -> None:  # type: ignore[override]
        """The plan begins with its history, and none of it is to be skipped."""
        return None

    def start(self, noise: Tensor, x: Tensor, level: Level) -> Tensor:
        """The state (n, ...) at the landing from unit noise (n, ...), in the dtype of ``x``."""
        return super().start(noise, x, self._level)

    def over(self, denoiser: Denoiser) -> Denoiser:
        """The denoiser, with the Gaussian in its place above the landing.

        A guided run passes ``guidance.wrap(denoiser, seeds)``, so that guidance is below.
        """
        return _Above(denoiser, self)

    def remembered(self, x: Tensor, level: Level) -> Tensor:
        """What a row of history at ``level`` is answered, with ``x`` the state at the landing.

        It is what the Gaussian predicts at ``level``; for a plan that reads noise it is moved so
        that the executor, which knows only the state at the landing, finds the noise there.
        """
        there = self.fit.jump(x, self._level, level, self.labels)
        x0 = self.fit.denoise(there, level, self.labels)
        return x0 if self._form == "data" else x0 + (x - there) / level.alpha


class _Above:
    def __init__(self, denoiser: Denoiser, warm: WarmTeleport) -> None:
        self.denoiser, self.warm = denoiser, warm
        self.process = denoiser.process
        self._limit = warm._landing * (1 + TOLERANCE)

    def __call__(self, x: Tensor, level: Level, cond: Any = None) -> Tensor:
        if level.rho > self._limit:
            return self.warm.remembered(x, level)
        return self.denoiser(x, level, cond)


def warm_plan(
    spec: str,
    process: NoiseProcess,
    nfe: int,
    landing: float,
    history: int = 2,
    breakpoints: Sequence[float] = (),
) -> Plan:
    """:func:`teleported_plan` with rows of history above, spaced as the first step below.

    Args:
        spec, process, nfe, landing, breakpoints: as there.
        history: rows above the landing, >= 0.

    Raises:
        ValueError: for a solver with several calls a step or with noise, and as there.
    """
    late = teleported_plan(spec, process, nfe, landing, breakpoints)
    if history < 0:
        raise ValueError(f"history must be >= 0 rows, got {history}")
    parsed = parse_spec(spec)
    rho = np.array(late.sigmas(native=False))
    step = rho[0] / rho[1] if nfe > 1 else LAST_RATIO
    # The Gaussian answers at any level, above the start of the process too.
    rho = np.concatenate([landing * step ** np.arange(history, 0, -1.0), rho])
    if len(late.evaluations) != nfe or any(row.stage for row in late.evaluations):
        raise ValueError(
            f"a warm start is for multistep solvers of one call a step, {parsed.name!r} looks back "
            "at nothing: use teleported_plan"
        )
    grid = mark(Grid(process, rho, process.time(rho), "warm"), breakpoints)
    rows = parsed.sampler.plan(grid, nfe + history, parsed.options).evaluations
    if any(op.nu for row in rows for op in row.ops) or len(rows) != nfe + history:
        raise ValueError(
            f"a warm start is for solvers without noise, {parsed.name!r} adds some: use "
            "teleported_plan"
        )
    stay = Op("x", c_x=1.0)
    head = tuple(replace(row, ops=(stay,)) for row in rows[:history])
    first = replace(rows[history], ops=_uncorrected(rows[history].ops)) if history else rows[0]
    return replace(
        late,
        evaluations=(*head, first, *rows[history + 1 :]),
        provenance={**late.provenance, "history": history},
    )


def _uncorrected(ops: tuple[Op, ...]) -> tuple[Op, ...]:
    """Without what corrects the state that a step from above has reached: ours is exact."""
    kept: list[Op] = []
    written = False
    for op in ops:
        written = written or op.reg == "base"
        if written or not op.c_b:
            kept.append(op)
    return tuple(kept)
