"""Teachers, least squares and the tuning of tied tables."""

import dataclasses
import math
import warnings

import numpy as np
import pytest
import torch

from fewstep.eval.problems import load_problem, rmse
from fewstep.models.exact import GaussianDenoiser, MixtureDenoiser
from fewstep.samplers import build_plan, sample
from fewstep.samplers.tuning.family import Family
from fewstep.samplers.tuning.flatten import flatten
from fewstep.samplers.tuning.least_squares import least_squares
from fewstep.samplers.tuning.objective import Objective
from fewstep.samplers.tuning.optimise import Settings, tune_tied
from fewstep.samplers.tuning.pairs import Pairs
from fewstep.samplers.tuning.rollout import Calls, run_table
from fewstep.samplers.tuning.scan import scan, solver_on
from fewstep.samplers.tuning.teacher import Teacher, fine_grid, teach, teacher_error
from fewstep.schedules import VE, Flow, NoiseProcess, discrete_vp

PROCESSES = (discrete_vp("scaled_linear"), VE(0.002, 80.0), Flow())


def mixture(process: NoiseProcess | None = None) -> MixtureDenoiser:
    means = torch.tensor([[-1.3, 0.4], [0.2, -0.9], [0.9, 1.0], [1.4, -0.6]], dtype=torch.float64)
    stds = torch.tensor([0.5, 0.35, 0.6, 0.4])
    labels = torch.tensor([0, 0, 1, 1])
    return MixtureDenoiser(process or PROCESSES[0], means, stds, labels=labels)


