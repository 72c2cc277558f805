"""Teleported multistep runs whose history is what the Gaussian predicts above the landing."""

import numpy as np
import pytest
import torch
from gaussians import randn
from teleports import MEAN, PROCESSES, STDS, diagonal_fit, rmse

from fewstep.eval.problems import load_problem
from fewstep.eval.problems.fine_solution import CountingDenoiser
from fewstep.models.exact import GaussianDenoiser
from fewstep.samplers import Plan, sample
from fewstep.samplers.core.execute import Executor
from fewstep.samplers.gaussian.class_gaussians import ClassGaussians
from fewstep.samplers.gaussian.fit import fit_gaussian
from fewstep.samplers.gaussian.gaussian import level_of
from fewstep.samplers.gaussian.teleport import teleported_plan
from fewstep.samplers.gaussian.warm import WarmTeleport, warm_plan

MULTISTEP = ["ipndm", "deis", "dpmpp", "dpmpp:order=3", "unipc", "unipc:order=3", "ddim"]


def warm_start(spec: str, process, nfe: int, fit, landing: float, *, labels=None, history: int = 2):
    plan = warm_plan(spec, process, nfe, landing, history)
    return WarmTeleport(plan, process, fit, labels=labels)


def run(warm: WarmTeleport, denoiser, noise: torch.Tensor) -> torch.Tensor:
    return sample(denoiser, warm.plan, warm.plan.calls, noise=noise, hooks=[warm])


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("spec", MULTISTEP)
def test_the_denoiser_is_called_below_the_landing_only(name: str, spec: str) -> None:
    process = PROCESSES[name]
    denoiser = CountingDenoiser(GaussianDenoiser(process, MEAN, STDS))
    for nfe in (1, 2, 5):
        warm = warm_start(spec, process, nfe, diagonal_fit(), 3.0)
        denoiser.calls = 0
        assert run(warm, denoiser, randn(4, 6, seed=1)).isfinite().all()
        assert denoiser.calls == nfe
        ratios = warm.plan.sigmas(native=False)
        assert all(np.diff(ratios) < 0)
        assert ratios[2] == pytest.approx(3.0, rel=1e-12)
        again = Plan.from_json(warm.plan.to_json())
        assert again.provenance == {"landing": 3.0, "history": 2}


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("spec", ["ipndm", "dpmpp:order=3", "unipc:order=3"])
def test_state_and_history_lie_on_the_exact_trajectory(name: str, spec: str) -> None:
    """To 1e-10 on Gaussian data: the state at the landing, and each entry of the history."""
    process, noise = PROCESSES[name], randn(16, 6, seed=1)
    exact = GaussianDenoiser(process, MEAN, STDS)
    warm = warm_start(spec, process, 5, diagonal_fit(), 3.0)
    start, executor = level_of(process, process.rho_max), Executor(warm.plan)

    def there(level):
        return exact.flow_map(process.start_scale * noise, start, level)

    x = warm.start(noise, noise, start)
    for i, row in enumerate(warm.plan.evaluations[:2]):
        level = level_of(process, row.sigma / row.alpha)
        answer = warm.answers(x)[i]
        own = answer if row.form == "data" else (x - level.alpha * answer) / level.sigma
        wanted = exact(there(level), level)
        if row.form == "noise":
            wanted = (there(level) - level.alpha * wanted) / level.sigma
        torch.testing.assert_close(own, wanted, rtol=0, atol=1e-10)
        x = executor.step(i, answer, x, torch.zeros_like)
    landed = there(level_of(process, 3.0))
    torch.testing.assert_close(x, landed, rtol=0, atol=1e-10)


@pytest.mark.parametrize("spec", MULTISTEP)
def test_without_history_it_is_the_teleported_plan(spec: str) -> None:
    process = PROCESSES["vp"]
    bare, late = warm_plan(spec, process, 5, 3.0, 0), teleported_plan(spec, process, 5, 3.0)
    for a, b in zip(bare.evaluations, late.evaluations, strict=True):
        assert (a.sigma, a.form) == (b.sigma, b.form)
        for own, other in zip(a.ops, b.ops, strict=True):
            numbers = [(op.c_x, op.c_b, *op.w) for op in (own, other)]
            np.testing.assert_allclose(*numbers, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("spec", "order"), [("ddim", 1), ("dpmpp", 2), ("deis", 3)])
