"""Runs that start at a landing, where a Gaussian's flow takes the noise, with a history or without.

A multistep solver that starts at a landing level has nothing to look back at, and its first step
is of first order, just where the model begins to bend. But above the landing the Gaussian stands
in for the model, and its predictions along its own trajectory cost no call. A warm plan has rows
more, above the landing, which only fill the history::

    plan = warm_plan("ipndm", process, 5, landing)
    x = sample(denoiser, plan, plan.calls, noise=noise, hooks=[WarmTeleport(plan, process, fit)])

calls the denoiser 5 times. The state is that of the landing from the beginning: its rows of history
leave it as it is, and are answered on the way back up from it, which is exact.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep.samplers.core.execute import Executor
from fewstep.samplers.core.ops import Op
from fewstep.samplers.core.plan import Plan
from fewstep.samplers.core.run import levels
from fewstep.samplers.gaussian.class_gaussians import ClassGaussians
from fewstep.samplers.gaussian.gaussian import Gaussian, level_of
from fewstep.samplers.gaussian.teleport import Teleport, teleported_plan
from fewstep.samplers.solvers.spec import parse_spec
from fewstep.schedules.breaks import TOLERANCE, mark
from fewstep.schedules.grids import Grid
from fewstep.schedules.process import NoiseProcess
from fewstep.types import Level, RunHook

LAST_RATIO = 2.0  # between rows of history above a single call, which has no step of its own
STAY = Op("x", c_x=1.0)


class WarmTeleport(Teleport):
    """A run hook that starts a plan at its landing level, with its history.

    Args:
        plan: whose provenance has ``landing``, and ``history`` if its first rows are such: of
            :func:`warm_plan`, tuned, or from a file.
        process: the noise process of the model.
        fit: one Gaussian, or one for each class.
        labels: (n,) classes of the samples, for fits by class.

    Raises:
        ValueError: for a plan that has no landing, or not where it begins.
    """

    def __init__(
        self, plan: Plan, process: NoiseProcess, fit: Gaussian, *, labels: Tensor | None = None
    ) -> None:
        _check(plan)
        super().__init__(fit, process, plan.provenance["landing"], labels=labels)
        self.plan = plan
        self._level = level_of(process, self._landing)

    @property
    def start_rho(self) -> None:  # type: ignore[override]
        """The plan begins with its history, and none of it is to be skipped."""
        return None

    def start(self, noise: Tensor, x: Tensor, level: Level) -> Tensor:
        """The state (n, ...) at the landing from unit noise (n, ...), in the dtype of ``x``."""
        return super().start(noise, x, self._level)

    def answers(self, x: Tensor) -> list[Tensor]:
        """What the rows of history are answered, in float32 at least.

        It is what the Gaussian predicts at their levels; for a row that keeps noise it is moved so
        that the executor, which knows only the state at the landing, finds the noise there.

        Args:
            x: (n, ...) the state at the landing.
        """
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        made = []
        for level in levels(self.plan)[: self.plan.history]:
            there = self.fit.jump(x, self._level, level, self.labels)
            x0 = self.fit.denoise(there, level, self.labels)
            noise = self.plan.evaluations[level.index].form == "noise"
            made.append(x0 + (x - there) / level.alpha if noise else x0)
        return made


def start_hooks(
    plan: Plan, process: NoiseProcess, fit: Gaussian | None, cond: Any = None
) -> tuple[RunHook, ...]:
    """What starts a run of a plan: nothing, or the Gaussian that its provenance asks for.

    Args:
        plan: any.
        process: the noise process of the model.
        fit: the Gaussian that was saved with the plan, if there was one.
        cond: of the samples; for fits by class a tensor of (n,) classes.

    Raises:
        ValueError: if the plan needs a Gaussian and there is none.
    """
    if "landing" not in plan.provenance:
        return ()
    if fit is None:
        raise ValueError(
            f"the plan {plan.name!r} starts from a Gaussian at sigma/alpha = "
            f"{plan.provenance['landing']:g}: give the folder that it was saved in, or "
            "hooks=[WarmTeleport(plan, process, fit)]"
        )
    labels = cond if isinstance(fit, ClassGaussians) and isinstance(cond, Tensor) else None
    return (WarmTeleport(plan, process, fit, labels=labels),)


def with_start(
    plan: Plan,
    process: NoiseProcess,
    hooks: Sequence[RunHook],
    find: Callable[[], Gaussian | None],
    cond: Any,
) -> tuple[RunHook, ...]:
    """The hooks of a run, with the one that its plan starts with.

    Args:
        plan, process, cond: as in :func:`start_hooks`.
        hooks: that were given.
        find: loads the Gaussian; called if it is needed.

    Raises:
        ValueError: for a hook that starts another plan, or elsewhere, and as there.
    """
    for hook in hooks:
        if isinstance(hook, WarmTeleport) and hook.plan != plan:
            raise ValueError(
                f"the hook was made for the plan {hook.plan.name!r} and the run is of "
                f"{plan.name!r}: give both the same plan"
            )
    if any(isinstance(hook, WarmTeleport) for hook in hooks):
        return tuple(hooks)
    if any(hook.start_rho is not None for hook in hooks):
        if plan.history:
            raise ValueError(
                f"the plan {plan.name!r} begins with a history, which the hook does not fill: use "
                "WarmTeleport(plan, process, fit)"
            )
        return tuple(hooks)
    fit = find() if "landing" in plan.provenance else None
    return (*hooks, *start_hooks(plan, process, fit, cond))


def fill_history(executor: Executor, x: Tensor, hooks: Sequence[RunHook]) -> None:
    """Runs the rows of history of a plan on the state ``x`` (n, ...) at the landing."""
    for hook in hooks:
        if isinstance(hook, WarmTeleport):
            for i, answer in enumerate(hook.answers(x)):
                executor.step(i, answer, x, torch.zeros_like)


def _check(plan: Plan) -> None:
    """Raises ValueError unless the plan lands where its provenance says."""
    landing, count = plan.provenance.get("landing"), plan.history
    if landing is None:
        raise ValueError(
            f"the plan {plan.name!r} starts from plain noise, its provenance has no landing: run "
            "it without a Gaussian"
        )
    head = plan.evaluations[:count]
    begins = 0 <= count < plan.nfe and all(row.ops == (STAY,) for row in head)
    if not begins or not math.isclose(plan.sigmas(native=False)[count], landing, rel_tol=TOLERANCE):
        raise ValueError(
            f"the plan {plan.name!r} does not begin with {count} rows of history and a call at "
            f"sigma/alpha = {landing:g}, as its provenance says: build or tune it anew"
        )


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
    head = tuple(replace(row, ops=(STAY,)) for row in rows[:history])
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