def noises(n: int, seed: int, dim: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, dim, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("process", PROCESSES)
def test_teacher_is_the_exact_solution_at_any_ratio(process: NoiseProcess) -> None:
    """Gaussian data: x / sqrt(v) is kept, with v the variance at a level."""
    denoiser = GaussianDenoiser(process, 0.3, 0.6)
    teacher = teach(denoiser, noises(8, 0))
    alpha, sigma = (float(v) for v in process.from_rho(process.rho_max))
    z = (teacher.start * sigma - 0.3 * alpha) / math.hypot(0.6 * alpha, sigma)
    for rho in (0.9 * min(process.rho_max, 1e3), 3.0, 0.77, 0.2, process.rho_min):
        exact = 0.3 + z * math.hypot(0.6, rho)
        # 96 calls of third order; at 1000 the state is of order 1000.
        assert (teacher.at(rho) - exact).abs().max() < 2e-3 * max(1, rho)
    assert (teacher.end - (0.3 + 0.6 * z)).abs().max() < 2e-3
    with pytest.raises(ValueError, match="it has no state at"):
        teacher.at(1e9 if math.isfinite(process.rho_max) else math.inf)


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("least", [None, 1e-3])
def test_fine_grid_has_its_calls_and_ends(process: NoiseProcess, least: float | None) -> None:
    grid = fine_grid(process, 30, least)
    assert grid.nfe == 30
    assert (grid.rho[0], grid.rho[-1]) == (process.rho_max, 0.0)
    assert grid.rho[-2] == pytest.approx(least or max(grid.rho[-2], process.rho_min))


def test_error_of_a_teacher_is_not_underestimated() -> None:
    denoiser, x = mixture(), noises(50, 0)
    exact = teach(denoiser, x, grid=fine_grid(denoiser.process, 800, least=1e-3)).end
    for calls in (20, 40):
        teacher = teach(denoiser, x, grid=fine_grid(denoiser.process, calls, least=1e-2))
        assert rmse(teacher.end, exact) < teacher_error(denoiser, x, teacher) < 1


def test_teacher_nodes_are_its_own_states() -> None:
    teacher = teach(mixture(), noises(4, 1), grid=fine_grid(PROCESSES[0], 20))
    for k in (1, 7, 19):
        torch.testing.assert_close(teacher.at(teacher.rho[k]), teacher.rho[k] * teacher.scaled[k])


@pytest.mark.parametrize("process", PROCESSES)
def test_least_squares_finds_the_table_that_made_the_states(process: NoiseProcess) -> None:
    """A teacher that is a run of a tied table: the coefficients are found again."""
    denoiser, x = mixture(process), noises(200, 2)
    plan = build_plan("ipndm", process, 5)
    table = flatten(plan, process)
    start = Pairs.of(teach(denoiser, x, grid=3))
    made = run_table(Calls(denoiser), table, start)
    states, data = (*made.y, made.end), tuple(made.data)
    teacher = Teacher(process, table.rho, tuple(states), data)
    other = flatten(build_plan("ddim", process, 5), process)
    other = dataclasses.replace(other, rho=table.rho)
    found = least_squares(denoiser, other, teacher, ridge=0.0)
    ends = [run_table(Calls(denoiser), t, start).end for t in (found, table)]
    torch.testing.assert_close(*ends, rtol=0, atol=1e-6)  # normal equations lose half the digits
    kept = least_squares(denoiser, other, teacher, ridge=1e12)
    np.testing.assert_allclose(kept.weights(), other.weights(), atol=1e-6)


@pytest.mark.parametrize("process", PROCESSES)
def test_least_squares_lowers_the_error_on_unseen_noises(process: NoiseProcess) -> None:
    denoiser = mixture(process)
    table = flatten(build_plan("unipc", process, 5), process)
    fitted = least_squares(denoiser, table, teach(denoiser, noises(64, 3)))
    unseen = noises(500, 4)
    exact = teach(denoiser, unseen, grid=300).end
    before, after = (
        rmse(sample(denoiser, t.plan(), 5, noise=unseen), exact) for t in (table, fitted)
    )
    assert after < 0.8 * before  # measured: 0.37 to 0.62


def test_band_bounds_how_far_back_steps_look() -> None:
    denoiser = mixture()
    table = flatten(build_plan("unipc", denoiser.process, 6), denoiser.process)
    c = least_squares(denoiser, table, teach(denoiser, noises(64, 3)), band=2).matrix()
    assert not np.tril(c, -3).any()
    assert np.diag(c, -2).all()


def test_robust_loss() -> None:
    pairs = Pairs(torch.zeros(1), torch.zeros(1))
    squares = torch.tensor([1e-4] * 99 + [1.0], dtype=torch.float64)
    plain, robust = (Objective(pairs, p, 1e-4).loss(squares) for p in (0.0, 1.0))
    assert plain == pytest.approx(squares.mean().sqrt().item())
    assert robust < 0.3 * plain
    for power in (0.0, 0.5, 1.0):
        equal = Objective(pairs, power, 1e-3).loss(torch.full((5,), 0.04))
        assert equal == pytest.approx(0.2)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_gradient_is_that_of_the_loss(power: float) -> None:
    denoiser = Calls(mixture())
    family = Family(flatten(build_plan("unipc", PROCESSES[0], 4), PROCESSES[0]))
    goal = Objective(Pairs.of(teach(mixture(), noises(32, 5))), power, 1e-3)
    vector = family.vector(family.base)
    _, gradient = goal.normal(denoiser, family, vector, batch=100)

    def total(v: np.ndarray) -> float:
        squares = goal.squares(denoiser, family.table(v)) + goal.floor
        return float(squares.pow(1 - power / 2).sum()) / (1 - power / 2)

    for k, step in enumerate(1e-5 * np.eye(family.size)):
        slope = (total(vector + step) - total(vector - step)) / 2e-5
        # d e / d end is 2 error / dim, and the matrix leaves out the factor 2 / dim = 1.
        assert slope == pytest.approx(gradient[k], rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("process", PROCESSES)
def test_tuned_error_on_unseen_noises(process: NoiseProcess) -> None:
    denoiser = mixture(process)
    tuned = tune_tied(
        denoiser, 5, teach(denoiser, noises(128, 6)), teach(denoiser, noises(128, 7)),
        Settings(starts=1, steps=15),
    )  # fmt: skip
    assert tuned.improved
    assert tuned.size == 14
    unseen = noises(500, 8)
    exact = teach(denoiser, unseen, grid=300).end
    before, after = (
        rmse(sample(denoiser, plan, 5, noise=unseen), exact) for plan in (tuned.start, tuned.plan)
    )
    assert after < 0.5 * before  # measured: 0.05 to 0.25
    assert tuned.select < tuned.select_before


@pytest.mark.parametrize("free", ["grid", "coefficients"])
def test_smaller_families_keep_the_rest(free: str) -> None:
    denoiser = mixture()
    tuned = tune_tied(
        denoiser, 4, teach(denoiser, noises(64, 6)), teach(denoiser, noises(64, 7)),
        Settings(free=free, starts=1, steps=5), solvers=("unipc:grid=logsnr",),  # type: ignore[arg-type]
    )  # fmt: skip
    assert tuned.improved
    table, start = (flatten(plan, denoiser.process) for plan in (tuned.plan, tuned.start))
    assert np.allclose(table.rho, start.rho) == (free == "coefficients")
    if free == "grid":
        rebuilt = solver_on("unipc:grid=logsnr", denoiser.process)(table.rho)
        np.testing.assert_allclose(rebuilt.weights(), table.weights())


def test_least_squares_alone_counts_its_coefficients() -> None:
    tuned = tune_tied(mixture(), 5, *_pair(mixture()), Settings(starts=1, steps=0))
    assert tuned.size == 10


def test_conditions_reach_the_model_in_every_call() -> None:
    denoiser, labels = mixture(), torch.arange(64) % 2
    tuned = tune_tied(
        denoiser, 4, teach(denoiser, noises(64, 6), labels),
        teach(denoiser, noises(64, 7), labels), Settings(starts=1, steps=5),
    )  # fmt: skip
    unseen, cond = noises(300, 8), torch.arange(300) % 2
    exact = teach(denoiser, unseen, cond, grid=300).end
    before, after = (
        rmse(sample(denoiser, plan, 4, noise=unseen, cond=cond), exact)
        for plan in (tuned.start, tuned.plan)
    )
    assert after < before


def test_float32_models_can_be_tuned() -> None:
    denoiser = mixture()
    x = [noises(128, seed).float() for seed in (6, 7)]
    tuned = tune_tied(
        denoiser, 4, teach(denoiser, x[0]), teach(denoiser, x[1]), Settings(starts=1, steps=10)
    )
    assert tuned.select < 0.5 * tuned.select_before


def test_nothing_to_gain_keeps_the_start() -> None:
    denoiser = GaussianDenoiser(PROCESSES[0], 0.7, 0.0)  # every table solves a point mass
    teachers = [teach(denoiser, noises(8, seed)) for seed in (1, 2)]
    with pytest.warns(UserWarning, match="gains nothing on the selection noises"):
        tuned = tune_tied(denoiser, 4, *teachers)
    assert not tuned.improved
    assert tuned.plan == tuned.start
    assert tuned.select == tuned.select_before
    with pytest.warns(UserWarning, match="gains nothing"):
        assert tune_tied(mixture(), 1, *_pair(mixture())).size == 0


def test_never_worse_on_selection_noises() -> None:
    """Four noises are too few to tune on; what is kept is still no worse than the start."""
    denoiser = mixture()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for seed in range(2):
            tuned = tune_tied(
                denoiser, 4, teach(denoiser, noises(4, seed)), teach(denoiser, noises(64, 9)),
                Settings(starts=1, steps=10),
            )  # fmt: skip
            assert tuned.select <= tuned.select_before


def test_same_arguments_same_table_and_no_draws() -> None:
    state = torch.random.get_rng_state()
    pair = _pair(mixture())
    plans = [tune_tied(mixture(), 4, *pair, Settings(starts=1, steps=4)).plan for _ in range(2)]
    assert plans[0] == plans[1]
    assert torch.equal(torch.random.get_rng_state(), state)


def _pair(denoiser: MixtureDenoiser) -> tuple[Teacher, Teacher]:
    return teach(denoiser, noises(32, 6)), teach(denoiser, noises(32, 7))


def test_refusals() -> None:
    denoiser = mixture()
    pair = _pair(denoiser)
    with pytest.raises(ValueError, match="at least 1 call"):
        tune_tied(denoiser, 0, *pair)
    with pytest.raises(ValueError, match="has a tied form"):
        tune_tied(denoiser, 5, *pair, solvers=("heun",))
    with pytest.raises(ValueError, match="power must lie"):
        Settings(power=2)
    with pytest.raises(ValueError, match="tuning needs starts"):
        Settings(starts=0)
    broken = GaussianDenoiser(PROCESSES[0], math.nan, 1.0)
    with pytest.raises(ValueError, match="not finite"):
        tune_tied(broken, 5, *pair)
    table = flatten(build_plan("unipc", denoiser.process, 5), denoiser.process)
    with pytest.raises(ValueError, match="ridge must be"):
        least_squares(denoiser, table, pair[0], ridge=-1)
    with pytest.raises(ValueError, match="teacher starts at"):
        least_squares(denoiser, dataclasses.replace(table, rho=(99.0, *table.rho[1:])), pair[0])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "limit"), [("mix8", 0.6), ("ring2", 0.6)])
