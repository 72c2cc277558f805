"""Epsilon Scaling as a transformer of plans, and its two numbers."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from gaussians import randn
from helpers import CONFIGS, counted_draws, drive
from torch import Tensor

from fewstep import PlanScheduler
from fewstep.models.exact import MixtureDenoiser
from fewstep.samplers import build_plan
from fewstep.samplers.core.execute import Executor
from fewstep.samplers.core.ops import Op
from fewstep.samplers.core.plan import Plan
from fewstep.samplers.core.program import plan_tensors, plan_values
from fewstep.samplers.core.run import levels, start_scale
from fewstep.samplers.solvers.compensation import compensate
from fewstep.samplers.tuning.epsilon import epsilon_numbers, scale_epsilon, steps_from_the_end
from fewstep.samplers.tuning.flatten import flatten
from fewstep.samplers.tuning.numeric import plan_squares, tune_numbers
from fewstep.samplers.tuning.pairs import Pairs
from fewstep.samplers.tuning.rollout import Calls
from fewstep.samplers.tuning.teacher import fine_grid, teach
from fewstep.schedules import VE, Flow, NoiseProcess, discrete_vp
from fewstep.schedules.prediction import Prediction
from fewstep.types import Level

PROCESSES = {
    "vp": discrete_vp("scaled_linear"), "ve": VE(0.002, 80.0), "flow": Flow(),
    "vp-zero-snr": discrete_vp(zero_terminal_snr=True),
}  # fmt: skip
SPECS = ["ddim", "unipc", "dpmpp:order=3", "deis", "ipndm", "heun", "sa:tau=0", "sa", "euler_a",
         "edm", "restart"]  # fmt: skip
Denoise = Callable[[Tensor, Level], Tensor]


def mixture(process: NoiseProcess = PROCESSES["vp"]) -> MixtureDenoiser:
    means = torch.tensor([[-1.3, 0.4], [0.2, -0.9], [0.9, 1.0], [1.4, -0.6]], dtype=torch.float64)
    return MixtureDenoiser(process, means, torch.tensor([0.5, 0.35, 0.6, 0.4]))


def scaled_model(denoiser: Denoise, divisors: np.ndarray) -> Denoise:
    """The model with its noise divided, apart from the table."""

    def denoise(x: Tensor, level: Level) -> Tensor:
        data = denoiser(x, level)
        if level.alpha == 0:
            return data
        eps = (x - level.alpha * data) / level.sigma / divisors[level.index]
        return (x - level.sigma * eps) / level.alpha

    return denoise


def run(
    plan: Plan, denoiser: Denoise, executor: Executor | None = None, kind: str = "sample"
) -> Tensor:
    executor, draw = executor or Executor(plan, Prediction(kind)), counted_draws()
    x = randn(16, 2, seed=0) * start_scale(plan)
    for level in levels(plan):
        p, q = Prediction(kind).coefficients(level.alpha, level.sigma, "data")
        output = (denoiser(x, level) - p * x) / q
        x = executor.step(level.index, output, x, draw)
    return x


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("spec", SPECS)
def test_plan_is_the_solver_on_the_scaled_model(spec: str, process: str) -> None:
    """Whatever the form, correctors, stages, noise, and climbs."""
    try:
        plan = build_plan(spec, PROCESSES[process], 9)
    except ValueError:
        pytest.skip("not for this process")
    k, b = 0.004, 1.01
    divisors = k * steps_from_the_end(plan) + b
    denoiser = mixture(PROCESSES[process])
    made = run(scale_epsilon(plan, k, b), denoiser)
    same = run(plan, scaled_model(denoiser, divisors))
    # Rounding of x / alpha, which is 150 (vp) and 1000 (flow), over as many steps.
    torch.testing.assert_close(made, same, rtol=0, atol=1e-9)
    assert (made - run(plan, denoiser)).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("spec", ["unipc", "deis", "heun"])
def test_program_of_any_prediction(spec: str, kind: str) -> None:
    """Folding, scaled history and tables of tensors give the same samples."""
    denoiser, plan = mixture(), scale_epsilon(build_plan(spec, PROCESSES["vp"], 6), 0.002, 1.02)
    plain = run(plan, denoiser)
    torch.testing.assert_close(run(plan, denoiser, kind=kind), plain, rtol=0, atol=1e-10)
    values = torch.tensor(plan_values(plan), dtype=torch.float64)
    executor = Executor(plan, Prediction(kind), rows=plan_tensors(plan, values))
    torch.testing.assert_close(run(plan, denoiser, executor, kind), plain, rtol=0, atol=1e-10)


def test_compensated_plans_are_scaled_before_their_ratios() -> None:
    plan = compensate(build_plan("unipc", PROCESSES["vp"], 6), [1, 1.3, 0.8, 1.1, 0.9, 1.2])
    made = run(scale_epsilon(plan, b=1.03), mixture())
    same = run(plan, scaled_model(mixture(), np.full(6, 1.03)))
    torch.testing.assert_close(made, same, rtol=0, atol=1e-10)


@pytest.mark.parametrize("spec", SPECS)
def test_one_is_the_identity(spec: str) -> None:
    plan = build_plan(spec, PROCESSES["vp"], 7)
    assert scale_epsilon(plan) is plan
    numbers = epsilon_numbers(plan)
    assert numbers.plan(numbers.start) is plan
    row = scale_epsilon(build_plan("ddim", PROCESSES["vp"], 3), 0.01, 1.0).evaluations[-1]
    assert row == build_plan("ddim", PROCESSES["vp"], 3).evaluations[-1]  # b_0 = 1


def test_ops_by_form_and_level() -> None:
    for process, spec in (("vp", "ddim"), ("vp", "deis"), ("flow", "ddim"), ("flow", "deis")):
        plan = build_plan(spec, PROCESSES[process], 4)
        scaled = scale_epsilon(plan, b=1.25)
        for before, after in zip(plan.evaluations, scaled.evaluations, strict=True):
            if before.alpha == 0:
                assert after == before
                continue
            c_x = 0.0 if before.form == "noise" else 0.2 / before.alpha
            first = after.ops[0]
            assert (first.reg, first.w) == ("H0", (0.8,))
            assert first.c_x == pytest.approx(c_x)
            assert after.ops[1:] == before.ops


def test_steps_are_counted_from_the_clean_end() -> None:
    vp = PROCESSES["vp"]
    assert steps_from_the_end(build_plan("unipc", vp, 4)).tolist() == [3, 2, 1, 0]
    assert steps_from_the_end(build_plan("heun", vp, 5)).tolist() == [2, 2, 1, 1, 0]
    assert epsilon_numbers(build_plan("ddim", vp, 1)).start.tolist() == [1.0]


def test_scaled_plans_in_a_file_and_a_scheduler() -> None:
    scheduler = PlanScheduler(**CONFIGS["vp-scaled"])
    plan = scale_epsilon(build_plan("unipc", scheduler.process, 5), 0.001, 1.02)
    executor, x = Executor(plan, Prediction("epsilon")), randn(2, 3, seed=1)
    pulled = drive(PlanScheduler(**CONFIGS["vp-scaled"], plans=[plan]), x, 5)
    for e in range(5):
        x = executor.step(e, torch.tanh(x), x, torch.zeros_like)
    assert torch.equal(pulled, x)
    assert Plan.from_json(plan.to_json()) == plan
    assert plan.provenance["epsilon"] == {"k": 0.001, "b": 1.02}
    with pytest.raises(ValueError, match="scaled outputs have no tied form"):
        flatten(plan, scheduler.process)


def test_a_wrong_op_is_seen() -> None:
    plan = scale_epsilon(build_plan("unipc", PROCESSES["vp"], 6), b=1.02)
    same = run(build_plan("unipc", PROCESSES["vp"], 6), scaled_model(mixture(), np.full(6, 1.02)))
    for e, row in enumerate(plan.evaluations):
        op = row.ops[0]
        for wrong in (replace(op, c_x=1.05 * op.c_x), Op("H0", op.c_x, w=(1.05 * op.w[0],))):
            rows = list(plan.evaluations)
            rows[e] = replace(row, ops=(wrong, *row.ops[1:]))
            assert (
                run(replace(plan, evaluations=tuple(rows)), mixture()) - same
            ).abs().max() > 1e-6


@pytest.mark.parametrize("process", ["vp", "ve", "flow"])
@pytest.mark.parametrize("spec", ["ddim", "heun", "deis"])
def test_error_falls_on_unseen_noises(spec: str, process: str) -> None:
    """On an exact score: b mends discretisation too."""
    denoiser = mixture(PROCESSES[process])
    calls, grid = Calls(denoiser), fine_grid(denoiser.process, 100, least=1e-3)
    tune, select, unseen = (
        Pairs.of(teach(denoiser, randn(n, 2, seed=n), grid=grid)) for n in (128, 256, 500)
    )
    numbers = epsilon_numbers(build_plan(spec, denoiser.process, 7))
    vector, history = tune_numbers(calls, numbers, tune, select)
    before, after = (
        float(plan_squares(calls, numbers.plan(v), unseen).mean().sqrt())
        for v in (numbers.start, vector)
    )
    assert after < 0.95 * before if history else (vector == numbers.start).all()


def test_refusals() -> None:
    plan = build_plan("unipc", PROCESSES["vp"], 5)
    for k, b in ((0.0, 0.0), (-0.3, 1.0), (0.0, float("nan")), (0.0, float("inf"))):
        with pytest.raises(ValueError, match="divided by positive numbers"):
            scale_epsilon(plan, k, b)
    with pytest.raises(ValueError, match="scaled already"):
        scale_epsilon(scale_epsilon(plan, b=1.1), b=1.1)
