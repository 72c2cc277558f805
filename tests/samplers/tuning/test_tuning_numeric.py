"""Tuning from runs alone: the differences, the calls they share, and what is kept."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from gaussians import randn

from fewstep.models.exact import GaussianDenoiser, MixtureDenoiser
from fewstep.samplers import build_plan, sample
from fewstep.samplers.core.plan import Plan
from fewstep.samplers.gaussian.gaussian import GaussianFit
from fewstep.samplers.gaussian.warm import WarmTeleport, warm_plan
from fewstep.samplers.tuning import numeric
from fewstep.samplers.tuning.compensation_family import compensation_numbers
from fewstep.samplers.tuning.epsilon import epsilon_numbers, scale_epsilon
from fewstep.samplers.tuning.numeric import Numbers, plan_squares, run_plan, tune_numbers
from fewstep.samplers.tuning.objective import Objective
from fewstep.samplers.tuning.pairs import Pairs
from fewstep.samplers.tuning.rollout import Calls
from fewstep.samplers.tuning.teacher import fine_grid, teach
from fewstep.schedules import VE, Flow, NoiseProcess, discrete_vp

PROCESSES = (discrete_vp("scaled_linear"), VE(0.002, 80.0), Flow())


def mixture(process: NoiseProcess = PROCESSES[0]) -> MixtureDenoiser:
    means = torch.tensor([[-1.3, 0.4], [0.2, -0.9], [0.9, 1.0], [1.4, -0.6]], dtype=torch.float64)
    stds = torch.tensor([0.5, 0.35, 0.6, 0.4])
    return MixtureDenoiser(process, means, stds, labels=torch.tensor([0, 0, 1, 1]))


def pairs(denoiser: MixtureDenoiser, n: int, seed: int, cond: torch.Tensor | None = None) -> Pairs:
    grid = fine_grid(denoiser.process, 100, least=1e-3)
    return Pairs.of(teach(denoiser, randn(n, 2, seed=seed), cond, grid=grid))


def made_by(plan: Plan, denoiser: MixtureDenoiser, n: int, seed: int) -> Pairs:
    """Ends that a plan comes to."""
    start = pairs(denoiser, n, seed).start
    end, _ = run_plan(Calls(denoiser), plan, Pairs(start, start))
    return Pairs(start, end)


def runs(numbers: Numbers, goal: Objective, batch: int = 1000) -> tuple[Calls, numeric._Runs]:
    calls = Calls(mixture())
    return calls, numeric._Runs(calls, numbers, goal, batch)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_gradient_is_that_of_the_loss(power: float) -> None:
    numbers = compensation_numbers("unipc", PROCESSES[0], 5)
    goal = Objective(pairs(mixture(), 32, 5), power, 1e-3)
    calls, made = runs(numbers, goal)
    change = np.array([0.1, -0.2, 0.05, 0.3])
    _, gradient = made.normal(change)

    def total(v: np.ndarray) -> float:
        squares = plan_squares(calls, numbers.at(v), goal.pairs) + goal.floor
        return float(squares.pow(1 - power / 2).sum()) / (1 - power / 2)

    for k, step in enumerate(1e-5 * np.eye(4)):
        slope = (total(change + step) - total(change - step)) / 2e-5
        # d e / d end is 2 error / dim, and the matrix leaves out the factor 2 / dim = 1. One-sided
        # differences with a step of 5e-7 are good to 1e-6 of columns of order 1.
        assert slope == pytest.approx(gradient[k], rel=1e-3, abs=1e-5)


def test_jacobian_shares_the_calls_before_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ratio i changes what follows output i, so of n calls n - 1 - i are made again."""
    n, samples = 6, 32
    numbers = compensation_numbers("dpmpp:order=3", PROCESSES[0], n)
    goal = Objective(pairs(mixture(), samples, 5), 0.5, 1e-3)
    calls, made = runs(numbers, goal)
    change = np.linspace(-0.3, 0.4, n - 1)
    shared = made.normal(change)
    assert calls.samples == samples * (n + (n - 1) * (n - 2) // 2)
    monkeypatch.setattr(numeric, "shared_calls", lambda plan, other: 0)
    for a, b in zip(shared, made.normal(change), strict=True):
        np.testing.assert_array_equal(a, b)
    parted = runs(numbers, goal, batch=7)[1].normal(change)
    for a, b in zip(shared, parted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)  # the order of sums


@pytest.mark.parametrize("process", PROCESSES)
def test_finds_the_numbers_that_made_the_ends(process: NoiseProcess) -> None:
    denoiser = mixture(process)
    numbers = compensation_numbers("unipc", process, 5)
    wanted = np.array([1.2, 0.7, 1.3, 0.9])
    tune, select = (made_by(numbers.plan(wanted), denoiser, 64, seed) for seed in (1, 2))
    vector, history = tune_numbers(Calls(denoiser), numbers, tune, select)
    before, after = (
        plan_squares(Calls(denoiser), numbers.plan(v), select).mean().sqrt()
        for v in (numbers.start, vector)
    )
    # A zero residual: Gauss-Newton converges until its steps gain less than 1e-5 of the loss.
    assert after < 1e-4 * before
    np.testing.assert_allclose(vector, wanted, atol=1e-2)
    assert history[-1].select < history[0].select


def test_numbers_out_of_range_are_avoided() -> None:
    inner = compensation_numbers("unipc", PROCESSES[0], 4)
    wanted = np.array([1.5, 0.9, 1.2])

    def plan(vector: np.ndarray) -> Plan:
        if vector[0] > 1.2 or vector[2] > 1.1:
            raise ValueError("out of range")
        return inner.plan(vector)

    numbers = replace(inner, plan=plan)
    tune, select = (made_by(inner.plan(wanted), mixture(), 64, seed) for seed in (1, 2))
    vector, history = tune_numbers(Calls(mixture()), numbers, tune, select)
    numbers.plan(vector)
    assert history
    fixed, _ = tune_numbers(
        Calls(mixture()),
        Numbers(np.ones(1), lambda v: pinned(plan, v[0]), np.ones(1)),
        tune,
        select,
    )
    assert fixed == 1  # what may not move in either direction stays


def pinned(plan, value: float) -> Plan:
    if value != 1:
        raise ValueError("out of range")
    return plan(np.ones(3))


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("spec", ["unipc", "dpmpp:order=2", "ddim"])
def test_start_is_kept_where_nothing_can_be_gained(spec: str, process: NoiseProcess) -> None:
    """Every solver solves a point mass, up to rounding."""
    denoiser = GaussianDenoiser(process, 0.7, 0.0)
    end = torch.full((16, 3), 0.7, dtype=torch.float64)
    tune, select = (Pairs(randn(16, 3, seed=s), end) for s in (1, 2))
    families = [epsilon_numbers(build_plan(spec, process, 5))]
    families += [] if spec == "ddim" else [compensation_numbers(spec, process, 5)]
    for numbers in families:
        calls = Calls(denoiser)
        vector, history = tune_numbers(calls, numbers, tune, select)
        np.testing.assert_array_equal(vector, numbers.start)
        assert history == ()
        assert calls.samples == 2 * 16 * 5  # of the start alone


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("landing", [None, 0.8])
def test_one_call_on_gaussian_data(process: NoiseProcess, landing: float | None) -> None:
    r"""Data N(0, s^2): with the right b one call is exact, from the start or an exact jump.

    The end s x / sqrt(v) is (x - sigma eps / b) / alpha with eps = sigma x / v, so with
    r = rho / s, b = r^2 / (1 + r^2) / (1 - 1 / sqrt(1 + r^2)).
    """
    s = 0.6
    denoiser = GaussianDenoiser(process, 0.0, s)
    found = []
    rho = landing or min(process.rho_max, 5.0)
    plan = warm_plan("ddim:grid=logsnr", process, 1, rho, history=0)
    for seed in (1, 2):
        y = randn(64, 3, seed=seed) * math.hypot(s, rho) / rho  # x / sigma there
        found.append(Pairs(y, y * rho * s / math.hypot(s, rho)))
    numbers = epsilon_numbers(plan)
    assert numbers.start.tolist() == [1.0]
    exact = (rho / s) ** 2 / (1 + (rho / s) ** 2) / (1 - 1 / math.hypot(1, rho / s))
    vector, _ = tune_numbers(Calls(denoiser), numbers, *found)
    assert vector[0] == pytest.approx(exact, rel=1e-4)
    before = plan_squares(Calls(denoiser), numbers.plan(numbers.start), found[1]).mean().sqrt()
    after = plan_squares(Calls(denoiser), numbers.plan(vector), found[1]).mean().sqrt()
    assert after < 1e-4 * before
    there = replace(numbers, start=np.array([exact]))
    vector, history = tune_numbers(Calls(denoiser), there, *found)
    assert (vector[0], history) == (exact, ())


def test_never_worse_on_selection_noises() -> None:
    """Three noises are too few to tune on; what is kept is still no worse than the start."""
    denoiser = mixture()
    select = pairs(denoiser, 64, 9)
    for seed, spec in enumerate(["unipc", "dpmpp:order=3", "ipndm"]):
        numbers = compensation_numbers(spec, PROCESSES[0], 6)
        vector, history = tune_numbers(
            Calls(denoiser), numbers, pairs(denoiser, 3, seed), select, power=0.0
        )
        start, kept = (
            plan_squares(Calls(denoiser), numbers.plan(v), select).mean()
            for v in (numbers.start, vector)
        )
        assert kept < start if history else (vector == numbers.start).all()


def test_stops_when_asked_and_draws_nothing() -> None:
    state = torch.random.get_rng_state()
    numbers = compensation_numbers("unipc", PROCESSES[0], 4)
    tune, select = pairs(mixture(), 32, 1), pairs(mixture(), 32, 2)
    vector, history = tune_numbers(Calls(mixture()), numbers, tune, select, stop=lambda: True)
    assert (vector == numbers.start).all()
    assert history == ()
    twice = [tune_numbers(Calls(mixture()), numbers, tune, select, steps=3) for _ in range(2)]
    assert (twice[0][0] == twice[1][0]).all()
    assert len(twice[0][1]) <= 4  # the start and three steps
    assert torch.equal(torch.random.get_rng_state(), state)


def test_conditions_and_float32() -> None:
    labels = torch.arange(96) % 2
    denoiser, few = mixture(), pairs(mixture(), 96, 4, labels)
    few = Pairs(few.start.float(), few.end.float(), labels)
    tune, select = few.part(slice(0, 64)), few.part(slice(64, 96))
    numbers = compensation_numbers("ipndm", PROCESSES[0], 5)
    calls = Calls(denoiser)
    vector, _ = tune_numbers(calls, numbers, tune, select, batch=10)
    start, kept = (
        plan_squares(calls, numbers.plan(v), select, batch=5).mean()
        for v in (numbers.start, vector)
    )
    assert kept < 0.5 * start  # measured: 0.2
    unseen = pairs(denoiser, 200, 8, torch.arange(200) % 2)
    start, kept = (
        plan_squares(calls, numbers.plan(v), unseen).mean() for v in (numbers.start, vector)
    )
    assert kept < start


def test_history_above_a_landing_costs_no_call() -> None:
    process, denoiser = PROCESSES[0], mixture()
    mean, eye = denoiser.means.mean(0), torch.eye(2, dtype=torch.float64)
    fit = GaussianFit((2,), mean, torch.ones(2).double(), eye[:, :0], mean[:0])
    plan = warm_plan("dpmpp:order=3", process, 4, 3.0, history=2)
    noise = randn(16, 2, seed=3)
    landed = Pairs.landed(teach(denoiser, noise, grid=20), fit, 3.0, plan.sigmas(native=False)[:2])
    for made in (plan, scale_epsilon(plan, b=1.01)):
        assert made.evaluations[:2] == plan.evaluations[:2]
        calls = Calls(denoiser)
        end, outputs = run_plan(calls, made, landed)
        assert (calls.samples, len(outputs)) == (4 * 16, 6)
        hook = WarmTeleport(made, process, fit)
        same = sample(denoiser, made, made.calls, noise=noise, hooks=[hook])
        torch.testing.assert_close(end, same, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="reads noise above its landing"):
        run_plan(calls, warm_plan("ipndm", process, 4, 3.0, history=2), landed)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="one shape"):
        Numbers(np.ones(2), lambda v: build_plan("unipc", PROCESSES[0], 3), np.ones(3))
    with pytest.raises(ValueError, match="scales positive"):
        Numbers(np.ones(2), lambda v: build_plan("unipc", PROCESSES[0], 3), np.zeros(2))
    few = pairs(mixture(), 8, 1)
    noisy = epsilon_numbers(build_plan("sa", PROCESSES[0], 4))
    with pytest.raises(ValueError, match="adds noise"):
        tune_numbers(Calls(mixture()), noisy, few, few)
    broken = GaussianDenoiser(PROCESSES[0], math.nan, 1.0)
    with pytest.raises(ValueError, match="not finite on these noises"):
        tune_numbers(Calls(broken), compensation_numbers("unipc", PROCESSES[0], 4), few, few)
