"""The fine solution that samplers are scored against."""

from typing import Any

import torch
from torch import Tensor

from fewstep.eval.common.cache import cached
from fewstep.eval.common.keys import checked_field, reference_key
from fewstep.eval.common.source_code import function_text
from fewstep.eval.problems import Problem
from fewstep.eval.problems.problem import file_name
from fewstep.guidance import Counters, Expression
from fewstep.samplers import build_plan, sample
from fewstep.samplers.core.execute import Executor
from fewstep.types import Denoiser, Level

# On the bundled network its root mean square distance to torchdiffeq's dopri8 at tolerance 1e-5,
# which takes 290 calls, is 1e-4; the best samplers score 5e-3 at 20 calls.
NETWORK_SPEC, NETWORK_CALLS = "unipc:order=3,grid=logsnr", 60
# The solver starts at first order behind each breakpoint. Under cfg:3|interval:0.2,2 the distance
# to dopri5 at tolerance 3e-7 is 1.9e-3 with 60 calls, and 2.6e-4 with these.
NETWORK_CALLS_WITH_BREAKPOINTS = 120
EXACT_CALLS = 60  # about; an adaptive solver takes what it needs


def reference_calls(problem: Problem, guidance: Expression | None) -> int:
    """Calls of :func:`fine_reference` for each sample; of exact problems about so many.

    Args:
        problem: whose solution it is.
        guidance: one that has a solution, or None.
    """
    if problem.exact:
        return EXACT_CALLS
    guided = guidance is not None and guidance.breakpoints()
    return NETWORK_CALLS_WITH_BREAKPOINTS if guided else NETWORK_CALLS


def fine_reference(
    problem: Problem, noise: Tensor, labels: Tensor | None, guidance: Expression | None
) -> Tensor:
    """The solution at sigma -> 0 from each start, cached on disk, on the device of ``noise``.

    Exact problems are solved adaptively in float64 (:meth:`Problem.reference`), the network with a
    fixed number of calls, so that the main benchmark stays within minutes.

    Args:
        problem: gives the denoiser.
        noise: (n, ...) from :meth:`Problem.initial_noise`.
        labels: (n,) classes, or None.
        guidance: None for the plain conditional prediction.

    Raises:
        ValueError: for guidance without a solution (``Expression.is_field``).
    """
    if problem.exact:
        return problem.reference(noise, labels, guidance)
    breakpoints = checked_field(guidance)
    calls = reference_calls(problem, guidance)
    plan = build_plan(NETWORK_SPEC, problem.process, calls, breakpoints)
    # With the table the code that made it is in the key, so that of the executor is enough.
    key = reference_key(
        problem, guidance, plan.to_json(), function_text(sample), noise, labels, by=Executor
    )
    unit = noise / problem.start_scale

    @torch.no_grad()
    def solve() -> Tensor:
        return sample(
            problem.denoiser, plan, plan.nfe, noise=unit, cond=labels, guidance=guidance
        ).cpu()

    name = key and f"{file_name(problem.name)}-{key[:24]}"
    return cached(name, solve, problem.answers).to(noise.device)


class CountingDenoiser:
    """A denoiser that counts its calls and their rows; in all else it is the inner one."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser, self.calls, self.rows = denoiser, 0, 0
        self.process = denoiser.process

    def __call__(self, x: Tensor, level: Level, cond: Any = None) -> Tensor:
        self.calls += 1
        self.rows += len(x)
        return self.denoiser(x, level, cond)

    @property
    def counters(self) -> Counters:
        """The same two numbers as guided denoisers have them."""
        return Counters(rows=self.rows, calls=self.calls)

    def __getattr__(self, name: str) -> Any:
        """What guidance may ask for: null_cond, num_classes, network, ..."""
        return getattr(self.denoiser, name)
