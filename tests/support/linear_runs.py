"""Runs on linear data predictions, whose distribution is known exactly from one run.

Such a run is linear in (x_T, noise_1, noise_2, ..): with one coordinate for each of them the
result is its own vector of coefficients (solvers.md section 7, test 3).
"""

import math
from collections.abc import Callable

import torch
from helpers import run_plan

from fewstep.samplers import Plan, parse_spec
from fewstep.samplers.core.execute import Executor
from fewstep.schedules import ContinuousVP, make_grid

DATA_STD = 0.5


def gaussian(x: torch.Tensor, alpha: float, sigma: float) -> torch.Tensor:
    """E[x0 | x] for data N(0, DATA_STD^2): linear in x."""
    return x * (alpha * DATA_STD**2 / (alpha**2 * DATA_STD**2 + sigma**2))


class Basis:
    """Each draw is one coordinate more: the squared norm of the result is its exact variance."""

    def __init__(self, size: int) -> None:
        self.size, self.count = size, 0

    def start(self, variance: float) -> torch.Tensor:
        x = torch.zeros(1, self.size, 1, 1, dtype=torch.float64)
        x[0, 0] = math.sqrt(variance)
        return x

    def draw(self, like: torch.Tensor) -> torch.Tensor:
        self.count += 1
        noise = torch.zeros_like(like)
        noise[0, self.count] = 1.0
        return noise


def basis_of(plan: Plan) -> Basis:
    """A basis with room for every draw of the plan, and one coordinate more."""
    return Basis(2 + sum(bool(op.nu) for row in plan.evaluations for op in row.ops))


def output_variance(plan: Plan) -> float:
    basis, first = basis_of(plan), plan.evaluations[0]
    start = basis.start((first.alpha * DATA_STD) ** 2 + first.sigma**2)
    return run_plan(plan, gaussian, start, basis.draw).square().sum().item()


def variance_error(plan: Plan) -> float:
    """Relative error of the output variance."""
    exact = (plan.end[0] * DATA_STD) ** 2 + plan.end[1] ** 2
    return abs(output_variance(plan) / exact - 1)


def fine_plan(spec: str, n: int) -> Plan:
    """The plan on n steps from noise to the least level, of full order to the end."""
    parsed = parse_spec(spec)
    options = dict(parsed.options)
    if "lower_order_final" in parsed.sampler.options():
        options["lower_order_final"] = False
    grid = make_grid(ContinuousVP(), n, "logsnr", final="sigma_min")
    return parsed.sampler.plan(grid, parsed.sampler.calls(grid, options), options)


def weak_order(spec: str, few: int, many: int) -> float:
    """Observed order of the variance between two numbers of steps."""
    errors = [variance_error(fine_plan(spec, n)) for n in (few, many)]
    return math.log(errors[0] / errors[1]) / math.log(many / few)


def states(
    plan: Plan, c: float = 0.0, denoise: Callable[..., torch.Tensor] | None = None
) -> list[torch.Tensor]:
    """Coefficients of the samples at every evaluation and the end; the last one is the mean.

    The data prediction is the constant c unless ``denoise`` is given.
    """
    basis, first = basis_of(plan), plan.evaluations[0]
    x = basis.start(first.sigma**2)
    x[0, -1] = first.alpha * c
    constant = torch.zeros_like(x)
    constant[0, -1] = c
    executor, seen = Executor(plan), [x]
    with torch.no_grad():
        for e, row in enumerate(plan.evaluations):
            data = denoise(x, row.alpha, row.sigma) if denoise else constant
            x = executor.step(e, data, x, basis.draw)
            seen.append(x)
    return [x.flatten() for x in seen]
