"""Denoisers that jump: nodes on the jump, history that ends there, stages, and hooks."""

import itertools
import math
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from interval_problem import EDGES, PROCESSES, SPECS, Pair, grids, planned, read_by, run
from linear_runs import states

from fewstep.samplers import build_plan
from fewstep.samplers.core.run import levels
from fewstep.samplers.solvers.compensation import compensate, multistep_plan
from fewstep.schedules import GRIDS, make_grid
from fewstep.schedules.breaks import mark, snap

every_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
# Order

# Least slopes: a step of first order after each edge costs h^2, of a corrected one h^3.
LEAST = {
    "dpmpp:order=2": 1.8,
    "dpmpp:order=2,solver_type=heun": 1.8,
    "unipc:order=2": 2.6,
    "unipc:order=3": 2.6,
    "deis:order=2": 1.8,
    "ipndm:order=2": 1.8,
    "heun": 1.8,
    "sa:predictor_order=2,corrector_order=3,tau=0": 2.6,
    "sa:predictor_order=2,corrector_order=3,tau=0,evaluate=pece": 2.6,
    "singlestep:order=2": 1.8,
    "rho_rk:order=2": 1.8,
}
ONE_STEP = ("heun", "singlestep", "rho_rk")


@lru_cache
def solution() -> torch.Tensor:
    """Its error is below 1e-9, those of the tests are above 1e-7."""
    return run(planned("unipc:order=3", grids(4000)["restarted"]), Pair())


def error(spec: str, kind: str, n: int) -> float:
    difference = run(planned(spec, grids(n)[kind]), Pair()) - solution()
    return difference.square().mean().sqrt().item()


@pytest.mark.parametrize("spec", LEAST)
def test_order_under_guidance_in_an_interval(spec: str) -> None:
    fine = error(spec, "restarted", 320)
    assert math.log2(error(spec, "restarted", 160) / fine) > LEAST[spec]
    assert error(spec, "free", 320) > 3 * fine


@pytest.mark.parametrize("spec", [s for s in LEAST if not s.startswith(ONE_STEP)])
def test_order_is_lost_if_history_is_kept(spec: str) -> None:
    """Of first order at best, whatever the method."""
    coarse, fine = (error(spec, "kept", n) for n in (160, 320))
    assert math.log2(coarse / fine) < 1.15
    assert fine > 3 * error(spec, "restarted", 320)


# Grids


@every_process
@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("final", ["zero", "sigma_min"])
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_nodes_lie_on_the_ratios(process, name: str, final, data) -> None:
    n = data.draw(st.integers(4, 40))
    grid = make_grid(process, n, name, final=final)
    low, high = (float(x) for x in (max(grid.rho[-1], 1e-3), min(grid.rho[0], 1e3)))
    inside = st.floats(1.01 * low, 0.99 * high)
    ratios = data.draw(st.lists(inside, min_size=1, max_size=3).filter(apart))
    moved = snap(grid, [*ratios, 0.0, math.inf, float(grid.rho[0])])
    assert moved.nfe == n
    assert [moved.rho[0], moved.rho[-1]] == [grid.rho[0], grid.rho[-1]]
    assert [moved.time[0], moved.time[-1]] == [grid.time[0], grid.time[-1]]
    assert np.all(moved.rho[1:] < moved.rho[:-1])
    assert {float(moved.rho[i]) for i in moved.breaks} == set(ratios)
    assert len(moved.breaks) == len(ratios)
    inner = slice(1, -1)
    np.testing.assert_array_equal(moved.time[inner], process.time(moved.rho[inner]))
    again = snap(moved, ratios)
    assert again.breaks == moved.breaks
    np.testing.assert_allclose(again.rho, moved.rho, rtol=1e-9)


def apart(ratios: list[float]) -> bool:
    ordered = sorted(ratios)
    return all(b > 1.001 * a for a, b in itertools.pairwise(ordered))


def test_ratios_outside_change_nothing() -> None:
    grid = make_grid(PROCESSES["vp"], 8, "karras", final="sigma_min")
    ends = (float(grid.rho[0]), float(grid.rho[-1]), float(grid.rho[-1]) * (1 + 1e-9))
    assert snap(grid, (*ends, 1e4, 0.0)) is grid
    assert mark(grid, (*ends, 1.0)) is grid


