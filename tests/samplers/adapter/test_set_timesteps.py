"""What ``set_timesteps`` takes, and what it refuses."""

import re

import diffusers
import numpy as np
import pytest
import torch
from helpers import CONFIGS

from fewstep.samplers.adapter import schedulers
from fewstep.schedules import dynamic_shift


def times_of(scheduler, n: int = 8, **kwargs) -> list[float]:
    scheduler.set_timesteps(n, **kwargs)
    return scheduler.timesteps.tolist()


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor])
def test_levels_in_any_container(kind) -> None:
    scheduler = schedulers.UniPC()
    scheduler.set_timesteps(timesteps=kind([900, 500, 100]))
    assert scheduler.timesteps.tolist() == [900, 500, 100]
    for sigmas in ([9.0, 2.5, 0.5], [9.0, 2.5, 0.5, 0.0]):
        scheduler.set_timesteps(sigmas=kind(sigmas))
        torch.testing.assert_close(scheduler.sigmas, torch.tensor([9.0, 2.5, 0.5, 0.0]))
        assert scheduler.num_inference_steps == len(scheduler.timesteps) == 3


def test_sigmas_of_a_flow_are_shifted_as_in_diffusers() -> None:
    given = [1.0, 0.9, 0.7, 0.5, 0.3, 0.1]  # even ones count as a number of steps
    for config, mu in (({"shift": 3.0}, None), ({"use_dynamic_shifting": True}, 0.8)):
        peer = diffusers.FlowMatchEulerDiscreteScheduler(**config)
        ours = schedulers.UniPC.from_config(peer.config)
        peer.set_timesteps(sigmas=given, mu=mu)
        ours.set_timesteps(sigmas=given, mu=mu)
        torch.testing.assert_close(ours.sigmas, peer.sigmas)
        torch.testing.assert_close(ours.timesteps, peer.timesteps)


def test_mu() -> None:
    config = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True).config
    shifted = schedulers.UniPC.from_config(config, grid="trailing")
    fixed = schedulers.UniPC(
        **{**CONFIGS["flow"], "flow_shift": dynamic_shift(0.8)}, grid="trailing"
    )
    assert times_of(shifted, mu=0.8) == pytest.approx(times_of(fixed), rel=1e-6)
    # Some pipelines always send it.
    assert times_of(fixed, mu=5.0) == times_of(fixed)
    with pytest.raises(ValueError, match=re.escape("set_timesteps(..., mu=...)")):
        times_of(shifted)


def test_bad_requests_name_the_remedy() -> None:
    scheduler = schedulers.DDIM()
    for arguments in ({}, {"timesteps": [5], "sigmas": [1.0]}):
        with pytest.raises(ValueError, match="pass one of num_inference_steps, timesteps="):
            scheduler.set_timesteps(**arguments)  # both are for flows only
    with pytest.raises(ValueError, match="num_inference_steps=4 beside 2 levels: leave it out"):
        scheduler.set_timesteps(4, sigmas=[3.0, 1.0])
    with pytest.raises(ValueError, match="at least 1, got 0"):
        scheduler.set_timesteps(0)
    with pytest.raises(ValueError, match="sort the levels"):
        scheduler.set_timesteps(timesteps=[100, 500])
    with pytest.raises(ValueError, match="NaN"):
        scheduler.set_timesteps(sigmas=[3.0, float("nan")])
    with pytest.raises(ValueError, match="unknown grid 'carras'; known: auto, linspace"):
        schedulers.DDIM(grid="carras").set_timesteps(4)
    with pytest.raises(ValueError, match="order must be 1, 2 or 3 for DPMSolverPP, got 4"):
        schedulers.DPMSolverPP(order=4).set_timesteps(4)


def test_levels_end_where_the_config_says() -> None:
    """Their own sigmas, handed back, are the same run; times end at the least level as well."""
    for config in ({"final": "sigma_min"}, {"final_sigmas_type": "sigma_min"}):
        scheduler = schedulers.UniPC(**config)
        scheduler.set_timesteps(10)
        end, sigmas = scheduler.plan.end, scheduler.grid.rho.tolist()
        assert sigmas[-1] == scheduler.process.rho_min
        scheduler.set_timesteps(sigmas=sigmas)
        assert (scheduler.plan.nfe, scheduler.plan.end) == (10, end)
        scheduler.set_timesteps(timesteps=[900, 500, 100])
        assert scheduler.plan.end == end
        scheduler.set_timesteps(timesteps=[900, 500, 0])  # the last is at that level itself
        assert scheduler.plan.end == (1, 0)
