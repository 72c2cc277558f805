r"""Runs of a tied table, and their derivatives by its numbers without backpropagation.

In y = x / sigma and q = 1 / rho a step is y_{i+1} = y_i + (q_{i+1} - q_i) S_i, finite at a start
without signal, and the end is alpha (rho y + (1 - rho q) S) with rho that of the end. The table's
part of a derivative is closed form. The network's is a difference along the tangent,

    dD_i = [D(sigma (y + t dy)) - D(sigma y)] / t + dD/d(ln rho) d(ln rho),

so that models without gradients can be tuned. Tangents of all numbers meet a node at one level and
go through the network in one call.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep.samplers.tuning.batches import parts, rows_of
from fewstep.samplers.tuning.family import Family
from fewstep.samplers.tuning.pairs import Pairs
from fewstep.samplers.tuning.tied import Tied
from fewstep.schedules.process import Array
from fewstep.types import Denoiser, Level


@dataclass
class Calls:
    """Counts network calls, in samples, and bounds how many samples one has."""

    denoiser: Denoiser
    batch: int | None = None
    samples: int = 0

    def __call__(self, x: Tensor, level: Level, cond: Any) -> Tensor:
        self.samples += len(x)
        if self.batch is None or len(x) <= self.batch:
            return self.denoiser(x, level, cond)
        rows = parts(x, self.batch)
        return torch.cat([self.denoiser(x[part], level, rows_of(cond, part)) for part in rows])


@dataclass(frozen=True)
class Run:
    """One run: y at the nodes, data predictions (virtual ones first), their S, the end x."""

    y: list[Tensor]
    data: list[Tensor]
    mixed: list[Tensor]
    end: Tensor


def run_table(denoiser: Calls, table: Tied, pairs: Pairs) -> Run:
    """Runs a table from where the pairs start."""
    weights, q = table.weights(), inverse(table)
    y, data, mixed, at = [pairs.start], list(pairs.virtual), [], table.levels()
    for i in range(table.nfe):
        data.append(denoiser(y[i] * at[i].sigma, at[i], pairs.cond))
        mixed.append(mix(weights[i], data))
        if i + 1 < table.nfe:
            y.append(y[i] + (q[i + 1] - q[i]) * mixed[i])
    return Run(y, data, mixed, finish(table, y[-1], mixed[-1]))


def inverse(table: Tied) -> list[float]:
    """1 / rho of the n nodes; 0 without signal."""
    return [1 / rho for rho in table.rho[:-1]]


def finish(table: Tied, y: Tensor, mixed: Tensor) -> Tensor:
    """The end x from the last node's y and S; linear, so it serves tangents too."""
    rho, last = table.rho[-1], inverse(table)[-1]
    alpha = float(table.process.from_rho(rho)[0])
    return alpha * (rho * y + (1 - rho * last) * mixed)


def mix(weights: Array, data: Sequence[Tensor]) -> Tensor:
    """sum_j weights[j] data[j]."""
    total = data[0] * float(weights[0])
    for w, d in zip(weights[1:], data[1:], strict=False):
        if w:
            total = total + d * float(w)
    return total


