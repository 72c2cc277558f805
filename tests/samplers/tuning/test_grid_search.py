"""Rolling a solver out through fine nodes: against brute force, and against what it then does."""

from itertools import combinations

import numpy as np
import pytest
import torch

from fewstep.eval.problems import load_problem
from fewstep.models.exact import GaussianDenoiser
from fewstep.samplers import parse_spec, sample
from fewstep.samplers.tuning.dp import Path, path_grid
from fewstep.samplers.tuning.grid_search import Rollouts
from fewstep.samplers.tuning.jumps import teacher
from fewstep.schedules import VE, Flow, Grid, discrete_vp, make_grid

SOLVERS = ("ddim", "ipndm", "dpmpp", "unipc", "deis")


def end_error(problem, noise, fine: Grid, nodes, solver: str, target, power: float = 2.0) -> float:
    """The error of a run by ``sample`` on the grid of a path."""
    spec = parse_spec(solver)
    grid = path_grid(fine, Path(tuple(nodes), 0.0), end=None)
    plan = spec.sampler.plan(grid, grid.nfe, spec.options)
    result = sample(problem.denoiser, plan, grid.nfe, noise=noise)
    norms = (result - target).flatten(1).square().mean(1).sqrt()
    return float(norms.pow(power).mean())


def ring2(every: int, steps: int):
    problem = load_problem("ring2")
    noise = problem.initial_noise(32, seed=8, dtype=torch.float64)
    fine = make_grid(problem.process, steps, "softlog")
    target = teacher(problem.denoiser, noise, fine).states[-1]
    return problem, noise, fine, target, Rollouts(problem.denoiser, noise, fine, every=every)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("power", [1.0, 2.0])
def test_a_beam_that_keeps_all_finds_the_best_of_all(solver: str, power: float) -> None:
    problem, noise, fine, target, rollouts = ring2(every=5, steps=35)
    path = rollouts.search(4, solver, beam=100, power=power)
    inside = combinations(range(5, 35, 5), 3)
    errors = {
        (0, *some, 35): end_error(problem, noise, fine, (0, *some, 35), solver, target, power)
        for some in inside
    }
    best = min(errors, key=errors.__getitem__)
    assert path.nodes == best
    # Rounding: the same table, run twice.
    assert path.total == pytest.approx(errors[best], rel=1e-9)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_narrow_beam_reports_the_error_of_its_own_path(solver: str) -> None:
    problem, noise, fine, target, rollouts = ring2(every=3, steps=45)
    for n in (1, 2, 5):
        path = rollouts.search(n, solver, beam=2)
        assert len(path.nodes) == n + 1
        assert path.nodes[0] == 0
        assert path.nodes[-1] == 45
        assert np.all(np.diff(path.nodes) > 0)
        assert all(node % 3 == 0 for node in path.nodes)
        found = end_error(problem, noise, fine, path.nodes, solver, target)
        assert path.total == pytest.approx(found, rel=1e-9)


def test_ddim_on_a_unit_gaussian_takes_equal_angles() -> None:
    """The tan form (Align Your Steps, arXiv:2404.14507)."""
    process = VE(0.002, 80.0)
    fine = make_grid(process, 80, "tan")
    noise = torch.randn(64, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rollouts = Rollouts(GaussianDenoiser(process, 0.0, 1.0), noise, fine, every=4)
    for n in (2, 4, 5, 10):
        assert rollouts.search(n, "ddim", beam=4).nodes == tuple(range(0, 81, 80 // n))


@pytest.mark.parametrize("process", [Flow(), discrete_vp(zero_terminal_snr=True)])
def test_from_a_start_without_signal(process) -> None:
    denoiser = GaussianDenoiser(process, 0.2, torch.tensor([0.2, 1.0]))
    noise = torch.randn(8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rollouts = Rollouts(denoiser, noise, make_grid(process, 30, "softlog"))
    assert np.isfinite(rollouts.search(4, "unipc").total)


def test_unseen_noises_gain_too() -> None:
    """On ring2 at 5 calls at most 0.7 of the error on the default grid (measured: 0.61)."""
    problem = load_problem("ring2")
    seen, unseen = (problem.initial_noise(64, seed=s, dtype=torch.float64) for s in (1, 2))
    fine = make_grid(problem.process, 45, "softlog")
    path = Rollouts(problem.denoiser, seen, fine).search(5, "dpmpp", beam=2)
    spec = parse_spec("dpmpp")
    tuned = spec.sampler.plan(path_grid(fine, path), 5, spec.options)
    target = problem.reference(unseen)
    errors = [
        float((sample(problem.denoiser, plan, 5, noise=unseen) - target).square().mean().sqrt())
        for plan in (tuned, spec.build(problem.process, 5))
    ]
    assert errors[0] < 0.7 * errors[1]


GAUSSIAN = GaussianDenoiser(discrete_vp(), 0.0, 1.0)
FINE = make_grid(discrete_vp(), 12, "softlog")
NOISE = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Broken:
    process = discrete_vp()

    def __call__(self, x, level, cond=None):
        return x * float("nan")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Rollouts(GAUSSIAN, NOISE, FINE, every=5), "divide the 12 steps .* got 5"),
        (lambda: Rollouts(GAUSSIAN, NOISE[:0], FINE), r"\(n, ...\), got \(0, 2\)"),
        (lambda: Rollouts(Broken(), NOISE, FINE), "teacher's run is not finite"),
        (lambda: Rollouts(GAUSSIAN, NOISE, FINE).search(5), "5 candidates leave 1 to 4 .* got 5"),
        (lambda: Rollouts(GAUSSIAN, NOISE, FINE).search(2, beam=0), "beam >= 1"),
        (lambda: Rollouts(GAUSSIAN, NOISE, FINE).search(2, "heun"), "one call a step"),
        (lambda: Rollouts(GAUSSIAN, NOISE, FINE).search(2, "ddim:grid=tan"), "grid options"),
        (lambda: Rollouts(GAUSSIAN, NOISE, FINE).search(2, "ddim:eta=1"), "deterministic"),
    ],
)
def test_refusals_in_one_line(call, words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        call()
    assert "\n" not in str(error.value)
