"""What samplers make of the noises that took no part in tuning."""

import math
import operator
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fewstep.eval.problems import Problem
from fewstep.eval.problems.guided_plans import guided_plan
from fewstep.eval.tune.settings import batch_of
from fewstep.guidance import Expression
from fewstep.samplers import Plan, sample
from fewstep.samplers.gaussian.gaussian import Gaussian
from fewstep.samplers.gaussian.warm import start_hooks
from fewstep.samplers.tuning.feature_objective import Features, features_of

# Those without noise, by default or by an option; edm without churn is heun, and restart and dc run
# other solvers; euler is ddim.
FIXED = (
    "ddim", "dpmpp", "singlestep", "unipc", "deis", "rho_rk", "ipndm", "heun",
    "sa:tau=0",
)  # fmt: skip


@dataclass(frozen=True)
class Error:
    """Of a sampler.

    Attributes:
        rms: root mean square over samples and elements.
        median: of the samples' own.
        features: root mean square over samples and features; None without features.
    """

    rms: float
    median: float
    features: float | None = None

    @classmethod
    def of(cls, x: Tensor, goal: Tensor, features: Features | None = None) -> "Error":
        squares = (x - goal).double().flatten(1).square().mean(1)
        apart = None
        if features is not None:
            both = (features_of(features, one).double() for one in (x, goal))
            apart = float(operator.sub(*both).square().mean().sqrt())
        return cls(float(squares.mean().sqrt()), float(squares.median().sqrt()), apart)


@dataclass
class Judge:
    """Runs samplers from given noises, as ``sample`` does, and compares them with a teacher.

    Attributes:
        problem, guidance: the model.
        noise: (n, ...) states at the start.
        labels: (n,) or None.
        goal: (n, ...) the teacher's ends.
        progress: told of every run: its calls times samples.
        features: that errors are measured in too.
    """

    problem: Problem
    guidance: Expression | None
    noise: Tensor
    labels: Tensor | None
    goal: Tensor
    progress: Callable[[int], None] = field(default=lambda done: None)
    features: Features | None = None

    def plan(self, sampler: str, nfe: int) -> Plan | None:
        """The plan of a spec under the guidance; None where there is none, or one with noise."""
        try:
            with warnings.catch_warnings():
                # Nobody chose this sampler, so nobody can follow the advice.
                warnings.simplefilter("ignore")
                plan = guided_plan(sampler, self.problem.process, nfe, self.guidance)
        except ValueError:
            return None
        drawn = bool(plan.draws)
        return None if drawn or plan.calls != nfe else plan

    def error(self, plan: Plan, fit: Gaussian | None = None) -> Error:
        """Of a plan on all noises; its Gaussian, if it starts from one."""
        return Error.of(self.run(plan, fit, len(self.noise)), self.goal, self.features)

    @torch.no_grad()
    def run(self, plan: Plan, fit: Gaussian | None, count: int) -> Tensor:
        """(count, ...) samples of the first noises."""
        made, size = [], batch_of(self.problem)
        for first in range(0, count, size):
            rows = slice(first, min(count, first + size))
            labels = None if self.labels is None else self.labels[rows]
            made.append(sample(
                self.problem.denoiser, plan, plan.calls,
                noise=self.noise[rows] / self.problem.start_scale, cond=labels,
                guidance=self.guidance,
                hooks=start_hooks(plan, self.problem.process, fit, labels),
            ))  # fmt: skip
            self.progress(plan.calls * len(made[-1]))
        return torch.cat(made)

    def fixed(self, specs: list[str], nfe: int) -> Iterator[tuple[str, Error]]:
        """Errors of specs at a number of calls; those that are not finite are left out."""
        for spec in dict.fromkeys((*FIXED, *specs)):
            plan = self.plan(spec, nfe)
            if plan is not None:
                error = self.error(plan)
                if math.isfinite(error.rms):
                    yield spec, error