def jacobian(denoiser: Calls, family: Family, vector: Array, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """The end and its derivatives by the numbers of a family.

    Args:
        denoiser: counts calls.
        family: of the table.
        vector: (p,) its numbers.
        pairs: n starts; conditions are None, or tensors of length n, alone or in a dictionary.

    Returns:
        (n, ...) the end and (p, n, ...) its derivatives; (p + 3) n calls a node at most.
    """
    table = family.table(vector)
    base = run_table(denoiser, table, pairs)
    columns = _Tangents(denoiser, family, table, base, pairs.cond).columns()
    chain = torch.as_tensor(family.chain(vector).T).to(columns)
    return base.end, torch.tensordot(chain, columns, dims=1)


class _Tangents:
    """Tangents dy of every number (ln rho of a node, or a coefficient) as they pass the nodes."""

    def __init__(self, denoiser: Calls, family: Family, table: Tied, base: Run, cond: Any) -> None:
        self.denoiser, self.table, self.base, self.cond = denoiser, table, base, cond
        self.levels, self.q = table.levels(), inverse(table)
        self.above = len(table.history)  # outputs that no number moves
        self.nodes, self.pairs = family.nodes, family.touched
        self.size = self.nodes + len(self.pairs)
        # From which node on a number has a tangent; coefficients of step i move node i + 1.
        self.first = [*range(1, self.nodes + 1), *(i + 1 for i, _ in self.pairs)]

    def columns(self) -> Tensor:
        base, n, weights = self.base, self.table.nfe, self.table.weights()[:, self.above :]
        dy = base.y[0].new_zeros((self.size, *base.y[0].shape))
        moved: list[Tensor] = []
        for i in range(n):
            moved.append(self._through_network(i, dy))
            mixed = mix(weights[i], moved)
            for k, (step, j) in enumerate(self.pairs, self.nodes):
                if step == i:
                    mixed[k] += base.data[j] - base.data[self.above + i]
            if i + 1 == n:
                break
            dy = dy + (self.q[i + 1] - self.q[i]) * mixed
            for node in (i, i + 1):
                if 0 < node <= self.nodes:  # dq / d(ln rho) = -q
                    dy[node - 1] += (self.q[node] if node == i else -self.q[node]) * base.mixed[i]
        end = finish(self.table, dy, mixed)
        if self.nodes:  # the last node in the factor 1 - rho q of the end
            rho = self.table.rho[-1]
            alpha = float(self.table.process.from_rho(rho)[0])
            end[self.nodes - 1] += alpha * rho * self.q[-1] * base.mixed[-1]
        return end

    def _through_network(self, i: int, dy: Tensor) -> Tensor:
        """dD_i of every number."""
        moved = torch.zeros_like(dy)
        active = [k for k in range(self.size) if self.first[k] <= i]
        if active:
            moved[active] = self._along(i, dy[active])
        if 0 < i <= self.nodes:
            moved[i - 1] += self._by_level(i)
        return moved

    def _along(self, i: int, dy: Tensor) -> Tensor:
        """The derivative of D_i along (k, n, ...) tangents."""
        y, level, count = self.base.y[i], self.levels[i], len(dy)
        step = math.pow(torch.finfo(y.dtype).eps, 0.4)
        axes = tuple(range(1, y.ndim))
        size = y.square().mean(axes, keepdim=True).sqrt()
        length = dy.square().mean(tuple(a + 1 for a in axes), keepdim=True).sqrt()
        t = step * size / length.clamp_min(math.pow(torch.finfo(y.dtype).tiny, 0.25))
        x = (level.sigma * (y + t * dy)).flatten(0, 1)
        there = self.denoiser(x, level, tile(self.cond, count)).view_as(dy)
        return (there - self.base.data[self.above + i]) / t

    def _by_level(self, i: int) -> Tensor:
        """d D(sigma y, rho) / d(ln rho) at fixed y."""
        h = math.pow(torch.finfo(self.base.y[i].dtype).eps, 0.3)  # 2e-5, or 8e-3 in float32
        ends = [self._at(i, self.table.rho[i] * math.exp(step)) for step in (h, -h)]
        return (ends[0] - ends[1]) / (2 * h)

    def _at(self, i: int, rho: float) -> Tensor:
        process = self.table.process
        alpha, sigma = (float(v) for v in process.from_rho(np.float64(rho)))
        time = float(process.time(np.float64(rho)))
        level = replace(self.levels[i], time=time, alpha=alpha, sigma=sigma)
        return self.denoiser(self.base.y[i] * sigma, level, self.cond)


def tile(cond: Any, count: int) -> Any:
    """Conditions repeated ``count`` times along the batch.

    Raises:
        TypeError: for anything but None, tensors, and dictionaries, lists or tuples of them.
    """
    if cond is None:
        return None
    if isinstance(cond, Tensor):
        return cond.repeat(count, *[1] * (cond.ndim - 1))
    if isinstance(cond, Mapping):
        return {key: tile(value, count) for key, value in cond.items()}
    if isinstance(cond, list | tuple):
        return type(cond)(tile(value, count) for value in cond)
    raise TypeError(f"conditions to tune with are tensors or dictionaries of them, got {cond!r}")
