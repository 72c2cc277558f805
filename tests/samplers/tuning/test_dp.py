"""The best path through fine nodes: against brute force, and as a grid that solvers take."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewstep.samplers import SAMPLERS
from fewstep.samplers.adapter.schedulers import UniPC
from fewstep.samplers.tuning.dp import Path, best_path, path_cost, path_grid, rounded_path
from fewstep.schedules import Flow, discrete_vp, make_grid

SD = discrete_vp("scaled_linear", beta_start=0.00085, beta_end=0.012)


def costs(m: int, seed: int) -> np.ndarray:
    """Of either sign, with nothing that could be read below the diagonal."""
    table = np.random.default_rng(seed).normal(size=(m, m))
    table[np.tril_indices(m)] = np.nan
    return table


def by_brute_force(cost: np.ndarray, n: int, discount: float) -> tuple[float, tuple[int, ...]]:
    last = len(cost) - 1
    every = [(0, *inside, last) for inside in combinations(range(1, last), n - 1)]
    totals = [sum(discount**k * cost[p[k], p[k + 1]] for k in range(n)) for p in every]
    least = int(np.argmin(totals))
    return totals[least], every[least]


@settings(deadline=None)
@given(m=st.integers(2, 9), seed=st.integers(0, 999), gamma=st.sampled_from([0.8, 1.0, 1.15]))
def test_equals_brute_force(m: int, seed: int, gamma: float) -> None:
    cost = costs(m, seed)
    for n in range(1, m):
        path = best_path(cost, n, discount=gamma)
        total, nodes = by_brute_force(cost, n, gamma)
        assert path.nodes == nodes
        assert path.total == pytest.approx(total, abs=1e-12)
        assert path_cost(cost, nodes, discount=gamma) == pytest.approx(total, abs=1e-12)


@pytest.mark.parametrize("gamma", [0.9, 1.0, 1.2])
def test_what_is_left_of_a_best_path_is_best(gamma: float) -> None:
    cost = costs(30, 5)
    for n in range(2, 12):
        path = best_path(cost, n, discount=gamma)
        first = path.nodes[1]
        rest = best_path(cost[first:, first:], n - 1, discount=gamma)
        assert tuple(first + k for k in rest.nodes) == path.nodes[1:]
        assert path.total == pytest.approx(cost[0, first] + gamma * rest.total, abs=1e-12)


def test_more_jumps_never_cost_more_where_splitting_one_does_not() -> None:
    # (b - a)^p with p > 1 is such a cost, on any places.
    place = np.sort(np.random.default_rng(2).uniform(size=60))
    for power in (1.5, 2.0, 3.0):
        cost = np.abs(place[:, None] - place) ** power
        totals = [best_path(cost, n).total for n in range(1, 60)]
        assert np.all(np.diff(totals) < 0)
    even = (np.arange(61)[:, None] - np.arange(61)) ** 2.0
    assert best_path(even, 6).nodes == tuple(range(0, 61, 10))


def test_a_discount_moves_jumps_towards_what_counts_more() -> None:
    even = (np.arange(101)[:, None] - np.arange(101)) ** 2.0
    late, flat, early = (best_path(even, 5, discount=g).nodes for g in (1.2, 1.0, 0.8))
    assert early[2] < flat[2] < late[2]


@given(seed=st.integers(0, 99), shift=st.floats(-5, 5), scale=st.floats(0.1, 10))
def test_a_common_cost_of_every_jump_changes_nothing(seed: int, shift: float, scale: float) -> None:
    cost = costs(20, seed)
    assert best_path(scale * cost + shift, 6).nodes == best_path(cost, 6).nodes


def test_forbidden_jumps_are_avoided() -> None:
    cost = np.zeros((8, 8))
    cost[:, 3] = np.inf
    cost[0, 1] = np.inf
    nodes = best_path(cost, 4).nodes
    assert nodes[1] != 1
    assert 3 not in nodes
    with pytest.raises(ValueError, match="no path of 6 jumps avoids the forbidden ones"):
        best_path(cost, 6)


@pytest.mark.parametrize("process", [SD, Flow()], ids=["vp", "flow"])
def test_a_path_is_a_grid_that_every_solver_takes(process) -> None:
    fine = make_grid(process, 60, "softlog")
    grid = path_grid(fine, best_path(costs(61, 1), 8))
    assert grid.nfe == 8
    assert grid.rho[0] == process.rho_max
    assert grid.rho[-1] == 0
    assert set(grid.rho) <= set(fine.rho)
    for entry in SAMPLERS.values():
        steps = entry.intervals(process, 8)
        part = grid if steps == 8 else path_grid(fine, best_path(costs(61, 1), steps))
        plan = entry.plan(part, 8, entry.options())
        assert plan.nfe == 8


def test_the_levels_of_a_path_in_a_scheduler() -> None:
    fine = make_grid(SD, 60, "softlog")
    grid = path_grid(fine, best_path(costs(61, 1), 8))
    scheduler = UniPC(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    scheduler.set_timesteps(sigmas=grid.rho[:-1].tolist())
    # The table of the scheduler is made of float32 betas.
    assert np.allclose(scheduler.plan.sigmas(native=False), grid.rho, rtol=1e-4)


def test_the_end_is_replaced_or_kept() -> None:
    fine = make_grid(SD, 30, "logsnr", final="sigma_min")
    path = best_path(costs(31, 3), 5)
    assert path_grid(fine, path).rho[-1] == 0
    assert path_grid(fine, path, end=None).rho[-1] == SD.rho_min
    with pytest.raises(ValueError, match="must fall strictly"):
        path_grid(fine, path, end=1e9)
    with pytest.raises(ValueError, match="path ends at node 30 and the fine grid at 20: pass"):
        path_grid(make_grid(SD, 20, "logsnr"), path)


def test_rounding_of_a_grid_to_fine_nodes() -> None:
    fine = make_grid(SD, 100, "softlog")
    nodes = tuple(range(0, 101, 20))
    assert rounded_path(fine, fine.rho[list(nodes)] * 1.01) == nodes
    with pytest.raises(ValueError, match="use a finer grid"):
        rounded_path(make_grid(SD, 4, "softlog"), make_grid(SD, 20, "karras").rho)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda: best_path(np.zeros((3, 4)), 1), r"shape \(m, m\) with m >= 2, got \(3, 4\)"),
        (lambda: best_path(np.zeros((1, 1)), 1), "m >= 2"),
        (lambda: best_path(np.zeros((5, 5)), 5), "5 nodes has 1 to 4 jumps, got 5"),
        (lambda: best_path(np.zeros((5, 5)), 0), "1 to 4 jumps, got 0"),
        (lambda: best_path(np.zeros((5, 5)), 2, discount=0.0), "> 0, got 0.0; 1 is none"),
        (lambda: best_path(np.full((5, 5), np.nan), 2), "NaN or -inf"),
        (lambda: rounded_path(make_grid(SD, 9), np.ones(1)), "at least 2 levels"),
    ],
)
def test_refusals_in_one_line(change, words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        change()
    assert "\n" not in str(error.value)


def test_a_path_is_plain_numbers() -> None:
    path = best_path(costs(9, 0), 3)
    assert path == Path(path.nodes, path.total)
    assert all(type(k) is int for k in path.nodes)
