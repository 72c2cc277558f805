"""Where the noise of a step comes from, and the noise of training."""

import diffusers
import numpy as np
import pytest
import torch
from helpers import CONFIGS, drive

from fewstep.samplers.adapter import schedulers
from fewstep.samplers.adapter.training import levels_at
from fewstep.schedules import VE, ContinuousVP

STOCHASTIC = {
    "ddim": lambda: schedulers.DDIM(eta=1.0, prediction_type="sample"),
    "sde": lambda: schedulers.DPMSolverPP(tau=1.0, prediction_type="sample"),
    "churn": lambda: schedulers.EDMStochastic(prediction_type="sample"),
}
stochastic = pytest.mark.parametrize("make", STOCHASTIC.values(), ids=STOCHASTIC)


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def start(n: int = 4) -> torch.Tensor:
    return torch.randn(n, 3, 4, 4, generator=torch.Generator().manual_seed(0))


@stochastic
@pytest.mark.parametrize("kind", [list, tuple])
def test_a_sample_depends_on_its_own_generator_alone(make, kind) -> None:
    """Bit for bit, whatever the rest of the batch is."""
    together = drive(make(), start(), 8, generator=kind(generators(5, 6, 7, 8)))
    for i, seed in enumerate((5, 6, 7, 8)):
        alone = drive(make(), start()[i : i + 1], 8, generator=kind(generators(seed)))
        assert torch.equal(alone[0], together[i])
    turned = drive(make(), start().flip(0), 8, generator=kind(generators(8, 7, 6, 5)))
    assert torch.equal(turned.flip(0), together)


@stochastic
def test_the_global_state_is_neither_read_nor_written(make) -> None:
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        results.append(drive(make(), start(), 6, generator=generators(9)[0]))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*results)
    other = drive(make(), start(), 6, generator=generators(10)[0])
    assert not torch.equal(other, results[0])


@pytest.mark.parametrize("name", ["DDIM", "Euler", "DPMSolverPP", "UniPC", "DEIS", "IPNDM", "Heun"])
def test_deterministic_classes_draw_nothing(name: str) -> None:
    generator = generators(1)[0]
    before = generator.get_state()
    drive(getattr(schedulers, name)(), start(), 6, generator=generator)
    assert torch.equal(generator.get_state(), before)


def test_too_few_generators_are_refused() -> None:
    with pytest.raises(ValueError, match="3 generators for a batch of 4: pass one for each"):
        drive(schedulers.DDIM(eta=1.0), start(), 4, generator=generators(1, 2, 3))


@stochastic
def test_variance_noise_is_used_in_place_of_a_draw(make) -> None:
    scheduler, unit = make(), torch.randn(4, 3, 4, 4, generator=generators(4)[0])
    scheduler.set_timesteps(6)
    first, x = scheduler.timesteps[0], start()
    quiet, noisy = (scheduler.clone() for _ in range(2))
    results = []
    for one, noise in ((quiet, torch.zeros_like(unit)), (noisy, unit)):
        one.set_timesteps(6)
        results.append(one.step(torch.tanh(x), first, x, variance_noise=noise)[0])
    nu = sum(op.nu for op in scheduler.plan.evaluations[0].ops)
    torch.testing.assert_close(results[1] - results[0], nu * unit, rtol=1e-5, atol=1e-5)
    drawn = make()
    drawn.set_timesteps(6)
    again = drawn.step(torch.tanh(x), first, x, generators(4)[0])[0]
    assert torch.equal(again, results[1])


def test_churn_has_noise_in_some_step() -> None:
    scheduler = STOCHASTIC["churn"]()
    scheduler.set_timesteps(8)
    assert sum(op.nu > 0 for row in scheduler.plan.evaluations for op in row.ops) >= 2


# The forward process.


def right_levels(config: str, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return schedulers.DDIM(**CONFIGS[config]).process.alpha_sigma(times)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("method", ["add_noise", "scale_noise"])
@pytest.mark.parametrize("n", [None, 7])
@pytest.mark.parametrize("whole", [False, True])
def test_training_noise(config: str, method: str, n: int | None, whole: bool) -> None:
    scheduler = schedulers.UniPC(**CONFIGS[config])
    if n is not None:
        scheduler.set_timesteps(n)
    low, high = (-1.5, 1.0) if config == "edm" else (0, 999)
    times = torch.linspace(low, high, 11)
    if config == "edm":
        times = times.round() if whole else times
    else:
        times = times.long() if whole else times.add(0.37).clamp(max=999)
    clean, noise = start(11).double(), torch.ones(11, 3, 4, 4, dtype=torch.float64)
    if method == "add_noise":
        result = scheduler.add_noise(clean, noise, times)
    else:
        result = scheduler.scale_noise(clean, times, noise)
    alpha, sigma = (
        torch.tensor(c).view(-1, 1, 1, 1) for c in right_levels(config, times.double().numpy())
    )
    torch.testing.assert_close(result, alpha * clean + sigma * noise, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("config", ["vp-linear", "vp-scaled", "vp-cosine"])
def test_training_noise_is_that_of_ddpm(config: str) -> None:
    times, clean = torch.arange(1000), torch.ones(1000, 1)
    peer = diffusers.DDPMScheduler(**CONFIGS[config])
    ours = schedulers.UniPC(**CONFIGS[config])
    for x, noise in ((clean, 0 * clean), (0 * clean, clean)):
        theirs = peer.add_noise(x, noise, times)
        # Its table of products is float32, so that 1 - alpha^2 is off by 1e-7 where it is 1e-4.
        torch.testing.assert_close(ours.add_noise(x, noise, times), theirs, rtol=0, atol=3e-6)


def test_noise_of_the_plan_s_own_times_is_that_of_its_levels() -> None:
    """As image-to-image pipelines ask for it."""
    for config in CONFIGS.values():
        scheduler = schedulers.DPMSolverPP(**config)
        scheduler.set_timesteps(9)
        zeros = torch.zeros(9, 1)
        sigma = scheduler.add_noise(zeros, zeros + 1, scheduler.timesteps).flatten()
        alpha = scheduler.add_noise(zeros + 1, zeros, scheduler.timesteps).flatten()
        for i, row in enumerate(scheduler.plan.evaluations):
            # A float32 time is off by 6e-5 of a training step, or by 1e-7 of ln(sigma).
            assert float(sigma[i]) == pytest.approx(row.sigma, rel=1e-4)
            assert float(alpha[i]) == pytest.approx(row.alpha, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    "process", [ContinuousVP(), VE(time_is="atan"), VE(time_is="sigma"), VE(time_is="log")],
)  # fmt: skip
def test_levels_of_continuous_processes(process) -> None:
    times = process.time(np.geomspace(process.rho_min, process.rho_max, 50))
    expected = process.alpha_sigma(times)
    own = levels_at(process, torch.tensor(times))
    for a, b in zip(own, expected, strict=True):
        np.testing.assert_allclose(a.numpy(), b, rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_training_noise_is_computed_in_float32(dtype) -> None:
    scheduler, times = schedulers.DDIM(), torch.tensor([3, 500, 990])
    clean, noise = start(3).to(dtype), start(3).flip(0).to(dtype)
    result = scheduler.add_noise(clean, noise, times)
    assert result.dtype == dtype
    assert torch.equal(result, scheduler.add_noise(clean.float(), noise.float(), times).to(dtype))


def test_scale_noise_needs_noise() -> None:
    with pytest.raises(ValueError, match="scale_noise needs noise="):
        schedulers.DDIM().scale_noise(start(), 5)
