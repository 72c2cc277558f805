"""Costs of single jumps away from a teacher's trajectory: GITS' deviation, and the error itself."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep.samplers.core.execute import Executor
from fewstep.samplers.core.run import levels, start_scale
from fewstep.samplers.solvers.spec import parse_spec
from fewstep.samplers.solvers.weights import exponential_weights
from fewstep.samplers.tuning.batches import finite_costs, parts, rows_of
from fewstep.schedules.grids import Grid
from fewstep.schedules.process import Array
from fewstep.types import Denoiser


@dataclass(frozen=True)
class Trajectory:
    """States and predictions of a teacher on the levels of a fine grid.

    Attributes:
        states: (m, n, d) in float64, the start first.
        outputs: (m - 1, n, d) data predictions there.
    """

    states: Tensor
    outputs: Tensor


@torch.no_grad()
def teacher(
    denoiser: Denoiser, noise: Tensor, fine: Grid, *, sampler: str = "ipndm", cond: Any = None
) -> Trajectory:
    """The trajectory of a solver that walks every level of a grid.

    Args:
        denoiser: the model, guided if it will be.
        noise: (n, ...) unit noise, as of ``sample(noise=)``.
        fine: m levels, end included.
        sampler: spec of a deterministic solver with one call a step that returns its state at the
            next level, which a predictor-corrector does not.
        cond: handed to the denoiser.

    Raises:
        ValueError: for a spec with a grid of its own, or a solver that does not fit.
    """
    spec = parse_spec(sampler)
    if spec.grid or spec.sampler.steps:
        raise ValueError(
            f"a teacher walks the fine grid with one call a step, got {sampler!r}: leave out its "
            "grid options, or use ipndm, deis or dpmpp"
        )
    plan = spec.sampler.plan(fine, fine.nfe, spec.options)
    ops = [op for row in plan.evaluations for op in row.ops]
    if plan.nfe != fine.nfe or any(op.nu or op.reg != "x" for op in ops):
        raise ValueError(
            f"a teacher must be deterministic, without a corrector, got {sampler!r}: use ipndm, "
            "deis or dpmpp"
        )
    executor, x = Executor(plan), noise * start_scale(plan)
    states, outputs = [x], []
    for e, level in enumerate(levels(plan)):
        outputs.append(denoiser(x, level, cond))
        x = executor.step(e, outputs[-1], x, torch.zeros_like)
        states.append(x)
    joined = [torch.stack([one.double().flatten(1) for one in many]) for many in (states, outputs)]
    return Trajectory(*joined)


def gits_cost(
    denoiser: Denoiser,
    noise: Tensor,
    fine: Grid,
    *,
    sampler: str = "ipndm",
    cond: Any = None,
    batch: int = 64,
) -> Array:
    """GITS: how much further from the chord an Euler jump lands than the teacher is there.

    The chord joins start and end of the teacher's trajectory (arXiv:2405.11326, as in its code), in
    x / alpha; from a start without signal in x / (alpha + sigma), where Euler's jump is the same.
    Costs may be negative. To be searched with ``best_path(discount=)`` between 1 and 1.2.

    Args:
        denoiser: the model, guided if it will be.
        noise: (n, ...) unit noise, as of ``sample(noise=)``.
        fine: m levels, end included.
        sampler: spec of the teacher, deterministic and with one call a step.
        cond: one row for each noise (a tensor or a mapping of them), or None.
        batch: noises at a time; m states and predictions of each are kept.

    Returns:
        (m, m); nothing on and below the diagonal counts.

    Raises:
        ValueError: for no noise, a teacher that does not fit, or results that are not finite.
    """

    def one(part: Trajectory) -> Array:
        return _deviations(part, fine)

    return _mean_over(one, denoiser, noise, fine, sampler, cond, batch)


def teacher_cost(
    denoiser: Denoiser,
    noise: Tensor,
    fine: Grid,
    *,
    order: int = 2,
    sampler: str = "ipndm",
    cond: Any = None,
    batch: int = 64,
) -> Array:
    """Error of one jump from the teacher's state to its later state, by a multistep rule.

    From node i to j the rule of order k reads the predictions at i, i - (j - i), ..., as if the
    jumps before had spanned as many nodes, and the first node where that reaches too far back:
    order 1 is DDIM, 2 is DPM-Solver++(2M) with exact weights. The error is a mean square, in units
    of a state of unit variance, x / sqrt(alpha^2 + sigma^2).

    OptimalSteps (arXiv:2503.21774) compares an Euler student's own state with the teacher's and
    keeps the student's state in the search, which is not a sum over jumps; we start each jump
    from the teacher.

    Args:
        order: of the rule, 1 to 4.
        denoiser, noise, fine, sampler, cond, batch: as in :func:`gits_cost`.

    Raises:
        ValueError: for an order outside these, and as in :func:`gits_cost`.
    """
    if order not in (1, 2, 3, 4):
        raise ValueError(f"order must be 1, 2, 3 or 4 for a teacher's jumps, got {order}")
    rules = _jump_rules(fine, order)

    def one(part: Trajectory) -> Array:
        return _jump_errors(part, rules)

    return _mean_over(one, denoiser, noise, fine, sampler, cond, batch)


def _mean_over(
    one: Callable[[Trajectory], Array],
    denoiser: Denoiser,
    noise: Tensor,
    fine: Grid,
    sampler: str,
    cond: Any,
    batch: int,
) -> Array:
    """The mean over noises of a table that ``one`` makes of a part of them."""
    total = np.zeros((len(fine.rho), len(fine.rho)))
    for part in parts(noise, batch):
        rows = noise[part]
        path = teacher(denoiser, rows, fine, sampler=sampler, cond=rows_of(cond, part))
        total += one(path) * len(rows)
    return finite_costs(total / len(noise))


def _deviations(path: Trajectory, fine: Grid) -> Array:
    """(m, m) mean distance to the chord of Euler's point, less that of the teacher's."""
    level, scale = fine.rho, fine.alpha
    if np.isinf(level[0]):
        scale = fine.alpha + fine.sigma
        level = fine.sigma / scale
    points = path.states / torch.as_tensor(scale).to(path.states)[:, None, None]
    start, chord = points[0], points[-1] - points[0]
    unit = chord / chord.norm(dim=1, keepdim=True).clamp_min(torch.finfo(chord.dtype).tiny)

    def across(vectors: Tensor) -> Tensor:
        return torch.addcmul(vectors, (vectors * unit).sum(-1, keepdim=True), unit, value=-1)

    own = across(points - start)
    here = torch.as_tensor(level).to(points)
    slopes = across((points[:-1] - path.outputs) / here[:-1, None, None])
    there = own.norm(dim=2).mean(1)
    table = torch.zeros(len(level), len(level), dtype=points.dtype)
    for i, slope in enumerate(slopes):
        # |o + d s|^2 is a quadratic in d: three numbers for each sample.
        d = (here[i + 1 :] - here[i])[:, None]
        squares = (
            own[i].square().sum(1) + 2 * d * (own[i] * slope).sum(1) + d**2 * slope.square().sum(1)
        )
        table[i, i + 1 :] = squares.clamp_min(0).sqrt().mean(1) - there[i + 1 :]
    return table.numpy()


Jump = tuple[int, int, Array]  # from, to, and the (2 m - 1,) factors of states and outputs


def _jump_rules(fine: Grid, order: int) -> list[Jump]:
    """For each jump the error as a combination of all states and outputs, in unit variance."""
    m = len(fine.rho)
    rules = []
    for i in range(m - 1):
        for j in range(i + 1, m):
            nodes, weights = _jump(fine, i, j, order)
            factors = np.zeros(2 * m - 1)
            factors[i], factors[j] = fine.sigma[j] / fine.sigma[i], -1.0
            factors[[m + k for k in nodes]] = fine.alpha[j] * weights
            rules.append((i, j, factors / np.hypot(fine.alpha[j], fine.sigma[j])))
    return rules


def _jump(fine: Grid, i: int, j: int, order: int) -> tuple[list[int], Array]:
    """Nodes and weights of the predictions of a jump."""
    h = float(fine.lam[j] - fine.lam[i])
    if not np.isfinite(h):
        return [i], np.ones(1)
    back = [max(i - k * (j - i), 0) for k in range(order)]
    nodes = [k for k in dict.fromkeys(back) if np.isfinite(fine.lam[k])]
    places = [float((fine.lam[k] - fine.lam[i]) / h) for k in nodes]
    return nodes, exponential_weights(places, h)


def _jump_errors(path: Trajectory, rules: list[Jump]) -> Array:
    """(m, m) mean squared errors."""
    m = len(path.states)
    vectors = torch.cat([path.states, path.outputs]).flatten(1)
    gram = (vectors @ vectors.T / vectors.shape[1]).cpu().numpy()
    table = np.zeros((m, m))
    for i, j, factors in rules:
        used = np.flatnonzero(factors)
        few = factors[used]
        table[i, j] = max(float(few @ gram[np.ix_(used, used)] @ few), 0.0)
    return table
