"""Levenberg-Marquardt over a few numbers of a table, with early stopping on other noises."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from fewstep.samplers.tuning.family import Family
from fewstep.samplers.tuning.objective import Objective
from fewstep.samplers.tuning.rollout import Calls
from fewstep.samplers.tuning.tied import Tied
from fewstep.schedules.process import Array

TRIES = 6  # dampings tried for one matrix
BATCH = 8192  # most samples in a network call


@dataclass(frozen=True)
class Entry:
    """One accepted step: losses on the tuning and selection noises."""

    tune: float
    select: float


class Goal(Protocol):
    """A loss of a few numbers, with Gauss-Newton's matrix (p, p) and gradient (p,)."""

    def loss(self, vector: Array) -> float:
        """inf where the numbers make no table."""

    def normal(self, vector: Array) -> tuple[Array, Array]: ...


@dataclass(frozen=True)
class Descent:
    """The numbers that were best on the selection noises, and how it went."""

    vector: Array
    select: float
    history: tuple[Entry, ...]


@dataclass(frozen=True)
class Polished:
    """The table that was best on the selection noises, and how it went."""

    table: Tied
    select: float
    history: tuple[Entry, ...]


@torch.no_grad()
def polish(
    denoiser: Calls,
    family: Family,
    table: Tied,
    tune: Objective,
    select: Objective,
    *,
    steps: int = 30,
    patience: int = 6,
    batch: int = BATCH,
    stop: Callable[[], bool] = lambda: False,
) -> Polished:
    """Lowers the loss on the tuning noises; keeps what is best on the selection noises.

    :func:`descend` with A = J^T W J of a Jacobian from network calls alone
    (:mod:`fewstep.samplers.tuning.rollout`).

    Args:
        denoiser: counts calls.
        family: what is free.
        table: where to start.
        tune, select: losses on separate noises.
        steps: Jacobians at most.
        patience: steps without a better selection loss before it ends.
        batch: samples that are differentiated at once.
        stop: asked before every step, for a time limit.
    """
    goal, check = _Tables(denoiser, family, tune, batch), _Tables(denoiser, family, select, batch)
    found = descend(
        goal, check.loss, family.vector(table), steps=steps, patience=patience, stop=stop
    )
    return Polished(family.table(found.vector), found.select, found.history)


def descend(
    goal: Goal,
    check: Callable[[Array], float],
    vector: Array,
    *,
    steps: int = 30,
    patience: int = 6,
    stop: Callable[[], bool] = lambda: False,
) -> Descent:
    """Levenberg-Marquardt on ``goal``; what is kept is best by ``check``.

    Each step solves (A + damping diag A) change = -g. One that does not lower the loss is tried
    again with four times the damping; one that does divides it by three.

    Args:
        goal: what is lowered.
        check: the loss on the selection noises.
        vector: (p,) numbers to start from, of order 1: no step changes one by more than 1.
        steps: matrices at most.
        patience: steps without a better selection loss before it ends.
        stop: asked before every step, for a time limit.
    """
    x, best = vector, vector
    loss, chosen = goal.loss(x), check(x)
    history = [Entry(loss, chosen)]
    damping, since = 1e-2, 0
    for _ in range(steps if len(x) else 0):
        if stop() or since >= patience:
            break
        found, damping = _step(goal, x, loss, damping)
        if found is None:
            break
        x, before, loss = found[0], loss, found[1]
        value = check(x)
        history.append(Entry(loss, value))
        since += 1
        if value < chosen:
            if value < chosen * (1 - 1e-3):
                since = 0
            best, chosen = x, value
        if loss > before * (1 - 1e-5):
            break
    return Descent(best, chosen, tuple(history))


def _step(
    goal: Goal, x: Array, loss: float, damping: float
) -> tuple[tuple[Array, float] | None, float]:
    """Numbers with a lower loss, if any, and the damping to go on with."""
    matrix, gradient = goal.normal(x)
    if not (np.isfinite(matrix).all() and np.isfinite(gradient).all()):
        return None, damping
    scale = np.diag(matrix) + 1e-6 * np.trace(matrix) / len(matrix)
    for _ in range(TRIES):
        change = np.linalg.lstsq(matrix + damping * np.diag(scale), -gradient, rcond=None)[0]
        moved = x + np.clip(change, -1.0, 1.0)
        value = goal.loss(moved)
        if value < loss:
            return (moved, value), damping / 3
        damping *= 4
    return None, damping


@dataclass(frozen=True)
class _Tables:
    """The loss of the numbers of a tied family."""

    denoiser: Calls
    family: Family
    objective: Objective
    batch: int

    def loss(self, vector: Array) -> float:
        try:
            table = self.family.table(vector)
        except ValueError:  # nodes that fall together in float64
            return float("inf")
        return self.objective.loss(self.objective.squares(self.denoiser, table))

    def normal(self, vector: Array) -> tuple[Array, Array]:
        return self.objective.normal(self.denoiser, self.family, vector, self.batch)
