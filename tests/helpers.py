"""A problem with a known answer, and how a plan is run on it."""

import torch

from fewstep.samplers.execute import Executor
from fewstep.samplers.plan import Plan


class Mixture1D:
    """Three modes on the line; the posterior mean is written out here, apart from the package."""

    means = torch.tensor([-1.3, 0.2, 0.9], dtype=torch.float64)
    stds = torch.tensor([0.5, 0.35, 0.6], dtype=torch.float64)
    weights = torch.tensor([0.3, 0.45, 0.25], dtype=torch.float64)

    def __call__(self, x: torch.Tensor, alpha: float, sigma: float) -> torch.Tensor:
        variance = alpha**2 * self.stds**2 + sigma**2
        offset = x[:, None] - alpha * self.means
        log_p = self.weights.log() - offset**2 / (2 * variance) - variance.log() / 2
        posterior = log_p.softmax(dim=1)
        return (posterior * (self.means + alpha * self.stds**2 / variance * offset)).sum(1)


def run_plan(plan: Plan, denoise, start: torch.Tensor, draw=torch.zeros_like) -> torch.Tensor:
    """Runs a plan on a data prediction ``denoise(x, alpha, sigma)``."""
    executor, x = Executor(plan), start
    with torch.no_grad():
        for e, row in enumerate(plan.evaluations):
            x = executor.step(e, denoise(x, row.alpha, row.sigma), x, draw)
    return x
