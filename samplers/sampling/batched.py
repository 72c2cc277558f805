"""Samples at different steps of a plan in one batch, without state of its own.

An evaluation is a linear map: from the registers (x, base and the history), the network's output
and fresh noise to the registers after it. As one matrix per evaluation a plan becomes a tensor, a
step becomes a gather and a product, and each sample of a batch may be at its own step: what a
server needs that admits requests at any time, and what ``torch.compile`` and CUDA graphs like.
"""

from typing import Any

import numpy as np
import torch
from einops import einsum
from torch import Tensor

from fewstep.samplers.core.ops import Evaluation, apply_ops
from fewstep.samplers.core.plan import Plan
from fewstep.schedules.prediction import Prediction
from fewstep.schedules.process import Array


class BatchedPlan:
    """A plan as a tensor of matrices.

    ``step`` is a function of its arguments alone. It moves more memory than an executor does, all
    registers each time, so use it where samples are at different steps.

    Args:
        plan: the table.
        prediction: what the network's outputs mean; data if None. Thresholding is not linear and
            has no place here.
        device, dtype: of the matrices; float32 at least.

    Attributes:
        matrices: (nfe, registers, registers + 1 + draws).
        time, alpha, sigma: (nfe,) where the network is called; index them by a sample's step.
        draws: the most noises that an evaluation adds.

    Raises:
        ValueError: if the output cannot be converted at some level, or a Gaussian answers the first
            rows.
    """

    def __init__(
        self,
        plan: Plan,
        prediction: Prediction | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        prediction = prediction or Prediction("sample")
        rows = plan.evaluations
        if plan.history:
            raise ValueError(
                f"a Gaussian answers the first {plan.history} rows of the plan {plan.name!r}, and "
                "a batched plan calls the network at each: use a plan without such a start"
            )
        depth = max([1, *(len(op.w) for row in rows for op in row.ops)])
        self.draws = max(sum(op.nu != 0 for op in row.ops) for row in rows)
        matrices = np.stack([_matrix(row, prediction, depth, self.draws) for row in rows])
        keys: dict[str, Any] = {"device": device, "dtype": dtype}
        self.matrices = torch.tensor(matrices, **keys)
        self.time = torch.tensor([row.time for row in rows], **keys)
        self.alpha = torch.tensor([row.alpha for row in rows], **keys)
        self.sigma = torch.tensor([row.sigma for row in rows], **keys)

    def start(self, x: Tensor) -> Tensor:
        """(n, registers, ...) the state of samples before their first step; ``state[:, 0]`` is x.

        Args:
            x: (n, ...) start noise, scaled to the plan's first level.
        """
        state = x.new_zeros(len(x), self.matrices.shape[1], *x.shape[1:], dtype=self.matrices.dtype)
        state[:, 0] = x
        return state

    def step(
        self, state: Tensor, index: Tensor, output: Tensor, noise: Tensor | None = None
    ) -> Tensor:
        """The state after one evaluation of each sample; its arguments are left alone.

        Args:
            state: (n, registers, ...) of :meth:`start` or of the last step.
            index: (n,) integers, the evaluation that each sample is at.
            output: (n, ...) of the network at ``state[:, 0]``.
            noise: (n, draws, ...) unit noise; needed if the plan draws any.

        Raises:
            ValueError: if noise is missing.
        """
        if noise is None and self.draws:
            raise ValueError(f"this plan adds noise: pass noise of shape (n, {self.draws}, ...)")
        parts = [state, output.to(state.dtype)[:, None]]
        parts += [] if noise is None else [noise.to(state.dtype)]
        pattern = "n register read, n read ... -> n register ..."
        return einsum(self.matrices[index], torch.cat(parts, dim=1), pattern)


def _matrix(row: Evaluation, prediction: Prediction, depth: int, draws: int) -> Array:
    """The registers after an evaluation in terms of those before, the output and the noises."""
    unit = np.eye(2 + depth + 1 + draws)
    x, base, *history = unit[: 2 + depth]
    output, noises = unit[2 + depth], iter(unit[3 + depth :])
    p, q = prediction.coefficients(row.alpha, row.sigma, row.form)
    kept = history[:-1] if row.store == "push" else history[1:]
    x, base, history = apply_ops(row.ops, x, base, [p * x + q * output, *kept], noises)
    return np.stack([x, base, *history])
