"""Starts from a Gaussian on a CUDA device: no step waits, and samples are those of the CPU."""

import pytest
import torch
from gaussians import randn
from helpers import CONFIGS
from teleports import MEAN, diagonal_fit

from fewstep.samplers.adapter import schedulers
from fewstep.samplers.gaussian.class_gaussians import ClassGaussians
from fewstep.samplers.gaussian.warm import warm_plan

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("spec", ["dpmpp:order=3", "ipndm"])
@pytest.mark.parametrize("home", ["cpu", "cuda"])
@pytest.mark.parametrize("config", ["vp-scaled", "flow", "edm"])
def test_no_step_waits(config: str, home: str, spec: str) -> None:
    """Wherever the user's noise is; with labels, which only ``start`` looks at."""
    process = schedulers.PlanScheduler(**CONFIGS[config]).process
    plan = warm_plan(spec, process, 4, 3.0)
    scheduler = schedulers.PlanScheduler(**CONFIGS[config], plans=[plan])
    scheduler.gaussian = ClassGaussians((diagonal_fit(), diagonal_fit(mean=MEAN + 1)))
    noise, labels = randn(4, 6, seed=1).float(), torch.tensor([0, 1, 1, 0])
    results = []
    for device, place in (("cpu", "cpu"), ("cuda", home)):
        x = scheduler.start(noise.to(place), labels.to(place)).to(device)
        scheduler.set_timesteps(4, device=device)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            for t in scheduler.timesteps:
                output = torch.tanh(scheduler.scale_model_input(x, t))
                x = scheduler.step(output, t, x, return_dict=False)[0]
        finally:
            torch.cuda.set_sync_debug_mode("default")
        results.append(x.cpu())
    # Float32 arithmetic in another order, on states of a few.
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)
