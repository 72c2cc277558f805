"""Levenberg-Marquardt over the numbers of a family, with early stopping on other noises."""

from collections.abc import Callable
from dataclasses import dataclass

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

    Each step solves (A + damping diag A) change = -g with A = J^T W J of a Jacobian from network
    calls alone (:mod:`fewstep.samplers.tuning.rollout`). A step that does not lower the loss is
    tried again with four times the damping; one that does divides it by three.

    Args:
        denoiser: counts calls.
        family: what is free.
        table: where to start.
        tune, select: losses on separate noises.
        steps: Jacobians at most.
        patience: steps without a better selection loss before it ends.
        batch: most samples in a network call.
        stop: asked before every step, for a time limit.
    """
    x = family.vector(table)
    best = family.table(x)
    loss = tune.loss(tune.squares(denoiser, best))
    chosen = select.loss(select.squares(denoiser, best))
    history = [Entry(loss, chosen)]
    damping, since = 1e-2, 0
    for _ in range(steps if family.size else 0):
        if stop() or since >= patience:
            break
        found, damping = _step(denoiser, family, x, loss, damping, tune, batch)
        if found is None:
            break
        x, before, loss = found[0], loss, found[1]
        value = select.loss(select.squares(denoiser, family.table(x)))
        history.append(Entry(loss, value))
        since += 1
        if value < chosen:
            if value < chosen * (1 - 1e-3):
                since = 0
            best, chosen = family.table(x), value
        if loss > before * (1 - 1e-5):
            break
    return Polished(best, chosen, tuple(history))


def _step(
    denoiser: Calls, family: Family, x: Array, loss: float, damping: float, tune: Objective,
    batch: int,
) -> tuple[tuple[Array, float] | None, float]:  # fmt: skip
    """A vector with a lower loss, if any, and the damping to go on with."""
    matrix, gradient = tune.normal(denoiser, family, x, batch)
    if not (np.isfinite(matrix).all() and np.isfinite(gradient).all()):
        return None, damping
    scale = np.diag(matrix) + 1e-6 * np.trace(matrix) / len(matrix)
    for _ in range(TRIES):
        change = np.linalg.lstsq(matrix + damping * np.diag(scale), -gradient, rcond=None)[0]
        moved = x + np.clip(change, -1.0, 1.0)
        value = _loss_at(denoiser, family, moved, tune)
        if value < loss:
            return (moved, value), damping / 3
        damping *= 4
    return None, damping


def _loss_at(denoiser: Calls, family: Family, x: Array, tune: Objective) -> float:
    try:
        table = family.table(x)
    except ValueError:  # nodes that fall together in float64
        return float("inf")
    return tune.loss(tune.squares(denoiser, table))
