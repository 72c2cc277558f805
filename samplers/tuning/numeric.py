r"""Tuning of any plan that follows from a few numbers, from runs of the plan alone.

The end of a run is differentiated by the numbers through differences of whole runs,

    d end / d v_k = [end(v + h s_k e_k) - end(v)] / (h s_k),

with s_k the scale of number k, so a Jacobian costs p + 1 runs and takes models without gradients.
The calls before the first row that a number changes are those of the run at v: they are not made
again, which saves half of them where the numbers belong to one row each.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fewstep.samplers.core.execute import Executor
from fewstep.samplers.core.plan import Plan
from fewstep.samplers.core.run import levels
from fewstep.samplers.tuning.batches import parts
from fewstep.samplers.tuning.objective import Objective, floor_of, squares_of
from fewstep.samplers.tuning.pairs import Pairs
from fewstep.samplers.tuning.polish import BATCH, Entry, descend
from fewstep.samplers.tuning.rollout import Calls
from fewstep.schedules.process import Array

ROUNDING = 100.0  # times the dtype's epsilon and the size of the ends: no error below is lowered


@dataclass(frozen=True)
class Numbers:
    """The plans that follow from a few numbers.

    Attributes:
        start: (p,) the numbers to start from, p >= 0.
        plan: makes a plan without noise of (p,) numbers; a ValueError of it says that they are out
            of range, and they are avoided.
        scale: (p,) > 0, the change of each that matters; a step of the tuner is at most that.

    Raises:
        ValueError: for numbers and scales of other shapes, or scales that are not positive.
    """

    start: Array
    plan: Callable[[Array], Plan]
    scale: Array

    def __post_init__(self) -> None:
        if self.start.ndim != 1 or self.start.shape != self.scale.shape:
            raise ValueError(
                f"numbers and their scales need one shape (p,), got {self.start.shape} and "
                f"{self.scale.shape}"
            )
        if not ((self.scale > 0) & np.isfinite(self.scale) & np.isfinite(self.start)).all():
            raise ValueError(
                f"numbers must be finite and their scales positive, got {self.start} and "
                f"{self.scale}"
            )

    def at(self, change: Array) -> Plan:
        """The plan of ``start + scale * change``."""
        return self.plan(self.start + self.scale * change)


@torch.no_grad()
def tune_numbers(
    denoiser: Calls,
    numbers: Numbers,
    tune: Pairs,
    select: Pairs,
    *,
    power: float = 0.5,
    steps: int = 40,
    batch: int = BATCH,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[Array, tuple[Entry, ...]]:
    """Lowers the error at the end by Levenberg-Marquardt; keeps what is best on other noises.

    Args:
        denoiser: counts calls.
        numbers: what is free, and where to start.
        tune: starts and ends to fit to.
        select: others, that decide when to stop and what is kept.
        power: of :class:`fewstep.samplers.tuning.objective.Objective`.
        steps: Jacobians at most.
        batch: most samples in a network call.
        stop: asked before every step, for a time limit.

    Returns:
        The (p,) numbers, and the losses of the steps that led to them. The start itself, and no
        losses, if its root mean square error on ``select`` is that of rounding or is not lowered.

    Raises:
        ValueError: for a plan that adds noise, or a start whose runs are not finite.
    """
    plan = numbers.plan(numbers.start)
    if plan.draws:
        raise ValueError(
            f"the plan {plan.name!r} adds noise, and no end is right for its start: tune its "
            "deterministic form (eta=0, tau=0, churn=0)"
        )
    squares = plan_squares(denoiser, plan, tune, batch)
    before = float(plan_squares(denoiser, plan, select, batch).mean().sqrt())
    if not (math.isfinite(before) and bool(squares.isfinite().all())):
        raise ValueError(
            f"the runs of {plan.name!r} are not finite on these noises: check the denoiser and its "
            "conditions"
        )
    size = float(select.end.double().square().mean().sqrt())
    if before <= ROUNDING * torch.finfo(select.end.dtype).eps * size:
        return numbers.start.copy(), ()
    goal, check = (
        _Runs(denoiser, numbers, Objective(pairs, power, floor_of(squares)), batch)
        for pairs in (tune, select)
    )
    found = descend(goal, check.loss, np.zeros(len(numbers.start)), steps=steps, stop=stop)
    if not float(check.squares(found.vector).mean().sqrt()) < before:
        return numbers.start.copy(), ()
    return numbers.start + numbers.scale * found.vector, found.history


@torch.no_grad()
def plan_squares(denoiser: Calls, plan: Plan, pairs: Pairs, batch: int = BATCH) -> Tensor:
    """(n,) mean square errors in float64 of a plan's ends; inf where a run is not finite.

    Args:
        denoiser: counts calls.
        plan: without noise; its first level, or where it lands, is that of the pairs.
        pairs: starts and ends.
        batch: most samples in a network call.
    """
    found = []
    for rows in parts(pairs.start, batch):
        part = pairs.part(rows)
        found.append(squares_of(run_plan(denoiser, plan, part)[0], part))
    return torch.cat(found)


def run_plan(
    denoiser: Calls, plan: Plan, pairs: Pairs, known: Sequence[Tensor] = ()
) -> tuple[Tensor, list[Tensor]]:
    """The end (n, ...) of a plan and its outputs, the first of which may be known.

    Raises:
        ValueError: if outputs above the start are for rows that read noise.
    """
    above = len(pairs.virtual)
    if any(row.form == "noise" for row in plan.evaluations[:above]):
        raise ValueError(
            f"the plan {plan.name!r} reads noise above its landing, where a Gaussian tells data: "
            "use a solver in data form"
        )
    at, outputs = levels(plan), [*pairs.virtual, *known[above:]]
    executor, x = Executor(plan), pairs.start * at[above].sigma
    for e, level in enumerate(at):
        if e == len(outputs):
            outputs.append(denoiser(x, level, pairs.cond))
        x = executor.step(e, outputs[e], x, torch.zeros_like)
    return x, outputs


def shared_calls(plan: Plan, other: Plan) -> int:
    """How many outputs of two plans are the same from the same start."""
    count = 0
    for a, b, here, there in zip(
        plan.evaluations, other.evaluations, levels(plan), levels(other), strict=False
    ):
        if here != there:
            break
        count += 1
        if (a.ops, a.form, a.store) != (b.ops, b.form, b.store):
            break
    return count


@dataclass(frozen=True)
class _Runs:
    """The loss of changes in units of the scales."""

    denoiser: Calls
    numbers: Numbers
    objective: Objective
    batch: int

    def squares(self, change: Array) -> Tensor:
        plan = self.numbers.at(change)
        return plan_squares(self.denoiser, plan, self.objective.pairs, self.batch)

    def loss(self, change: Array) -> float:
        try:
            return self.objective.loss(self.squares(change))
        except ValueError:  # out of range
            return math.inf

    def normal(self, change: Array) -> tuple[Array, Array]:
        pairs = self.objective.pairs
        h = math.pow(torch.finfo(pairs.start.dtype).eps, 0.4)  # 5e-7, or 2e-3 in float32
        plan, near = self.numbers.at(change), list(self._near(change, h))
        matrix, gradient = np.zeros((len(change),) * 2), np.zeros(len(change))
        for rows in parts(pairs.start, self.batch):
            part = pairs.part(rows)
            end, outputs = run_plan(self.denoiser, plan, part)
            columns = torch.zeros_like(end).repeat(len(change), *[1] * end.ndim)
            for k, (other, step) in enumerate(near):
                if other is not None:
                    known = outputs[: shared_calls(plan, other)]
                    moved, _ = run_plan(self.denoiser, other, part, known)
                    columns[k] = (moved - end) / step
            more = self.objective.products(end, columns, part)
            matrix, gradient = matrix + more[0], gradient + more[1]
        return matrix, gradient

    def _near(self, change: Array, h: float) -> Iterator[tuple[Plan | None, float]]:
        """A plan beside that of ``change`` for each number, and the step that leads there."""
        for unit in np.eye(len(change)):
            for step in (h, -h):
                try:
                    yield self.numbers.at(change + step * unit), step
                    break
                except ValueError:  # out of range
                    continue
            else:
                yield None, h
