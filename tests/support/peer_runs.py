"""One loop for a diffusers scheduler and one for ours, asked the same exact data prediction."""

from inspect import signature

import diffusers
import torch
from helpers import Mixture1D

from fewstep.samplers.adapter.base import PlanSchedulerMixin

LATENT = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
FLOW = {"use_flow_sigmas": True, "flow_shift": 3.0, "prediction_type": "flow_prediction"}
DPM, UNIPC, DEIS = (f"{name}MultistepScheduler" for name in ("DPMSolver", "UniPC", "DEIS"))
SINGLE = "DPMSolverSinglestepScheduler"
START = torch.linspace(-2.5, 2.5, 36, dtype=torch.float64).view(4, 1, 3, 3)


SIGMA_SPACE = (
    "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler",
)  # fmt: skip


def noises_for(count: int) -> list[torch.Tensor]:
    """What a peer draws in turn from the generator that it is handed."""
    generator = torch.Generator().manual_seed(0)
    shape, dtype = START.shape, START.dtype
    return [torch.randn(shape, generator=generator, dtype=dtype) for _ in range(count)]


def peer_of(name: str, config: dict) -> diffusers.SchedulerMixin:
    table = ["DDIM", "Heun", "DEIS", "Euler", "DPM", "UniPC", "SASolver"]
    betas = LATENT if any(name.startswith(word) for word in table) else {}
    clip = {"clip_sample": False} if name == "DDIMScheduler" else {}
    return getattr(diffusers, name)(**betas, **clip, **config)


def output_of(ours: PlanSchedulerMixin, e: int, x: torch.Tensor) -> torch.Tensor:
    """What the network of evaluation e returns for the unscaled x, by an exact data prediction."""
    row = ours.plan.evaluations[e]
    alpha, sigma = row.alpha, row.sigma
    data = Mixture1D()(x.flatten(), alpha, sigma).view_as(x)
    if ours.config.sigma_data is not None:
        s = ours.config.sigma_data
        total = sigma**2 + s**2
        return (data - s**2 / total * x) * total**0.5 / (sigma * s)
    return {
        "epsilon": lambda: (x - alpha * data) / sigma,
        "sample": lambda: data,
        "v_prediction": lambda: alpha * (x - alpha * data) / sigma - sigma * data,
        "flow_prediction": lambda: (x - alpha * data) / sigma - data,
    }[ours.config.prediction_type]()


def run_ours(ours: PlanSchedulerMixin, noises: list[torch.Tensor]) -> torch.Tensor:
    x = START * ours.init_noise_sigma
    for e, t in enumerate(ours.timesteps):
        output = output_of(ours, e, x)
        x = ours.step(output, t, x, variance_noise=noises[e], return_dict=False)[0]
    return x


def run_peer(peer, ours: PlanSchedulerMixin, noises: list[torch.Tensor]) -> torch.Tensor:
    """Its own loop; x of its sigma-space classes is x / alpha, scaled back for the network."""
    scaled = type(peer).__name__ in SIGMA_SPACE
    first, generator = ours.plan.evaluations[0], torch.Generator().manual_seed(0)
    x = START * ours.init_noise_sigma / (first.alpha if scaled else 1)
    assert len(peer.timesteps) == ours.plan.nfe
    for e, t in enumerate(peer.timesteps):
        row = ours.plan.evaluations[e]
        output = output_of(ours, e, x * row.alpha if scaled else x)
        peer.is_scale_input_called = True
        takes = signature(peer.step).parameters
        noisy = "sde" in peer.config.get("algorithm_type", "") and "variance_noise" in takes
        extra = {"variance_noise": noises[e]} if noisy else {}
        if not noisy and "generator" in takes:
            extra = {"generator": generator}
        x = peer.step(output, t, x, return_dict=False, **extra)[0]
    return x
