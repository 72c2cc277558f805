"""The search for DC-Solver's ratios on a few noises, without backpropagation."""

import itertools
import math
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep.checks import whole
from fewstep.progress import Progress
from fewstep.samplers.core.execute import Executor
from fewstep.samplers.core.plan import Plan
from fewstep.samplers.core.run import levels, start_scale
from fewstep.samplers.sampling import given
from fewstep.samplers.sampling.diverged import cause
from fewstep.samplers.solvers.compensation import compensate, corrector_ops, multistep_plan
from fewstep.samplers.solvers.ratios import Compensation
from fewstep.samplers.solvers.spec import parse_spec
from fewstep.samplers.tuning.linesearch import least_of_quartic, line_search
from fewstep.schedules.breaks import TOLERANCE, snap
from fewstep.schedules.grids import Grid, grid_from_rho
from fewstep.schedules.process import Array
from fewstep.types import Denoiser, Guidance, Level

REFERENCE_CALLS = 64  # at least, of the reference


@torch.no_grad()
def fit_compensation(
    denoiser: Denoiser,
    noises: Tensor,
    nfe: int,
    *,
    guidance: Guidance | str | None = None,
    cond: Any = None,
    sampler: str = "unipc",
    sweeps: int = 2,
    progress: bool = True,
) -> Compensation:
    """Searches the ratios of DC-Solver for one model, number of calls and guidance.

    First call by call, as the paper does (arXiv:2409.03755, algorithm 2): each ratio brings the
    state at the next node, corrected if it will be, closest to a reference that has the solver's
    nodes among its own. Where no correction follows, the squared error is a quartic in the ratio
    and its least value is computed; else a bracketed line search takes about ten calls. Then
    ``sweeps`` times over all of them on the error at the end. A sample counts by the inverse of its
    error without compensation, so that the few that end in another mode do not decide alone.

    Args:
        denoiser: the model, with its noise process.
        noises: (n, ...) unit noise, as of ``sample(noise=)``. The paper's n = 10 is for images;
            with few elements in a sample take 100.
        nfe: calls of the sampler, >= 2.
        guidance: as it will be used, or a text such as ``"cfg:3"``.
        cond: handed to the denoiser.
        sampler: spec of a deterministic solver of one call a step, with its grid if any;
            ``grid=auto`` means that of ``dc``.
        sweeps: over the ratios, >= 0, on the error at the end.
        progress: whether to show how far it is on stderr.

    Returns:
        The ratios and what they were fitted to, to be given to ``dc`` or ``DCSolver``. All 1, with
        a warning, if nothing lowers the error on these noises.

    Raises:
        TypeError: for arguments of another kind.
        ValueError: for arguments outside these, or a denoiser whose results are not finite.
    """
    given.check_denoiser(denoiser)
    nfe = whole(nfe, "nfe, the number of network calls, must be a whole number such as 8")
    sweeps = whole(sweeps, "sweeps must be a whole number")
    if nfe < 2:
        raise ValueError(f"there is nothing to compensate with nfe = {nfe}: it takes 2 calls")
    count = given.start_shape(None, noises, "noises")
    if len(count) < 2:
        raise ValueError(f"noises need the shape (n, ...), got {count}")
    given.check_cond(cond, denoiser, count[0])
    expression = given.read_guidance(guidance)
    if sweeps < 0:
        raise ValueError(f"sweeps must be at least 0, got {sweeps}")
    breakpoints = () if expression is None else expression.breakpoints()
    grid, plan = _uncompensated(denoiser, nfe, sampler, breakpoints)
    guided = denoiser if expression is None else expression.wrap(denoiser)
    total, done = 1 + (1 + sweeps) * (nfe - 1), 1
    with Progress.shown("DC-Solver", "searches", quiet=not progress) as shown:
        shown.stage("reference")
        reference = _reference(guided, cond, noises, grid)
        why = partial(_why, denoiser, expression, cond, noises, plan)
        search = _Search(guided, cond, noises, plan, reference, grid.breaks, why)
        ratios = np.ones(nfe)
        for sweep in range(1 + sweeps):
            for i in range(1, nfe):
                shown.at(done, total, "ratios")
                ratios = search.improved(ratios, i, i + 1 if sweep == 0 else nfe)
                done += 1
        shown.at(done, total, "ratios")
        before, after = search.end_error(np.ones(nfe)), search.end_error(ratios)
    if not after < before:
        warnings.warn(
            f"no ratios lower the error of {sampler} at {nfe} calls on these noises "
            f"({before:.4g}): they stay at 1",
            stacklevel=2,
        )
        ratios, after = np.ones(nfe), before
    return Compensation(
        tuple(map(float, ratios)), sampler, tuple(row.time for row in plan.evaluations),
        float(getattr(expression, "scale", 1.0)), before, after, len(noises),
    )  # fmt: skip


