"""On a CUDA device: no step waits for it, and results are those of the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from helpers import CONFIGS, scheduler_classes

from fewstep.samplers.adapter import schedulers

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CLASSES = scheduler_classes()


@contextmanager
def no_waiting() -> Iterator[None]:
    """Any synchronising call is an error."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def start(*shape: int) -> torch.Tensor:
    return torch.randn(shape or (2, 4, 16, 16), generator=torch.Generator().manual_seed(0))


def steps(scheduler, x: torch.Tensor, **kwargs) -> torch.Tensor:
    """A pipeline's loop over timesteps that live where x does."""
    x = x * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        output = torch.tanh(scheduler.scale_model_input(x, t))
        x = scheduler.step(output, t, x, return_dict=False, **kwargs)[0]
    return x


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("cls", CLASSES)
def test_no_step_waits(cls, config: str) -> None:
    scheduler = cls(**CONFIGS[config])
    scheduler.set_timesteps(12, device="cuda")
    x, generator = start().cuda(), torch.Generator("cuda").manual_seed(0)
    with torch.no_grad(), no_waiting():
        x = steps(scheduler, x, generator=generator)
    assert x.isfinite().all()
    assert x.device.type == "cuda"


@pytest.mark.parametrize("cls", CLASSES)
def test_no_late_start_waits(cls) -> None:
    """Image-to-image: a view of the timesteps tells where it stands without a look at its value."""
    scheduler, x = cls(), start().cuda()
    scheduler.set_timesteps(10, device="cuda")
    generator = torch.Generator("cuda")
    with torch.no_grad(), no_waiting():
        for t in scheduler.timesteps[4:]:
            x = scheduler.step(torch.tanh(x), t, x, generator, return_dict=False)[0]
    assert scheduler.step_index == 10


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("cls", CLASSES)
def test_results_are_those_of_the_cpu(cls, config: str) -> None:
    """With generators of the CPU, which are the reproducible ones."""
    results = []
    for device in ("cpu", "cuda"):
        scheduler = cls(**CONFIGS[config])
        scheduler.set_timesteps(12, device=device)
        generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
        x = start().to(device)
        results.append(steps(scheduler, x, generator=generators).cpu())
    # Float32 arithmetic in another order, over 12 steps that multiply by 160 in all.
    scale = results[0].abs().max().item()
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4 * scale)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("cls", CLASSES)
def test_half_precision_runs(cls, dtype) -> None:
    scheduler = cls(**CONFIGS["vp-scaled"])
    scheduler.set_timesteps(8, device="cuda")
    result = steps(scheduler, start().cuda().to(dtype), generator=torch.Generator("cuda"))
    assert result.dtype == dtype
    assert result.isfinite().all()


@pytest.mark.parametrize("config", CONFIGS)
def test_training_noise_does_not_wait(config: str) -> None:
    """Once the table of levels is on the device."""
    clean, noise = start().cuda(), start().flip(0).cuda()
    times = torch.tensor([0.02, 0.7] if config == "edm" else [20.0, 700.0], device="cuda")
    scheduler = schedulers.UniPC(**CONFIGS[config])
    expected = scheduler.add_noise(clean.cpu(), noise.cpu(), times.cpu())
    scheduler.add_noise(clean, noise, times)
    with no_waiting():
        result = scheduler.add_noise(clean, noise, times)
    torch.testing.assert_close(result.cpu(), expected, rtol=1e-5, atol=1e-5)