@pytest.mark.parametrize("nfe", [4, 5, 6, 8])
def test_target_of_the_issue(name: str, limit: float, nfe: int) -> None:
    """Against the best of the scan, on noises that took no part."""
    problem = load_problem(name)
    denoiser = problem.denoiser

    def teacher(n: int, seed: int) -> Teacher:
        grid = fine_grid(denoiser.process, 160, least=1e-3)
        return teach(denoiser, problem.initial_noise(n, seed, torch.float64), grid=grid)

    tuned = tune_tied(denoiser, nfe, teacher(256, 101), teacher(1024, 102))
    unseen = problem.initial_noise(1024, 3, torch.float64)
    exact = problem.reference(unseen)
    after = rmse(sample(denoiser, tuned.plan, nfe, noise=unseen), exact)
    report = scan(Calls(denoiser), nfe, Pairs(teach(denoiser, unseen, grid=3).start, exact))
    assert after <= limit * report[0].error


def test_calls_are_bounded_and_change_nothing() -> None:
    """Samples are on their own, so a bound on those in a call changes rounding at most."""

    class Watched:
        process, most = PROCESSES[0], 0

        def __call__(self, x: torch.Tensor, level: object, cond: object = None) -> torch.Tensor:
            self.most = max(self.most, len(x))
            return mixture()(x, level, cond)  # type: ignore[arg-type]

    pair, plans, watched = _pair(mixture()), [], Watched()
    for batch in (8192, 10):
        tuned = tune_tied(watched, 4, *pair, Settings(starts=1, steps=3, batch=batch))
        plans.append(flatten(tuned.plan, PROCESSES[0]))
        assert watched.most > 10 or batch == 10
        watched.most = 0
    np.testing.assert_allclose(plans[1].weights(), plans[0].weights(), atol=1e-6)
    tune_tied(watched, 4, *pair, Settings(starts=1, steps=3, batch=10))
    assert watched.most == 10