def _uncompensated(
    denoiser: Denoiser, nfe: int, sampler: str, breakpoints: Sequence[float] = ()
) -> tuple[Grid, Plan]:
    spec = parse_spec(sampler)
    grid = snap(spec.grid_of(denoiser.process, nfe, "dc"), breakpoints)
    plan = multistep_plan(grid, str(replace(spec, grid={})))
    if plan.draws:
        raise ValueError(f"ratios are fitted to deterministic solvers, and {sampler!r} adds noise")
    return grid, plan


def _reference(denoiser: Denoiser, cond: Any, noises: Tensor, grid: Grid) -> list[Tensor]:
    """The fine solution at nodes 1 .. nfe of a grid; the last is its end."""
    every = math.ceil(REFERENCE_CALLS / grid.nfe)
    fine, nodes = _refined(grid, every)
    plan = multistep_plan(fine, "unipc:order=3")
    states: list[Tensor] = []
    _run(plan, denoiser, cond, noises, [], states)
    return [states[k - 1] for k in nodes]


def _refined(grid: Grid, every: int) -> tuple[Grid, list[int]]:
    """Each step in ``every`` pieces, equal in rho / (1 + rho); and where its nodes are then.

    The step to rho = 0 is divided down to the least level the model was trained at.
    """
    ends = [float(rho / (1 + rho)) if np.isfinite(rho) else 1.0 for rho in grid.rho]
    least = grid.process.rho_min / (1 + grid.process.rho_min)
    points, nodes = [ends[0]], []
    for start, end in itertools.pairwise(ends):
        low = least if end == 0 else end
        if low < start * (1 - TOLERANCE):  # a last node on the least level is there by rounding
            points += np.linspace(start, low, every + 1)[1:].tolist()
        if end == 0:
            points.append(0.0)
        nodes.append(len(points) - 1)
    s = np.array(points)
    with np.errstate(divide="ignore"):
        fine = grid_from_rho(grid.process, s / (1 - s))
    return replace(fine, breaks=frozenset(nodes[b - 1] for b in grid.breaks)), nodes


def _run(
    plan: Plan,
    denoiser: Denoiser,
    cond: Any,
    noises: Tensor,
    known: list[Tensor],
    states: list[Tensor] | None = None,
    where: Sequence[Level] = (),
) -> Tensor:
    """The end of a plan; outputs in ``known`` are not computed again, new ones are added to it."""
    executor, x = Executor(plan), noises * start_scale(plan)
    for e, level in enumerate((where or levels(plan))[: plan.nfe]):
        if e == len(known):
            known.append(denoiser(x, level, cond))
        x = executor.step(e, known[e], x, torch.zeros_like)
        if states is not None:
            states.append(x)
            known[e] = known[e].new_empty(0)  # not needed again
    return x


def _why(
    denoiser: Denoiser, guidance: Guidance | None, cond: Any, noises: Tensor, plan: Plan
) -> str:
    """What made a run not finite."""

    def again(denoiser: Denoiser, guidance: Guidance | None) -> Tensor:
        guided = denoiser if guidance is None else guidance.wrap(denoiser)
        return _run(plan, guided, cond, noises, [])

    return cause(denoiser, guidance, plan.nfe, again)


