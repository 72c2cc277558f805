"""DC-Solver as a transformer of plans, its ratios, and its scheduler."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import Mixture1D, run_plan
from hypothesis import given, settings
from hypothesis import strategies as st

from fewstep import build_plan
from fewstep.samplers.core.plan import Plan
from fewstep.samplers.solvers.compensation import compensate, dc
from fewstep.schedules import VE, ContinuousVP, Flow, discrete_vp, grid_from_rho, make_grid

PROCESSES = {
    "vp": discrete_vp(), "vp-zero-snr": discrete_vp(zero_terminal_snr=True), "ve": VE(),
    "edm": VE(time_is="log"), "continuous": ContinuousVP(), "flow": Flow(),
}  # fmt: skip
SOLVERS = ["unipc", "unipc:order=2,solver_type=bh1", "dpmpp:order=3", "sa:tau=0", "deis", "ipndm"]
RATIOS = [1.0, 1.4, 0.7, 1.2, 0.6, 1.3, 1.1]
LINE = torch.linspace(-2, 2, 17, dtype=torch.float64)


def point_mass_error(plan: Plan) -> float:
    """On constant data x_t = alpha_t c + sigma_t / sigma_T (x_T - alpha_T c)."""
    first, c = plan.evaluations[0], 0.7
    start = LINE * (first.sigma if first.alpha == 1 else 1)
    result = run_plan(plan, lambda x, alpha, sigma: torch.full_like(x, c), start)
    exact = plan.end[0] * c + plan.end[1] / first.sigma * (start - first.alpha * c)
    return (result - exact).abs().max().item()


def newest_outputs(plan: Plan, values: list[float]) -> list[float]:
    """The newest history entry after each evaluation, when the network answers ``values``."""
    history: list[float] = []
    kept = []
    for row, value in zip(plan.evaluations, values, strict=True):
        history = [value, *history]
        for op in row.ops:
            if op.reg == "H0":
                history[0] = sum(w * h for w, h in zip(op.w, history, strict=False))
        kept.append(history[0])
    return kept


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("solver", SOLVERS)
def test_ratio_one_is_the_solver_bit_for_bit(solver: str, process: str) -> None:
    grid = make_grid(PROCESSES[process], 7)
    plain = dc(grid, multistep=solver)
    assert dc(grid, multistep=solver, compensation=[1.0] * 7) == plain
    assert plain.name == f"dc:multistep={solver}"
    moved = dc(grid, multistep=solver, compensation=RATIOS)
    rest = [tuple(op for op in row.ops if op.reg != "H0") for row in moved.evaluations]
    assert rest == [row.ops for row in plain.evaluations]


@pytest.mark.parametrize("nfe", [1, 2, 3, 5, 20])
def test_ratio_one_is_unipc_on_the_automatic_grid(nfe: int) -> None:
    plans = [build_plan(spec, PROCESSES["vp"], nfe).evaluations for spec in ("dc", "unipc")]
    assert plans[0] == plans[1]


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("solver", SOLVERS)
@settings(max_examples=5, deadline=None, derandomize=True)
@given(ratios=st.lists(st.floats(0, 2), min_size=6, max_size=6))
def test_point_mass_is_exact_for_any_ratios(solver: str, process: str, ratios: list[float]) -> None:
    plan = dc(make_grid(PROCESSES[process], 7), multistep=solver, compensation=[1.0, *ratios])
    # Rounding: the noise form divides by sigma, and x / alpha is 150 at the start.
    assert point_mass_error(plan) < 1e-8


def quadratic_error(plan: Plan, ratios: list[float]) -> float:
    """Raw outputs on a parabola in the time: those of each row must be moved along it.

    Node i alone is moved, so that what it is moved through is the parabola (a line for i = 1).
    """
    worst = 0.0
    times = np.array([row.time for row in plan.evaluations])
    for i, ratio in enumerate(ratios[1:], 1):
        rows = [
            row if k == i else replace(row, ops=tuple(op for op in row.ops if op.reg != "H0"))
            for k, row in enumerate(plan.evaluations)
        ]
        parabola = np.polynomial.Polynomial([0.4, -1.1, 0.0 if i == 1 else 0.3])
        kept = newest_outputs(
            replace(plan, evaluations=tuple(rows)), parabola(times / times[0]).tolist()
        )
        target = ratio * times[i] + (1 - ratio) * times[i - 1]
        worst = max(worst, abs(kept[i] - parabola(target / times[0])))
    return worst


@pytest.mark.parametrize("process", ["vp", "ve", "flow", "continuous"])
def test_quadratic_outputs_are_moved_exactly(process: str) -> None:
    plan = compensate(build_plan("unipc:grid=karras", PROCESSES[process], 7), RATIOS)
    assert quadratic_error(plan, RATIOS) < 1e-12


def weights_of(plan: Plan) -> list[tuple[int, int, int]]:
    return [
        (i, o, j)
        for i, row in enumerate(plan.evaluations)
        for o, op in enumerate(row.ops)
        if op.reg == "H0"
        for j in range(len(op.w))
    ]


PLAN = compensate(build_plan("unipc", PROCESSES["vp"], 7), RATIOS)


@pytest.mark.parametrize(("i", "o", "j"), weights_of(PLAN))
def test_five_percent_on_any_weight_is_seen(i: int, o: int, j: int) -> None:
    row = PLAN.evaluations[i]
    w = row.ops[o].w
    wrong = replace(row.ops[o], w=(*w[:j], 1.05 * w[j], *w[j + 1 :]))
    rows = list(PLAN.evaluations)
    rows[i] = replace(row, ops=(*row.ops[:o], wrong, *row.ops[o + 1 :]))
    mutant = replace(PLAN, evaluations=tuple(rows))
    assert point_mass_error(PLAN) < 1e-10
    assert quadratic_error(PLAN, RATIOS) < 1e-12
    # The last weights move the end by 5 % of a third or less; rounding is at 1e-12.
    assert point_mass_error(mutant) > 1e-5
    assert quadratic_error(mutant, RATIOS) > 1e-5


def test_replacement_comes_after_the_correction_and_stays() -> None:
    plain, moved = build_plan("unipc", PROCESSES["vp"], 7), PLAN
    for i, (before, after) in enumerate(zip(plain.evaluations, moved.evaluations, strict=True)):
        kinds = [op.reg for op in after.ops]
        assert kinds.count("H0") == (i > 0)
        if 0 < i < 6:
            assert kinds == ["x", "H0", "base", "x"] if i < 5 else ["x", "H0", "x"]
            assert after.ops[0] == before.ops[0]
            assert after.ops[0].w[0]  # the correction reads the raw output
    # The entry that node 2 interpolates is the one that node 1 replaced.
    values = [0.3, -0.2, 0.9, 0.5, 0.1, 0.0, 0.4]
    kept = newest_outputs(moved, values)
    w = next(op for op in moved.evaluations[2].ops if op.reg == "H0").w
    assert kept[2] == pytest.approx(w[0] * values[2] + w[1] * kept[1] + w[2] * kept[0])
    assert kept[1] != values[1]


def test_ratio_zero_is_the_previous_output() -> None:
    plan = compensate(build_plan("dpmpp", PROCESSES["vp"], 5), [1, 1, 0, 1, 1])
    assert next(op for op in plan.evaluations[2].ops if op.reg == "H0").w == (0, 1, 0)


def test_noise_form_leaves_out_the_start_without_signal() -> None:
    plan = dc(make_grid(Flow(), 5), multistep="deis", compensation=[1, 1.5, 0.8, 0.9, 1])
    sizes = [[len(op.w) for op in row.ops if op.reg == "H0"] for row in plan.evaluations]
    assert sizes == [[], [], [2], [3], []]


def test_smaller_ratios_pull_back() -> None:
    """The plan runs, and the result depends smoothly on the ratios."""
    results = [
        run_plan(compensate(build_plan("unipc", PROCESSES["vp"], 7), [1.0] * 6 + [r]), Mixture1D(),
                 LINE)
        for r in (1.0, 1.0 + 1e-6, 1.2)
    ]  # fmt: skip
    assert 0 < (results[1] - results[0]).abs().max() < 1e-5
    assert (results[2] - results[0]).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("ratios", "message"),
    [([1.0] * 4, "4 ratios for 5 calls"), ([1, 1, math.nan, 1, 1], "finite"),
     ([0.9, 1, 1, 1, 1], "first ratio must be 1"), ([1, "a", 1, 1, 1], "list of numbers"),
     ("[1]", "list of numbers")],
)  # fmt: skip
def test_bad_ratios(ratios, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compensate(build_plan("unipc", PROCESSES["vp"], 5), ratios)


def test_plans_that_cannot_be_compensated() -> None:
    with pytest.raises(ValueError, match="rewrites its outputs"):
        compensate(PLAN, RATIOS)
    rho = np.array([5.0, 1.0, 0.005, 0.004, 0.0])  # two below the table: equal times
    plan = build_plan_on(rho)
    with pytest.raises(ValueError, match="have equal ones"):
        compensate(plan, [1, 1, 1, 0.9])
    grid = make_grid(PROCESSES["vp"], 5)
    for solver, message in [("heun", "multistep solvers"), ("dc", "multistep solvers"),
                            ("unipc:grid=karras", "grid options"), ("x", "unknown sampler"),
                            ("sa:evaluate=pece,tau=0,nope=1", "unknown option")]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            dc(grid, multistep=solver)


def build_plan_on(rho: np.ndarray) -> Plan:
    return dc(grid_from_rho(PROCESSES["vp"], rho))
