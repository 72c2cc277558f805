"""The contract of diffusers: calls, levels, the index, outputs, copies and threads."""

import math

import numpy as np
import pytest
import torch
from helpers import CONFIGS, drive, scheduler_classes

from fewstep.samplers.adapter import schedulers

CLASSES = scheduler_classes()


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape or (2, 3, 4, 4), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("cls", CLASSES)
def test_n_steps_are_n_calls_to_zero_noise(cls, config: str) -> None:
    scheduler = cls(**CONFIGS[config])
    assert scheduler.order == 1
    for n in range(1, 51):
        scheduler.set_timesteps(n)
        times = scheduler.timesteps
        assert times.shape == (n,)
        assert times.dtype == torch.float32
        assert scheduler.num_inference_steps == n
        assert scheduler.sigmas.shape == (n + 1,)
        assert scheduler.sigmas[-1] == 0
        assert times.isfinite().all()
        assert all(
            math.isfinite(number)
            for row in scheduler.plan.evaluations
            for op in row.ops
            for number in (op.c_x, op.c_b, op.nu, *op.w)
        )


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("cls", CLASSES)
def test_the_loop_calls_the_network_n_times(cls, config: str) -> None:
    scheduler, calls = cls(**CONFIGS[config]), []

    def model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        calls.append(float(t))
        return torch.tanh(x)

    for n in (1, 2, 3, 6, 7):
        calls.clear()
        assert drive(scheduler, noise(), n, model).isfinite().all()
        assert calls == scheduler.timesteps.tolist()
        with pytest.raises(ValueError, match=f"all {n} steps are done; call set_timesteps"):
            scheduler.step(noise(), scheduler.timesteps[0], noise())


@pytest.mark.parametrize("cls", CLASSES)
def test_start_scale(cls) -> None:
    for name, config in CONFIGS.items():
        scheduler = cls(**config)
        scheduler.set_timesteps(9)
        first = scheduler.plan.evaluations[0].sigma
        assert scheduler.init_noise_sigma == (first if name == "edm" else 1.0)
    # The noise of EDM's churn in front of the first call is part of the start.
    assert first == 80 or cls is schedulers.EDMStochastic


def test_churn_before_the_first_call_is_in_the_start_scale() -> None:
    config = CONFIGS["edm"]
    scheduler = schedulers.EDMStochastic(**config, churn=9.0, churn_max=100.0)
    scheduler.set_timesteps(9)  # 5 steps: gamma = sqrt(2) - 1
    assert scheduler.init_noise_sigma == pytest.approx(80 * math.sqrt(2), rel=1e-12)


def test_point_mass_at_the_end_of_every_class() -> None:
    """A network that always answers with the same data gets exactly that data back."""
    for cls in CLASSES:
        for config in ({}, {"sigma_min": 0.01, "sigma_max": 50.0}):
            scheduler = cls(**config, prediction_type="sample")
            x = drive(scheduler, noise(), 8, lambda x, t: torch.full_like(x, 0.25))
            torch.testing.assert_close(x, torch.full_like(x, 0.25), rtol=0, atol=1e-4)


@pytest.mark.parametrize("config", ["vp-scaled", "edm"])
@pytest.mark.parametrize("cls", CLASSES)
def test_every_entry_is_a_legal_start(cls, config: str) -> None:
    """As in image-to-image: n - k calls from entry k, and a point mass is still met exactly."""
    scheduler = cls(**{**CONFIGS[config], "sigma_data": None, "prediction_type": "sample"})
    for n in (6, 7):
        for k in range(n):
            scheduler.set_timesteps(n)
            scheduler.set_begin_index(k)
            row = scheduler.plan.evaluations[k]
            x = 0.25 * row.alpha + row.sigma * noise()
            for t in scheduler.timesteps[k:]:
                x = scheduler.step(torch.full_like(x, 0.25), t, x, return_dict=False)[0]
            torch.testing.assert_close(x, torch.full_like(x, 0.25), rtol=0, atol=1e-5)
            assert scheduler.step_index == n