class _Search:
    """The errors of ratios against a reference, with what does not depend on them kept."""

    def __init__(
        self,
        denoiser: Denoiser,
        cond: Any,
        noises: Tensor,
        plan: Plan,
        reference: list[Tensor],
        breaks: Collection[int] = (),
        why: Callable[[], str] = lambda: "check the denoiser and its conditions",
    ) -> None:
        self.denoiser, self.cond, self.noises = denoiser, cond, noises
        self.plan, self.breaks, self.reference = plan, breaks, reference
        self.levels = levels(plan)
        self.known: list[Tensor] = []  # outputs of the ratios in hand
        self.weights = torch.ones(len(noises), dtype=torch.float64, device=noises.device)
        squares = self._squares(self.state(np.ones(plan.nfe), plan.nfe, []), plan.nfe)
        mean = float(squares.mean())
        if not math.isfinite(mean):
            raise ValueError(
                f"the run of {plan.name!r} without compensation is not finite on these noises: "
                f"{why()}"
            )
        self.weights = 1 / squares.clamp_min(1e-12 * mean + 1e-30).sqrt()

    def end_error(self, ratios: Array) -> float:
        squares = self._squares(self.state(ratios, self.plan.nfe, []), self.plan.nfe)
        return float(squares.mean().sqrt())

    def state(self, ratios: Array, node: int, known: list[Tensor]) -> Tensor:
        """The state at a node, corrected if the plan does; ``known`` begins with the outputs."""
        plan = compensate(self.plan, ratios.tolist(), self.breaks)
        rows = plan.evaluations[:node]
        if node < plan.nfe and (count := corrector_ops(plan.evaluations[node])):
            row = plan.evaluations[node]
            rows = (*rows, replace(row, ops=row.ops[:count]))
        return self._run(replace(plan, evaluations=rows), known)

    def _run(self, plan: Plan, known: list[Tensor]) -> Tensor:
        return _run(plan, self.denoiser, self.cond, self.noises, known, where=self.levels)

    def improved(self, ratios: Array, i: int, node: int) -> Array:
        """The ratios with number i at its best for the state at ``node`` > i."""
        # Ratios from i on have no influence on the outputs up to i.
        del self.known[i + 1 :]
        head = compensate(self.plan, ratios.tolist(), self.breaks).evaluations[: i + 1]
        self._run(replace(self.plan, evaluations=head), self.known)

        def state(ratio: float) -> Tensor:
            return self.state(_with(ratios, i, ratio), node, list(self.known))

        def error(ratio: float) -> float:
            return float(self.weights @ self._squares(state(ratio), node))

        corrected = node < self.plan.nfe and corrector_ops(self.plan.evaluations[node]) > 0
        if node == i + 1 and not corrected:
            return _with(ratios, i, self._closed_form(state, node))
        return _with(ratios, i, line_search(error, float(ratios[i])))

    def _squares(self, state: Tensor, node: int) -> Tensor:
        difference = state.double() - self.reference[node - 1].double()
        return difference.flatten(1).square().mean(1)

    def _closed_form(self, state: Callable[[float], Tensor], node: int) -> float:
        """The least of the quartic: the state is quadratic in the ratio, so three are enough."""
        zero, one, two = (state(r).double().flatten(1) for r in (0.0, 1.0, 2.0))
        target = self.reference[node - 1].double().flatten(1)
        curve = (two - 2 * one + zero) / 2
        terms = [zero - target, one - zero - curve, curve]
        inner = [[float(self.weights @ (a * b).mean(1)) for a in terms] for b in terms]
        quartic = np.zeros(5)
        for j, k in np.ndindex(3, 3):
            quartic[j + k] += inner[j][k]
        return least_of_quartic(quartic)


def _with(ratios: Array, i: int, ratio: float) -> Array:
    changed = ratios.copy()
    changed[i] = ratio
    return changed
