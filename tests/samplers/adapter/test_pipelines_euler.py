"""``Euler(grid="diffusers")`` in a pipeline is the Euler of diffusers.

The scale of a sample is its largest number. Both sides compute in float32, whose 6e-8 grows over
five steps of a network that is not trained; the largest error that was seen is 3e-6.
"""

import math
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from tiny_pipelines import CASES, FROM_IMAGE, MORE_FROM_IMAGE, NEWER, PIPELINES
from torch import Tensor
from watch import results

import fewstep

CLOSE = 1e-5
STEPS = 5
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
# Those of DDPM and DiT do not start from init_noise_sigma, so that Euler does not run in them.
FROM_TEXT = [*NEWER, *(case for case in PIPELINES if case not in ("ddpm", "dit"))]


class StableAudioEuler:
    """Euler's method for dx / dsigma = (x - D) / sigma on falling levels (arXiv:2206.00364).

    Diffusers has no Euler with Stable Audio's time, 2 atan(sigma) / pi; sigma_data is 1.
    """

    order = 1

    def __init__(self, sigma_min: float, sigma_max: float) -> None:
        self.ends = math.log(sigma_max), math.log(sigma_min)
        self.init_noise_sigma = math.hypot(sigma_max, 1)

    def set_timesteps(self, n: int, device: Any = None) -> None:
        levels = torch.linspace(*self.ends, n, dtype=torch.float64).exp()
        self.timesteps = (2 / math.pi * levels.atan()).float()
        self.sigmas, self.at = [*levels.tolist(), 0.0], 0

    def scale_model_input(self, sample: Tensor, timestep: Tensor) -> Tensor:
        return sample / math.hypot(self.sigmas[self.at], 1)

    def step(self, output: Tensor, timestep: Tensor, sample: Tensor) -> SimpleNamespace:
        sigma, following = self.sigmas[self.at : self.at + 2]
        data = sample / (sigma**2 + 1) - output * sigma / math.hypot(sigma, 1)  # from v
        self.at += 1
        return SimpleNamespace(prev_sample=sample + (following - sigma) * (sample - data) / sigma)


def euler_of_diffusers(config: Any) -> Any:
    """With the process of a config; a config of its own class is taken as it is."""
    if "sigma_data" in config:
        return StableAudioEuler(config["sigma_min"], config["sigma_max"])
    if config.get("use_flow_sigmas"):  # of UniPC
        return diffusers.FlowMatchEulerDiscreteScheduler(shift=config["flow_shift"])
    if "shift" in config:
        return diffusers.FlowMatchEulerDiscreteScheduler.from_config(config)
    # Its "linspace" starts with noise of sigma where alpha = 1 asks for sqrt(sigma^2 + 1).
    return diffusers.EulerDiscreteScheduler.from_config(config, timestep_spacing="leading")


def error(case: str, **kwargs: Any) -> float:
    """The largest difference of all that a pipeline makes, relative to the scale of the sample."""
    build, inputs = CASES[case]
    call = {**inputs, **kwargs}
    if case != "stable_audio":
        call["output_type"] = "latent"  # a decoder would hide a part of the difference
    peer, ours = build(), build()
    peer.scheduler = euler_of_diffusers(ours.scheduler.config)
    config = getattr(peer.scheduler, "config", ours.scheduler.config)
    ours.scheduler = fewstep.Euler.from_config(config, grid="diffusers")
    made, expected = results(ours, STEPS, **call), results(peer, STEPS, **call)
    return max(
        float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(made, expected, strict=True)
    )


@pytest.mark.parametrize("case", FROM_TEXT)
def test_text_to_anything(case: str) -> None:
    assert error(case) < CLOSE


@pytest.mark.parametrize("case", [*FROM_IMAGE, *MORE_FROM_IMAGE])
def test_from_an_image_or_video(case: str) -> None:
    assert error(case, strength=0.6) < CLOSE
