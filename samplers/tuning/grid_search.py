"""Grids by rolling the solver itself out through fine nodes, beside a teacher.

The costs of single jumps from a teacher's states know neither the solver's history nor the errors
it arrives with. OptimalSteps (arXiv:2503.21774) keeps, for each node and number of jumps, the
student's own state of the best path there, and compares it with the teacher's; so do we, with the
solver that will run, history included, and a few best paths instead of one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep.samplers.core.execute import Executor
from fewstep.samplers.core.plan import Plan
from fewstep.samplers.core.run import levels, start_scale
from fewstep.samplers.solvers.spec import Spec, parse_spec
from fewstep.samplers.tuning.batches import parts
from fewstep.samplers.tuning.dp import Path
from fewstep.samplers.tuning.jumps import teacher
from fewstep.schedules.grids import Grid
from fewstep.types import Denoiser


@dataclass(frozen=True)
class _Run:
    """A path so far, what the denoiser gave along it, and how far its state is from the teacher."""

    nodes: tuple[int, ...]
    outputs: tuple[Tensor, ...]
    error: float


class Rollouts:
    """A teacher's trajectory, and the search for paths on which a solver stays near it.

    Args:
        denoiser: the model, guided if it will be.
        noise: (n, ...) unit noise, as of ``sample(noise=)``.
        fine: the teacher's levels, end included; 60 to 100 steps.
        every: every how many of its levels is a candidate; divides the number of steps.
        cond: handed to the denoiser with all noises.

    Raises:
        ValueError: for arguments outside these, or a teacher that is not finite.
    """

    def __init__(
        self, denoiser: Denoiser, noise: Tensor, fine: Grid, *, every: int = 3, cond: Any = None
    ) -> None:
        if every < 1 or fine.nfe % every:
            raise ValueError(
                f"every must divide the {fine.nfe} steps of the fine grid, got {every}"
            )
        next(parts(noise, 1))  # refuses noise without rows
        self.denoiser, self.noise, self.fine, self.cond = denoiser, noise, fine, cond
        self.candidates = range(0, fine.nfe + 1, every)
        states = teacher(denoiser, noise, fine, cond=cond).states[::every]
        if not bool(states.isfinite().all()):
            raise ValueError("the teacher's run is not finite: check the denoiser and its levels")
        units = np.hypot(fine.alpha, fine.sigma)[::every]
        self._targets = dict(zip(self.candidates, zip(states, units, strict=True), strict=True))

    @torch.no_grad()
    def search(self, n: int, sampler: str = "ipndm", *, beam: int = 3, power: float = 2.0) -> Path:
        """The best path found with exactly n jumps.

        It takes about n times as many calls on all noises as there are candidates, times ``beam``,
        and keeps the predictions of each.

        Args:
            n: jumps, 1 up to the number of candidates less 1.
            sampler: spec of the solver that will run, deterministic, with one call a step.
            beam: paths kept for each node and number of jumps, >= 1.
            power: an error is the mean over noises of its norm to this power, > 0; the norm is the
                root mean square over elements of x / sqrt(alpha^2 + sigma^2). 1 lets the few
                samples that end in another mode decide less.

        Returns:
            Nodes of the fine grid; the total is the error at the end on these noises.

        Raises:
            ValueError: for arguments outside these.
        """
        spec = self._checked(n, sampler, beam, power)
        kept = {0: [_Run((0,), (), 0.0)]}
        for k in range(n):
            found: dict[int, list[_Run]] = {}
            for run in (run for runs in kept.values() for run in runs):
                for longer in self._longer(spec, run, n, power):
                    found.setdefault(longer.nodes[-1], []).append(longer)
            # Equal errors keep the order of discovery, so that the search is the same each time.
            kept = {j: sorted(runs, key=lambda r: r.error)[:beam] for j, runs in found.items()}
            if not any(np.isfinite(runs[0].error) for runs in kept.values()):
                raise ValueError(f"{sampler!r} is not finite after {k + 1} of {n} jumps")
        best = kept[self.fine.nfe][0]
        return Path(best.nodes, best.error)

    def _checked(self, n: int, sampler: str, beam: int, power: float) -> Spec:
        most = len(self.candidates) - 1
        if not 1 <= n <= most:
            raise ValueError(f"{most + 1} candidates leave 1 to {most} jumps, got {n}")
        if beam < 1 or not power > 0:
            raise ValueError(f"need beam >= 1 and power > 0, got {beam} and {power}")
        spec = parse_spec(sampler)
        if spec.grid or spec.sampler.steps:
            raise ValueError(
                f"a rollout chooses the grid of a solver with one call a step, got {sampler!r}: "
                "leave out its grid options, or use ipndm, unipc, deis or dpmpp"
            )
        plan = spec.sampler.plan(self.fine, self.fine.nfe, spec.options)
        if plan.draws:
            raise ValueError(f"a rollout needs a deterministic solver, and {sampler!r} adds noise")
        return spec

    def _longer(self, spec: Spec, run: _Run, n: int, power: float) -> Iterator[_Run]:
        """The run with one jump more, to every node that leaves room for the rest."""
        k = len(run.nodes) - 1
        here = self.candidates.index(run.nodes[-1])
        last = len(self.candidates) - 1
        plan = self._plan(spec, run.nodes, n)
        output = self.denoiser(self._state(plan, run.outputs), levels(plan)[k], self.cond)
        outputs = (*run.outputs, output)
        nodes = [last] if k == n - 1 else range(here + 1, last - (n - k - 1) + 1)
        for node in nodes:
            path = (*run.nodes, self.candidates[node])
            state = self._state(self._plan(spec, path, n), outputs)
            yield _Run(path, outputs, self._error(state, path[-1], power))

    def _plan(self, spec: Spec, path: tuple[int, ...], n: int) -> Plan:
        """The solver on a path; jumps that are not yet known do not reach back to its states."""
        left = n + 1 - len(path)
        here, last = self.candidates.index(path[-1]), len(self.candidates) - 1
        rest: Any = np.linspace(here, last, left + 1).round().astype(int)[1:] if left else []
        nodes = [*path, *(self.candidates[int(j)] for j in rest)]
        grid = Grid(self.fine.process, self.fine.rho[nodes], self.fine.time[nodes], "rollout")
        return spec.sampler.plan(grid, n, spec.options)

    def _state(self, plan: Plan, outputs: tuple[Tensor, ...]) -> Tensor:
        """The state after the evaluations whose outputs are known."""
        executor, x = Executor(plan), self.noise * start_scale(plan)
        for e, output in enumerate(outputs):
            x = executor.step(e, output, x, torch.zeros_like)
        return x

    def _error(self, state: Tensor, node: int, power: float) -> float:
        target, unit = self._targets[node]
        norms = (state.double().flatten(1) - target).square().mean(1).sqrt() / float(unit)
        return float(norms.pow(power).mean().nan_to_num(float("inf")))
