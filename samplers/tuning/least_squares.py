"""Coefficients by least squares, step by step, against a teacher: no gradients, n calls."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep.finite import finite
from fewstep.samplers.tuning.family import free_pairs
from fewstep.samplers.tuning.pairs import Pairs
from fewstep.samplers.tuning.rollout import Calls, inverse, mix
from fewstep.samplers.tuning.teacher import Teacher
from fewstep.samplers.tuning.tied import Tied
from fewstep.types import Denoiser

RIDGE = 1e-3
NOT_FINITE = (
    "squares of the denoiser's results are not finite, so no coefficients can be fitted: check the "
    "model, its conditions and the teacher's levels"
)


@torch.no_grad()
def least_squares(
    denoiser: Denoiser | Calls,
    table: Tied,
    teacher: Teacher,
    *,
    ridge: float = RIDGE,
    band: int | None = None,
    pairs: Pairs | None = None,
    breakpoints: Sequence[float] = (),
) -> Tied:
    """The table with its coefficients fitted to a teacher, on its own nodes.

    At each node of the student's own run, the next step's coefficients bring it closest to the
    teacher's state at the next node. That is linear in them: with S* the S that would lead there,

        min_c sum_samples w |S* - D_i - sum_j c_j (D_j - D_i)|^2 + ridge scale |c - c_before|^2

    where scale is the mean square of the differences. The student then takes the step, so later
    steps mend what earlier ones left (wider_systems.md, section 0, measured on a mixture).

    Args:
        denoiser: the model, guided or not.
        table: nodes, and coefficients to stay near.
        teacher: fine solutions from the same start.
        ridge: >= 0, how near.
        band: outputs before its own that a step may use; None for all.
        pairs: where the samples start, if not where the teacher does, and what is known above.
        breakpoints: ratios across which no step looks back.

    Raises:
        ValueError: for a negative ridge, or a start that is not the teacher's.
    """
    if not ridge >= 0:
        raise ValueError(f"ridge must be at least 0, got {ridge}")
    pairs = pairs or Pairs.of(teacher)
    if pairs.start is teacher.start and not np.isclose(table.rho[0], teacher.rho[0]):
        raise ValueError(
            f"the teacher starts at sigma/alpha = {teacher.rho[0]:g}, the table at "
            f"{table.rho[0]:g}: make the teacher on a grid with its start"
        )
    q, at, y = inverse(table), table.levels(), pairs.start
    free = free_pairs(table, band, breakpoints)
    data, c, first = list(pairs.virtual), table.matrix(), len(table.history)
    for i in range(table.nfe):
        data.append(denoiser(y * at[i].sigma, at[i], pairs.cond))
        own, r = first + i, table.rho[i + 1] * q[i]
        reach = [j for row, j in free if row == i]
        goal = teacher.at(table.rho[i + 1]) - table.rho[i + 1] * y
        before = c[i, reach]
        c[i] = 0
        c[i, reach] = _ridge(goal / (1 - r) - data[own], [data[j] - data[own] for j in reach],
                             before, ridge)  # fmt: skip
        row = c[i].copy()
        row[own] = 1 - c[i].sum()
        if i + 1 < table.nfe:
            y = y + (q[i + 1] - q[i]) * mix(row, data)
    return table.moved(table.rho, c)


def _ridge(goal: Tensor, features: list[Tensor], prior: Any, ridge: float) -> Any:
    """The solution near ``prior``, in float64."""
    if not features:
        return prior
    A = torch.stack([f.flatten() for f in features], 1).double()
    b = goal.flatten().double()
    start = torch.as_tensor(prior, dtype=torch.float64, device=A.device)
    gram = A.T @ A
    scale = gram.diagonal().mean()
    gram = gram + (ridge * scale + 1e-300) * torch.eye(len(gram), dtype=A.dtype, device=A.device)
    target = (A.T @ (b - A @ start))[:, None]
    change = torch.linalg.lstsq(finite(gram, NOT_FINITE).cpu(), finite(target, NOT_FINITE).cpu())
    return (start.cpu() + change.solution[:, 0]).numpy()
