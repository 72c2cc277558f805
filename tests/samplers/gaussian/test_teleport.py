"""Runs that jump to a landing level: their plans, and the hook."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from gaussians import randn
from teleports import MEAN, PROCESSES, STDS, diagonal_fit, rmse

from fewstep.eval.problems import load_problem
from fewstep.eval.problems.fine_solution import CountingDenoiser
from fewstep.models.exact import GaussianDenoiser
from fewstep.samplers import DEFAULT_SPECS, Plan, build_plan, sample
from fewstep.samplers.adapter import schedulers
from fewstep.samplers.gaussian.class_gaussians import ClassGaussians
from fewstep.samplers.gaussian.fit import fit_gaussian
from fewstep.samplers.gaussian.gaussian import level_of
from fewstep.samplers.gaussian.landing import explained_level
from fewstep.samplers.gaussian.teleport import Teleport, teleported_plan
from fewstep.schedules import GRIDS, Flow


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("spec", [*DEFAULT_SPECS, "singlestep", "sa", "unipc:final=sigma_min"])
def test_all_calls_lie_at_or_below_the_landing(name: str, spec: str) -> None:
    process = PROCESSES[name]
    for nfe in (1, 2, 5, 8):
        if nfe == 1 and spec == "unipc:final=sigma_min":
            continue
        plan = teleported_plan(spec, process, nfe, 3.0)
        assert plan.nfe == nfe
        ratios = plan.sigmas(native=False)
        assert ratios[0] == pytest.approx(3.0, rel=1e-12)
        assert max(ratios) == ratios[0]
        assert plan.name == spec
        assert Plan.from_json(plan.to_json()).provenance["landing"] == 3.0


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("grid", [*GRIDS, "auto"])
def test_every_rule_of_grids_begins_at_the_landing(name: str, grid: str) -> None:
    process = PROCESSES[name]
    ratios = teleported_plan(f"ddim:grid={grid}", process, 6, 3.0).sigmas(native=False)
    assert ratios[0] == pytest.approx(3.0, rel=1e-12)
    assert ratios[-1] == 0
    assert all(np.diff(ratios) < 0)


@pytest.mark.parametrize("spec", ["ipndm", "unipc:grid=logsnr", "dpmpp:grid=karras"])
def test_from_the_start_of_the_process_it_is_the_whole_plan(spec: str) -> None:
    process = PROCESSES["ve"]
    late = teleported_plan(spec, process, 6, process.rho_max * (1 - 1e-12))
    whole = build_plan(spec, process, 6)
    for a, b in zip(late.evaluations, whole.evaluations, strict=True):
        for own, other in zip(a.ops, b.ops, strict=True):
            numbers = [(op.c_x, op.c_b, *op.w) for op in (own, other)]
            np.testing.assert_allclose(*numbers, rtol=1e-8, atol=1e-10)


def test_a_shifted_grid_is_shifted_below_the_landing_too() -> None:
    """Ratios of a flow grow by the shift; the rule covers what is then the range."""
    flow = Flow()
    for grid in ("auto", "logsnr"):
        spec = f"ddim:grid={grid},shift=2.0"
        shifted = teleported_plan(spec, flow, 6, 4.0).sigmas(native=False)
        plain = teleported_plan(f"ddim:grid={grid}", flow, 6, 2.0).sigmas(native=False)
        np.testing.assert_allclose(shifted, 2 * np.array(plain), rtol=1e-12)
    with pytest.raises(ValueError, match="shift must be > 0, got -1"):
        teleported_plan("ddim:shift=-1.0", flow, 6, 4.0)


def test_guidance_still_moves_nodes() -> None:
    plan = teleported_plan("ipndm", PROCESSES["vp"], 6, 4.0, breakpoints=(1.25,))
    assert min(abs(rho - 1.25) for rho in plan.sigmas(native=False)) < 1e-12


@pytest.mark.parametrize("name", PROCESSES)
def test_a_run_on_gaussian_data_begins_on_the_exact_trajectory(name: str) -> None:
    """To 1e-10, and what the steps above the landing added to the error is gone."""
    process, fit = PROCESSES[name], diagonal_fit()
    denoiser = GaussianDenoiser(process, MEAN, STDS)
    noise = randn(64, 6, seed=1)
    start, stop = level_of(process, process.rho_max), level_of(process, 2.0)
    exact = denoiser.flow_map(process.start_scale * noise, start, stop)
    hook = Teleport(fit, process, 2.0)
    torch.testing.assert_close(hook.latents(noise), exact, rtol=0, atol=1e-10)
    plan = teleported_plan("dpmpp", process, 5, 2.0)
    by_hook = sample(denoiser, plan, 5, noise=noise, hooks=[hook])
    end = denoiser.flow_map(process.start_scale * noise, start, level_of(process, 0.0))
    plain = sample(denoiser, "dpmpp", 5, noise=noise)
    assert rmse(by_hook, end) < 0.5 * rmse(plain, end)


def test_every_level_is_a_landing_on_gaussian_data() -> None:
    """However late, nothing is lost: the error of the calls below falls with their range.

    Of DPM-Solver++, that is: in other solvers errors of early and late steps may cancel.
    """
    process, fit = PROCESSES["vp"], diagonal_fit()
    denoiser = GaussianDenoiser(process, MEAN, STDS)
    noise = randn(64, 6, seed=1)
    end = denoiser.flow_map(noise, level_of(process, process.rho_max), level_of(process, 0.0))
    errors = []
    for rho in (20.0, 5.0, 1.0, 0.1, 0.05):
        plan = teleported_plan("dpmpp", process, 5, rho)
        done = sample(denoiser, plan, 5, noise=noise, hooks=[Teleport(fit, process, rho)])
        errors.append(rmse(done, end))
    assert all(b < a for a, b in pairwise(errors))
    assert errors[-1] < 1e-4


def test_with_a_spec_the_calls_above_are_saved() -> None:
    process, fit = PROCESSES["ve"], diagonal_fit()
    denoiser = CountingDenoiser(GaussianDenoiser(process, MEAN, STDS))
    noise = randn(64, 6, seed=1)
    done = sample(denoiser, "dpmpp", 10, noise=noise, hooks=[Teleport(fit, process, 2.0)])
    whole = build_plan("dpmpp", process, 10, (2.0,)).sigmas(native=False)[:-1]
    assert denoiser.calls == sum(rho <= 2.0 + 1e-9 for rho in whole) < 10
    exact = GaussianDenoiser(process, MEAN, STDS).flow_map(
        80 * noise, level_of(process, 80.0), level_of(process, 0.0)
    )
    plain = sample(denoiser, "dpmpp", 10, noise=noise)
    assert rmse(done, exact) < rmse(plain, exact)


def test_a_plan_without_a_level_there_is_entered_below() -> None:
    process, fit = PROCESSES["ve"], diagonal_fit()
    seen: list[float] = []

    class Watching(GaussianDenoiser):
        def __call__(self, x, level, cond=None):
            seen.append(level.rho)
            exact = self.flow_map(80 * noise, level_of(process, 80.0), level_of(process, level.rho))
            if len(seen) == 1:
                torch.testing.assert_close(x, exact, rtol=0, atol=1e-10)
            return super().__call__(x, level, cond)

    noise = randn(8, 6, seed=1)
    plan = build_plan("ipndm", process, 10)
    with pytest.warns(UserWarning, match="unsnapped"):
        sample(Watching(process, MEAN, STDS), plan, 10, noise=noise,
               hooks=[Teleport(fit, process, 2.0)])  # fmt: skip
    assert seen[0] < 2.0


def test_a_scheduler_is_entered_too() -> None:
    scheduler = schedulers.UniPC()
    process, fit = scheduler.process, diagonal_fit()
    denoiser = GaussianDenoiser(process, MEAN, STDS)
    noise, hook = randn(4, 6, seed=1), Teleport(fit, process, 2.0)
    done = sample(denoiser, scheduler, 8, noise=noise, hooks=[hook])
    torch.testing.assert_close(done, sample(denoiser, "unipc", 8, noise=noise, hooks=[hook]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("name", PROCESSES)
def test_low_precision_runs_are_finite(name: str, dtype: torch.dtype) -> None:
    process, fit = PROCESSES[name], diagonal_fit()
    denoiser = GaussianDenoiser(process, MEAN, STDS)
    plan, noise = teleported_plan("unipc", process, 4, 3.0), randn(8, 6, seed=1)
    hook = Teleport(fit, process, 3.0)
    assert hook.latents(noise.to(dtype)).dtype == dtype
    done = sample(denoiser, plan, 4, noise=noise.to(dtype), hooks=[hook])
    exact = sample(denoiser, plan, 4, noise=noise, hooks=[hook])
    assert done.isfinite().all()
    # A few roundings of numbers up to 5.
    assert rmse(done.double(), exact) < 8 * torch.finfo(dtype).eps


def test_classes_are_taken_to_their_own_means() -> None:
    process = PROCESSES["flow"]
    fits = diagonal_fit(), diagonal_fit(STDS / 2, 5 - MEAN)
    noise, labels = randn(4, 6, seed=1), torch.tensor([0, 1, 1, 0])
    got = Teleport(ClassGaussians(fits), process, 2.0, labels=labels).latents(noise)
    for k, fit in enumerate(fits):
        own = Teleport(fit, process, 2.0).latents(noise)
        torch.testing.assert_close(got[labels == k], own[labels == k], rtol=0, atol=1e-12)


def test_refusals_are_one_line() -> None:
    fit, vp, flow = diagonal_fit(), PROCESSES["vp"], PROCESSES["flow"]
    denoiser = GaussianDenoiser(vp, MEAN, STDS)
    cases = {
        "ratio sigma / alpha between 0.0100005 and 157": lambda: Teleport(fit, vp, 200.0),
        "got 0": lambda: Teleport(fit, vp, 0.0),
        "got inf": lambda: teleported_plan("ddim", flow, 4, math.inf),
        "got nan": lambda: teleported_plan("ddim", flow, 4, math.nan),
        "at least 1 call": lambda: teleported_plan("ddim", vp, 0, 3.0),
        "unknown sampler": lambda: teleported_plan("nothing", vp, 4, 3.0),
        "fitted to samples of shape": lambda: sample(
            denoiser, "ddim", 4, shape=(2, 5), hooks=[Teleport(fit, vp, 3.0)]
        ),
        "2 hooks want to start": lambda: sample(
            denoiser, "ddim", 4, shape=(2, 6), hooks=[Teleport(fit, vp, 3.0)] * 2
        ),
    }
    for message, call in cases.items():
        with pytest.raises(ValueError, match=message) as raised:
            call()
        assert "\n" not in str(raised.value)


def test_teleporting_pays_on_a_mixture() -> None:
    """ring2 at 4 calls from where the rule lands: less than half the error of the plain run."""
    problem = load_problem("ring2")
    data = problem.denoiser.sample_data(4096, torch.Generator().manual_seed(0))
    fit = fit_gaussian(data)
    rho = explained_level(fit, problem.denoiser, data)
    assert rho is not None
    noise = problem.initial_noise(256, 5, torch.float64)
    reference = problem.reference(noise)
    plain = sample(problem.denoiser, "ipndm", 4, noise=noise)
    plan, hook = (
        teleported_plan("ipndm", problem.process, 4, rho),
        Teleport(fit, problem.process, rho),
    )
    late = sample(problem.denoiser, plan, 4, noise=noise, hooks=[hook])
    assert rmse(late, reference) < 0.5 * rmse(plain, reference)