@pytest.mark.parametrize("name", ["DDIM", "Euler", "DPMSolverPP", "UniPC", "DEIS", "IPNDM"])
def test_a_late_start_is_the_method_on_the_rest_of_the_grid(name: str) -> None:
    whole, rest = (getattr(schedulers, name)(grid="karras") for _ in range(2))
    whole.set_timesteps(10)
    rest.set_timesteps(sigmas=whole.grid.rho[4:])
    x = y = noise()
    for t, u in zip(whole.timesteps[4:], rest.timesteps, strict=True):
        x = whole.step(torch.tanh(x), t, x, return_dict=False)[0]
        y = rest.step(torch.tanh(y), u, y, return_dict=False)[0]
    torch.testing.assert_close(x, y)


def test_a_view_of_any_entry_is_a_legal_start() -> None:
    scheduler = schedulers.DPMSolverPP()
    scheduler.set_timesteps(10)
    scheduler.step(noise(), scheduler.timesteps[4], noise())
    assert scheduler.step_index == 5
    scheduler.set_timesteps(10)
    scheduler.set_begin_index(7)
    assert scheduler.begin_index == 7
    scheduler.step(noise(), scheduler.timesteps[7], noise())
    assert scheduler.step_index == 8
    scheduler.set_timesteps(10)
    assert scheduler.begin_index is scheduler.step_index is None


@pytest.mark.parametrize("kind", [int, float, np.float32, torch.clone])
def test_values_are_looked_up_at_the_first_call_only(kind) -> None:
    """Later only what is plainly another entry is refused; whole numbers may be cut times."""
    scheduler = schedulers.DPMSolverPP(grid="trailing")
    scheduler.set_timesteps(10)
    scheduler.step(noise(), kind(scheduler.timesteps[3]), noise())
    assert scheduler.step_index == 4
    scheduler.step(noise(), kind(scheduler.timesteps[4]), noise())
    assert scheduler.step_index == 5
    if kind is int:
        scheduler.step(noise(), 699, noise())
    else:
        with pytest.raises(ValueError, match="time 699 of entry 3, expected entry 5"):
            scheduler.step(noise(), kind(scheduler.timesteps[3]), noise())
        scheduler.step(noise(), -12345, noise())
    assert scheduler.step_index == 6


def test_an_entry_out_of_turn_is_refused() -> None:
    scheduler = schedulers.UniPC()
    scheduler.set_timesteps(6)
    scheduler.step(noise(), scheduler.timesteps[0], noise())
    with pytest.raises(ValueError, match="got entry 3 of timesteps, expected entry 1"):
        scheduler.step(noise(), scheduler.timesteps[3], noise())
    scheduler.step(noise(), scheduler.timesteps[1], noise())
    assert scheduler.step_index == 2


def test_the_first_of_equal_times_is_the_start() -> None:
    scheduler = schedulers.Heun(grid="linspace")
    scheduler.set_timesteps(7)
    times = scheduler.timesteps.tolist()
    twice = next(t for t in times if times.count(t) == 2)
    scheduler.step(noise(), twice, noise())
    assert scheduler.step_index == times.index(twice) + 1


def test_scale_model_input_does_not_advance() -> None:
    scheduler = schedulers.DPMSolverPP(**CONFIGS["edm"])
    scheduler.set_timesteps(5)
    x = noise()
    for i, t in enumerate(scheduler.timesteps):
        expected = x / math.sqrt(scheduler.plan.evaluations[i].sigma ** 2 + 0.25)
        for _ in range(2):
            torch.testing.assert_close(scheduler.scale_model_input(x, t), expected)
        x = scheduler.step(noise(), t, x, return_dict=False)[0]
    vp = schedulers.DPMSolverPP()
    vp.set_timesteps(5)
    assert vp.scale_model_input(x, vp.timesteps[0]) is x


def test_before_set_timesteps() -> None:
    scheduler = schedulers.DDIM()
    with pytest.raises(ValueError, match=r"call set_timesteps\(n\) before step"):
        scheduler.step(noise(), 999, noise())
    assert len(scheduler) == len(scheduler.timesteps) == 1000
    assert scheduler.timesteps[0] == 999