def test_the_first_step_has_the_order_of_the_solver(spec: str, order: int) -> None:
    """One step below a landing on Gaussian data: its error falls as h^(order + 1)."""
    process, fit = PROCESSES["ve"], diagonal_fit()
    exact, noise = GaussianDenoiser(process, MEAN, STDS), randn(16, 6, seed=1)
    errors = []
    for calls in (60, 120):
        # A grid in ln rho from 2 on, of which only the first step is taken.
        warm = warm_start(f"{spec}:grid=logsnr", process, calls, fit, 2.0, history=order - 1)
        executor, x = Executor(warm.plan), warm.latents(noise)
        for i, row in enumerate(warm.plan.evaluations[:order]):
            level = level_of(process, row.sigma / row.alpha)
            x0 = exact(x, level) if i + 1 == order else warm.answers(x)[i]
            x = executor.step(i, x0, x, torch.zeros_like)
        after = level_of(process, warm.plan.sigmas(native=False)[order])
        start = level_of(process, process.rho_max)
        step = np.log(2.0 / after.rho)
        errors.append((step, rmse(x, exact.flow_map(80 * noise, start, after))))
    (h, a), (k, b) = errors
    assert np.log(a / b) / np.log(h / k) > order + 0.7


def test_classes_and_low_precision() -> None:
    process = PROCESSES["flow"]
    fits = ClassGaussians((diagonal_fit(), diagonal_fit(STDS / 2, 5 - MEAN)))
    labels = torch.tensor([0, 1, 1, 0])
    warm = warm_start("ipndm", process, 4, fits, 2.0, labels=labels)
    exact = GaussianDenoiser(process, MEAN, STDS)
    noise = randn(4, 6, seed=1)
    full, half = (run(warm, exact, noise.to(dtype)) for dtype in (torch.float64, torch.float16))
    assert half.isfinite().all()
    # The noise form divides by alpha = 1/9 and comes back: roundings of numbers up to 50.
    assert rmse(half.double(), full) < 0.05
    alone = warm_start("ipndm", process, 4, fits.fits[1], 2.0)
    torch.testing.assert_close(run(alone, exact, noise)[1:3], full[1:3], rtol=0, atol=1e-12)


def test_a_history_pays_on_a_mixture() -> None:
    """mix8 at 4 to 8 calls, landing at 4: at most 0.8 of the plain run, and of the bare jump."""
    problem = load_problem("mix8")
    fit = fit_gaussian(problem.denoiser.sample_data(4096, torch.Generator().manual_seed(0)))
    noise = problem.initial_noise(256, 5, torch.float64)
    reference = problem.reference(noise)
    for nfe in (4, 5, 6, 8):
        plain = rmse(sample(problem.denoiser, "ipndm", nfe, noise=noise), reference)
        warm, bare = (
            warm_start("ipndm", problem.process, nfe, fit, 4.0, history=h) for h in (2, 0)
        )
        error = rmse(run(warm, problem.denoiser, noise), reference)
        assert error < 0.8 * plain
        assert error < 0.8 * rmse(run(bare, problem.denoiser, noise), reference)


def test_refusals_are_one_line() -> None:
    vp, fit = PROCESSES["vp"], diagonal_fit()
    cases = {
        "looks back at nothing": lambda: warm_plan("heun", vp, 5, 3.0),
        "one call a step": lambda: warm_plan("singlestep", vp, 6, 3.0),
        "solvers without noise": lambda: warm_plan("sa", vp, 5, 3.0),
        "adds some": lambda: warm_plan("euler_a", vp, 5, 3.0),
        "history must be >= 0": lambda: warm_plan("ipndm", vp, 5, 3.0, -1),
        "a landing is a ratio": lambda: warm_start("ipndm", vp, 5, fit, 1e9),
    }
    for message, call in cases.items():
        with pytest.raises(ValueError, match=message) as raised:
            call()
        assert "\n" not in str(raised.value)