def test_too_few_nodes_are_told() -> None:
    with pytest.raises(ValueError, match=r"2 breakpoints .* use more calls, for at least 3 steps"):
        build_plan("dpmpp", PROCESSES["vp"], 2, EDGES)
    assert build_plan("dpmpp", PROCESSES["vp"], 3, EDGES).nfe == 3


def test_a_part_keeps_its_own_breaks() -> None:
    grid = replace(make_grid(PROCESSES["vp"], 9, "karras"), breaks=frozenset({2, 4, 7}))
    assert grid.part(2, 7).breaks == {2}
    assert [grid.since(i) for i in range(9)] == [0, 0, 2, 2, 4, 4, 4, 7, 7]


# Plans


@every_process
@pytest.mark.parametrize("spec", SPECS)
def test_every_sampler_has_levels_on_both_edges(spec: str, process) -> None:
    for n in range(6, 21):
        plan = build_plan(spec, process, n, EDGES)
        assert plan.nfe == n
        begun = [x for x, row in zip(levels(plan), plan.evaluations, strict=True) if not row.stage]
        for edge in EDGES:
            assert any(math.isclose(x.rho, edge, rel_tol=1e-9) for x in begun)
        # No step, that is no row of a step, goes from above an edge to below it.
        for level in levels(plan):
            for edge in EDGES:
                above = level.gate_rho > edge * (1 + 1e-6)
                assert not (above and level.next_rho < edge * (1 - 1e-6))


@pytest.mark.parametrize("spec", SPECS)
def test_nothing_looks_back_across_an_edge(spec: str) -> None:
    """Outputs before an edge have no influence on how the run goes on from a given state."""
    plan = build_plan(spec, PROCESSES["vp"], 20, EDGES)
    for e, (read, level) in enumerate(zip(read_by(plan), levels(plan), strict=True)):
        for k in read:
            gates = [x.gate_rho for x in (levels(plan)[k], level)]
            assert side(gates[0]) == side(gates[1]), (e, k)


def side(rho: float) -> int:
    return sum(rho > edge * (1 + 1e-6) for edge in EDGES)


@every_process
@pytest.mark.parametrize("spec", SPECS)
def test_without_breakpoints_nothing_changes(spec: str, process) -> None:
    for n in (1, 5, 8, 20):
        assert build_plan(spec, process, n) == build_plan(spec, process, n, (0.0, math.inf))


@pytest.mark.parametrize("spec", SPECS)
def test_a_point_mass_is_exact(spec: str) -> None:
    """Mean alpha c at every call and at the end, and variance sigma^2."""
    option = ",noise_scale=1.0" if spec == "edm" else ""
    joint = (":" if ":" not in spec else ",") + f"final=sigma_min{option}"
    for n in (6, 7, 20):
        plan = build_plan(spec + joint, PROCESSES["vp"], n, EDGES)
        marks = np.array([(row.alpha, row.sigma) for row in plan.evaluations] + [plan.end])
        seen = torch.stack(states(plan, 0.7)).numpy()
        # Rounding: the noise form divides by sigma = 0.03 at the end.
        np.testing.assert_allclose(seen[:, -1], 0.7 * marks[:, 0], rtol=0, atol=1e-9)
        np.testing.assert_allclose((seen[:, :-1] ** 2).sum(1), marks[:, 1] ** 2, rtol=1e-8)


# Restart and DC-Solver


def test_passes_of_restart_visit_the_edges() -> None:
    """On every way down through them; one with too few nodes is refused."""
    spec = "restart:intervals=[[{},2,0.2,5.0]],grid=karras"
    plan = build_plan(spec.format(5), PROCESSES["vp"], 20, EDGES)
    for edge in EDGES:
        assert sum(math.isclose(x.rho, edge, rel_tol=1e-9) for x in levels(plan)) == 3
    with pytest.raises(ValueError, match="fewer breakpoints"):
        build_plan(spec.format(3), PROCESSES["vp"], 20, EDGES)


def test_compensation_does_not_look_back_across_an_edge() -> None:
    grid = snap(make_grid(PROCESSES["vp"], 8, "karras"), EDGES)
    plan = multistep_plan(grid, "unipc")
    moved = compensate(plan, [1.0] + [0.9] * 7, grid.breaks)
    for i, row in enumerate(moved.evaluations):
        (op,) = [op for op in row.ops if op.reg == "H0"] or [None]
        reach = min(i - grid.since(i), 2)
        assert (len(op.w) if op else 1) == reach + 1
