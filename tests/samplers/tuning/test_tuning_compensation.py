"""The ratios of DC-Solver as a family of numbers."""

import warnings

import numpy as np
import pytest
import torch
from gaussians import randn
from hypothesis import given, settings
from hypothesis import strategies as st

from fewstep.models.exact import MixtureDenoiser
from fewstep.samplers import build_plan, parse_spec
from fewstep.samplers.solvers.compensation import dc
from fewstep.samplers.tuning.compensation_family import compensation_numbers
from fewstep.samplers.tuning.compensation_search import fit_compensation
from fewstep.samplers.tuning.flatten import flatten
from fewstep.samplers.tuning.numeric import plan_squares, run_plan, tune_numbers
from fewstep.samplers.tuning.pairs import Pairs
from fewstep.samplers.tuning.rollout import Calls
from fewstep.samplers.tuning.teacher import fine_grid, teach
from fewstep.schedules import VE, Flow, NoiseProcess, discrete_vp

PROCESSES = (discrete_vp("scaled_linear"), VE(0.002, 80.0), Flow())
SPECS = ["unipc", "unipc:order=2,solver_type=bh1,grid=karras", "dpmpp:order=3,final=sigma_min",
         "ipndm:grid=quadratic", "deis"]  # fmt: skip


def mixture(process: NoiseProcess = PROCESSES[0]) -> MixtureDenoiser:
    means = torch.tensor([[-1.3, 0.4], [0.2, -0.9], [0.9, 1.0], [1.4, -0.6]], dtype=torch.float64)
    return MixtureDenoiser(process, means, torch.tensor([0.5, 0.35, 0.6, 0.4]))


def pairs(denoiser: MixtureDenoiser, n: int, seed: int) -> Pairs:
    grid = fine_grid(denoiser.process, 100, least=1e-3)
    return Pairs.of(teach(denoiser, randn(n, 2, seed=seed), grid=grid))


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("spec", SPECS)
def test_start_is_the_solver_bit_for_bit(spec: str, process: NoiseProcess) -> None:
    numbers = compensation_numbers(spec, process, 6)
    assert numbers.start.tolist() == [1.0] * 5
    plan, base = numbers.plan(numbers.start), build_plan(spec, process, 6)
    assert (plan.evaluations, plan.end, plan.process) == (base.evaluations, base.end, base.process)
    named = parse_spec(plan.name)  # of dc around the solver, on the same grid
    assert named.name == "dc"
    assert named.grid == parse_spec(spec).grid
    inner = parse_spec(str(named.options["multistep"]))
    assert (inner.name, inner.options) == (parse_spec(spec).name, parse_spec(spec).options)


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("spec", SPECS)
@settings(max_examples=4, deadline=None, derandomize=True)
@given(ratios=st.lists(st.floats(0, 2), min_size=5, max_size=5))
def test_every_plan_has_a_tied_table(spec: str, process: NoiseProcess, ratios: list[float]) -> None:
    """Exact for constant data, and the same ends."""
    plan = compensation_numbers(spec, process, 6).plan(np.array(ratios))
    table = flatten(plan, process).plan()
    assert len(table.evaluations) == 6
    x = pairs(mixture(process), 8, 1)
    ends = [run_plan(Calls(mixture(process)), p, x)[0] for p in (plan, table)]
    # Weights of tens, and levels of 80 to 1000 at the start, lose some digits of 1e-16.
    torch.testing.assert_close(*ends, rtol=0, atol=1e-8)


def test_numbers_are_the_ratios() -> None:
    spec, ratios = "unipc:grid=karras", [1.0, 1.3, 0.8, 1.1, 0.9]
    numbers = compensation_numbers(spec, PROCESSES[0], 5, ratios=ratios)
    plan = numbers.plan(numbers.start)
    grid = parse_spec(spec).grid_of(PROCESSES[0], 5, "unipc")
    assert plan.evaluations == dc(grid, compensation=ratios).evaluations
    assert plan.provenance["compensation"] == ratios


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("spec", ["unipc", "dpmpp:order=3", "ipndm"])
def test_error_falls_on_unseen_noises(spec: str, process: NoiseProcess) -> None:
    """Also below that of the paper's search, which fits call by call, on the same noises."""
    denoiser = mixture(process)
    calls, tune, select = Calls(denoiser), pairs(denoiser, 256, 1), pairs(denoiser, 256, 2)
    numbers = compensation_numbers(f"{spec}{',' if ':' in spec else ':'}grid=softlog", process, 6)
    vector, _ = tune_numbers(calls, numbers, tune, select)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        searched = fit_compensation(
            denoiser, randn(256, 2, seed=1), 6, progress=False,
            sampler=f"{spec}{',' if ':' in spec else ':'}grid=softlog",
        )  # fmt: skip
    unseen = pairs(denoiser, 500, 3)
    before, after, paper = (
        float(plan_squares(calls, numbers.plan(np.array(v)), unseen).mean().sqrt())
        for v in (numbers.start, vector, searched.ratios[1:])
    )
    assert after < 0.9 * before
    assert after < 1.05 * paper


def test_ratio_at_a_breakpoint_changes_nothing() -> None:
    process = PROCESSES[0]
    numbers = compensation_numbers("unipc", process, 6, breakpoints=[1.0])
    base = build_plan("unipc", process, 6).evaluations
    broken = parse_spec("unipc").build(process, 6, [1.0])
    plan = numbers.plan(numbers.start)
    assert plan.evaluations == broken.evaluations != base
    at = min(range(6), key=lambda e: abs(plan.sigmas(native=False)[e] - 1))
    moved = numbers.start.copy()
    moved[at - 1] = 0.5
    assert numbers.plan(moved).evaluations == plan.evaluations


def test_one_call_has_no_ratio() -> None:
    numbers = compensation_numbers("unipc", PROCESSES[0], 1)
    few = pairs(mixture(), 8, 1)
    vector, history = tune_numbers(Calls(mixture()), numbers, few, few)
    assert (vector.size, history) == (0, ())
    assert numbers.plan(vector).evaluations == build_plan("unipc", PROCESSES[0], 1).evaluations


def test_refusals() -> None:
    for spec in ("heun", "dc", "restart"):
        with pytest.raises(ValueError, match="compensates multistep solvers"):
            compensation_numbers(spec, PROCESSES[0], 5)
    with pytest.raises(ValueError, match="3 ratios for 5 calls"):
        compensation_numbers("unipc", PROCESSES[0], 5, ratios=[1, 1, 1])
    with pytest.raises(ValueError, match="first ratio must be 1"):
        compensation_numbers("unipc", PROCESSES[0], 3, ratios=[0.9, 1, 1])
