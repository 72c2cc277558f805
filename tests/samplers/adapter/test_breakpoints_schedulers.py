"""Breakpoints of schedulers, saved plans and whole runs."""

import warnings

import numpy as np
import pytest
import torch
from helpers import CONFIGS
from interval_problem import (
    EDGES,
    Interval,
    MixtureDenoiser,
    read_by,
)

from fewstep.samplers import SAMPLERS, build_plan, sample
from fewstep.samplers.adapter import schedulers
from fewstep.samplers.core.run import levels


@pytest.mark.parametrize("name", ["UniPC", "Heun", "DPMSolverPPSinglestep", "IPNDM", "Restart"])
@pytest.mark.parametrize("config", ["vp-scaled", "flow", "edm"])
def test_schedulers_make_the_same_plan(name: str, config: str) -> None:
    scheduler = getattr(schedulers, name)(**CONFIGS[config])
    scheduler.breakpoints = EDGES
    scheduler.set_timesteps(20)
    shift = f":shift={CONFIGS[config]['flow_shift']}" if config == "flow" else ""
    spec = next(key for key, entry in SAMPLERS.items() if entry.scheduler == name) + shift
    assert scheduler.plan.evaluations == build_plan(spec, scheduler.process, 20, EDGES).evaluations
    assert scheduler.clone().breakpoints == EDGES
    assert "breakpoints" not in scheduler.config


def test_levels_of_the_user_stay_and_restart_history() -> None:
    scheduler = schedulers.DPMSolverPP()
    scheduler.breakpoints = EDGES
    given = [20.0, 8.0, 2.9, 1.5, 0.28, 0.1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scheduler.set_timesteps(sigmas=given)
    assert scheduler.grid.breaks == {2, 4}
    ratios = [level.rho for level in levels(scheduler.plan)]
    np.testing.assert_allclose(ratios, given, rtol=1e-12)
    with pytest.warns(UserWarning, match=r"unsnapped: .* 0\.28") as caught:
        scheduler.set_timesteps(sigmas=[20.0, 8.0, 2.9, 1.5, 0.3, 0.1])
    assert len(caught) == 1
    assert scheduler.grid.breaks == {2}


def test_late_starts_keep_the_breaks() -> None:
    scheduler = schedulers.DPMSolverPP(lower_order_final=False)
    scheduler.breakpoints = EDGES
    scheduler.set_timesteps(12)
    whole = scheduler.plan
    scheduler.set_begin_index(2)
    scheduler.step(torch.zeros(1, 4), scheduler.timesteps[2], torch.zeros(1, 4))
    late = scheduler._executor.plan
    for read, same in zip(read_by(late)[2:], read_by(whole)[4:], strict=True):
        assert {k + 2 for k in read} == same


def test_a_saved_plan_is_taken_as_it_is(tmp_path) -> None:
    free = build_plan("dpmpp", MixtureDenoiser.process, 8)
    free.save(tmp_path / "plan.json")
    noise = torch.linspace(-2, 2, 5, dtype=torch.float64)
    with pytest.warns(UserWarning, match="is unsnapped") as caught:
        sample(MixtureDenoiser(), tmp_path / "plan.json", 8, noise=noise, guidance=Interval())
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)
    own = build_plan("dpmpp", MixtureDenoiser.process, 8, EDGES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        a, b = (
            sample(MixtureDenoiser(), sampler, 8, noise=noise, guidance=Interval())
            for sampler in (own, "dpmpp")
        )
    assert torch.equal(a, b)


def test_sample_tells_guidance_of_the_run() -> None:
    guidance, scheduler = Interval(), schedulers.DPMSolverPP()
    denoiser = MixtureDenoiser()
    denoiser.process = scheduler.process
    noise = torch.linspace(-2, 2, 5, dtype=torch.float64)
    a = sample(denoiser, scheduler, 8, noise=noise, guidance=guidance, seeds=range(5, 10))
    assert scheduler.breakpoints == ()
    (run_facts,) = guidance.seen
    assert (len(run_facts.levels), run_facts.reads, run_facts.noisy) == (8, 2, False)
    assert list(guidance.seeds) == [5, 6, 7, 8, 9]
    assert torch.equal(a, sample(denoiser, "dpmpp", 8, noise=noise, guidance=Interval()))
