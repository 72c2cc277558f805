"""A problem with a known answer, and how a plan is run on it."""

from collections.abc import Callable

import torch

from fewstep.samplers import SAMPLERS, parse_spec
from fewstep.samplers.adapter import schedulers
from fewstep.samplers.core.execute import Executor
from fewstep.samplers.core.plan import Plan
from fewstep.schedules import Grid


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


def scheduler_classes() -> list[type]:
    """Every public scheduler class."""
    registered = [getattr(schedulers, entry.scheduler) for entry in SAMPLERS.values()]
    return [*registered, schedulers.PlanScheduler]


# Constructor arguments of one scheduler for each kind of noise process.
CONFIGS: dict[str, dict] = {
    "vp-linear": {},
    "vp-scaled": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "vp-cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "vp-zero-snr": {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
    "flow": {"use_flow_sigmas": True, "flow_shift": 3.0, "prediction_type": "flow_prediction"},
    "edm": {"sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5},
}


def drive(scheduler, x: torch.Tensor, n: int | None = None, model=None, **kwargs) -> torch.Tensor:
    """A pipeline's loop from unit noise ``x``; ``model(input, t)`` is a smooth network."""
    model = model or (lambda inputs, t: torch.tanh(inputs))
    if n is not None:
        scheduler.set_timesteps(n)
    x = x * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        output = model(scheduler.scale_model_input(x, t), t)
        x = scheduler.step(output, t, x, return_dict=False, **kwargs)[0]
    return x


def make(spec: str, grid: Grid, **options) -> Plan:
    """The plan of a spec on a given grid."""
    parsed = parse_spec(spec)
    return parsed.sampler.build(grid, **parsed.options, **options)


def counted_draws(seed: int = 0) -> Callable[[torch.Tensor], torch.Tensor]:
    """Noise that is the same for each run."""
    generator = torch.Generator().manual_seed(seed)
    return lambda like: torch.randn(like.shape, generator=generator, dtype=like.dtype)
