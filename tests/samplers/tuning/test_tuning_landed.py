"""Tuned tables that start at the landing of a jump, and those for denoisers with jumps."""

import math
import warnings

import numpy as np
import pytest
import torch
from gaussians import randn
from teleports import MEAN, PROCESSES, STDS, diagonal_fit

from fewstep.eval.problems import load_problem, rmse
from fewstep.guidance import parse_guidance
from fewstep.models.exact import GaussianDenoiser, MixtureDenoiser
from fewstep.samplers import Plan, build_plan, sample
from fewstep.samplers.gaussian.fit import fit_gaussian
from fewstep.samplers.gaussian.warm import WarmTeleport, warm_plan
from fewstep.samplers.tuning.family import Family, breaks_of, free_pairs
from fewstep.samplers.tuning.flatten import flatten
from fewstep.samplers.tuning.least_squares import least_squares
from fewstep.samplers.tuning.optimise import Settings, tune_tied
from fewstep.samplers.tuning.pairs import Pairs
from fewstep.samplers.tuning.rollout import Calls, jacobian, run_table
from fewstep.samplers.tuning.scan import Landings, scan, scan_landed
from fewstep.samplers.tuning.teacher import Teacher, fine_grid, teach
from fewstep.samplers.tuning.tied import Tied
from fewstep.schedules.breaks import snap


def landed(name: str, history: int, nfe: int = 4) -> Tied:
    process = PROCESSES[name]
    return flatten(warm_plan("dpmpp", process, nfe, 3.0, history), process)


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("spec", ["ddim", "unipc:order=3", "dpmpp:order=3"])
@pytest.mark.parametrize("history", [0, 1, 3])
def test_flattened_warm_plan_gives_its_samples(name: str, spec: str, history: int) -> None:
    """In the tuner's own run, and as a plan with the same rows of history."""
    process, noise = PROCESSES[name], randn(8, 6, seed=1)
    fit, denoiser = diagonal_fit(0.8 * STDS), GaussianDenoiser(process, MEAN, STDS)
    plan = warm_plan(spec, process, 4, 3.0, history)
    table = flatten(plan, process)
    assert (table.nfe, len(table.history)) == (4, history)
    ends = []
    for made in (plan, table.plan()):
        assert made.provenance == {"landing": 3.0, "history": history}
        warm = WarmTeleport(made, process, fit)
        ends.append(sample(denoiser, made, made.calls, noise=noise, hooks=[warm]))
    # Sums of a dozen float64 terms.
    torch.testing.assert_close(ends[1], ends[0], rtol=0, atol=1e-10)
    pairs = Pairs.landed(teach(denoiser, noise, grid=3), fit, 3.0, table.history)
    torch.testing.assert_close(
        run_table(Calls(denoiser), table, pairs).end, ends[0], rtol=0, atol=1e-10
    )


def test_noise_above_a_landing_has_no_tied_form() -> None:
    process = PROCESSES["vp"]
    assert flatten(warm_plan("ipndm", process, 4, 3.0, 0), process).nfe == 4
    with pytest.raises(ValueError, match="looks back at noise above its landing"):
        flatten(warm_plan("ipndm", process, 4, 3.0, 2), process)


@pytest.mark.parametrize("name", PROCESSES)
def test_numbers_and_table_are_inverse(name: str) -> None:
    base = landed(name, 2)
    family = Family(base)
    assert family.size == 3 + (2 + 3 + 4 + 5)
    again = family.table(family.vector(base))
    np.testing.assert_allclose(again.rho, base.rho, rtol=1e-12)
    np.testing.assert_allclose(again.weights(), base.weights(), atol=1e-12)
    assert again.history == base.history
    assert Family(base, band=1).pairs == [(i, i + 1) for i in range(4)]
    late = flatten(build_plan("unipc:grid=leading", base.process, 4), base.process)
    if base.process.rho_max > late.rho[0]:
        assert not late.landed  # a late start is no jump
        assert late.plan().provenance == {}


@pytest.mark.parametrize("name", PROCESSES)
def test_derivatives_with_a_history(name: str) -> None:
    """Against central differences of whole runs."""
    process = PROCESSES[name]
    denoiser = Calls(_curved(process))
    family = Family(landed(name, 2))
    noise = randn(8, 6, seed=2)
    fit = fit_gaussian(randn(200, *noise.shape[1:], seed=3))
    pairs = Pairs.landed(teach(denoiser.denoiser, noise, grid=3), fit, 3.0, family.base.history)
    vector = family.vector(family.base)
    _, columns = jacobian(denoiser, family, vector, pairs)
    for step, column in zip(1e-5 * np.eye(family.size), columns, strict=True):
        ends = [run_table(denoiser, family.table(vector + s * step), pairs).end for s in (1, -1)]
        # Differences of size 1e-5 in float64, of ends of order 1; measured below 2e-6.
        torch.testing.assert_close(column, (ends[0] - ends[1]) / 2e-5, rtol=1e-4, atol=1e-4)


def _curved(process):
    """A mixture with two classes, so that predictions bend."""
    means = torch.stack([MEAN, -MEAN, 0.5 * MEAN.flip(0)])
    stds = torch.tensor([0.5, 0.7, 0.4], dtype=torch.float64)
    return MixtureDenoiser(process, means, stds, labels=torch.tensor([0, 1, 1]))


def test_landing_helps_where_a_gaussian_holds() -> None:
    """mix8 at 4 calls, 128 noises: with landings to choose from, unseen noises end closer."""
    problem = load_problem("mix8")
    denoiser, grid = problem.denoiser, fine_grid(problem.process, 120, least=1e-3)
    tune, select, unseen = (
        teach(denoiser, problem.initial_noise(n, seed, torch.float64), grid=grid)
        for n, seed in ((128, 1), (256, 2), (2048, 3))
    )
    landings = Landings.of(fit_gaussian(unseen.end[:1024]))
    found = {}
    for name, choice in (("none", None), ("landed", landings)):
        tuned = tune_tied(denoiser, 4, tune, select, Settings(starts=2, steps=12), landings=choice)
        pairs = Pairs.of(unseen)
        table = flatten(tuned.plan, problem.process)
        if tuned.landing is not None:
            pairs = landings.pairs(table, unseen)
        found[name] = run_table(Calls(denoiser), table, pairs).end - unseen.end
    rms = {name: float(error.square().mean().sqrt()) for name, error in found.items()}
    assert tuned.landing in landings.rho
    assert rms["landed"] < 0.95 * rms["none"], rms


def test_exact_jump_to_the_end_leaves_nothing_to_gain() -> None:
    """Gaussian data, whose jump is exact: a landing at the least level ends without an error."""
    process = PROCESSES["vp"]
    denoiser = GaussianDenoiser(process, MEAN, STDS)
    grid = fine_grid(process, 200, least=1e-3)
    tune, select = (teach(denoiser, randn(64, 6, seed=s), grid=grid) for s in (1, 2))
    fit = diagonal_fit()
    exact = [_exact_end(t, fit) for t in (tune, select)]
    landings = Landings(fit, (1.01 * process.rho_min,), (0,))
    start = scan_landed(
        Calls(denoiser), 2, tune, scan(Calls(denoiser), 2, Pairs.of(tune)), landings
    )[0]
    pairs = landings.pairs(start.table, tune)
    got = run_table(Calls(denoiser), start.table, pairs).end
    # What is left is the last step from sigma / alpha = 0.01, of second order in it.
    assert rmse(got, exact[0]) < 1e-4


def _exact_end(teacher: Teacher, fit) -> torch.Tensor:
    first = teacher.process
    alpha, sigma = (float(v) for v in first.from_rho(teacher.rho[0]))
    x = teacher.start * sigma
    scale = STDS / torch.sqrt(alpha**2 * STDS**2 + sigma**2)
    return MEAN + scale * (x - alpha * MEAN)


@pytest.mark.parametrize("nfe", [5, 7])
def test_nodes_on_breakpoints_stay_and_nothing_looks_back_across(nfe: int) -> None:
    process, guidance = PROCESSES["vp"], parse_guidance("cfg:2|interval:0.3,3")
    points, labels = guidance.breakpoints(), torch.arange(64) % 2
    denoiser = guidance.wrap(_curved(process))
    grid = snap(fine_grid(process, 100, least=1e-3), points)
    tune, select = (teach(denoiser, randn(64, 6, seed=s), labels, grid=grid) for s in (1, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        tuned = tune_tied(
            denoiser, nfe, tune, select, Settings(starts=1, steps=4), breakpoints=points
        )
    table = flatten(tuned.plan, process)
    breaks = breaks_of(table, points)
    assert [table.rho[i] for i in breaks] == pytest.approx(list(points), rel=1e-9)
    c = table.matrix()
    for i, j in zip(*np.nonzero(np.abs(c) > 1e-9), strict=True):
        assert not any(j < b <= i for b in breaks)
    assert tuned.select <= tuned.select_before
    family = Family(table, breakpoints=points)
    assert family.size == nfe - 1 - 2 + len(free_pairs(table, None, points))
    moved = family.table(family.vector(table) + 0.1)
    assert [moved.rho[i] for i in breaks] == [table.rho[i] for i in breaks]


def test_least_squares_respects_breakpoints() -> None:
    problem = load_problem("mix8")
    points = (3.0,)
    grid = snap(fine_grid(problem.process, 100, least=1e-3), points)
    teacher = teach(problem.denoiser, problem.initial_noise(64, 1, torch.float64), grid=grid)
    start = scan(Calls(problem.denoiser), 5, Pairs.of(teacher), ("unipc",), points)[0].table
    c = least_squares(problem.denoiser, start, teacher, breakpoints=points).matrix()
    (b,) = breaks_of(start, points)
    assert not c[b:, :b].any()
    assert np.diag(c[b + 1 :, b:]).all()


def test_bad_histories() -> None:
    base = landed("vp", 2)
    with pytest.raises(ValueError, match="fall strictly"):
        Tied(base.process, base.rho, base.c, (1.0, 0.5))
    with pytest.raises(ValueError, match=r"row i of c needs 1 \+ i numbers"):
        Tied(base.process, base.rho, base.c, base.history[:1])
    assert math.isclose(base.plan().provenance["landing"], 3.0)
    assert Plan.from_json(base.plan().to_json()) == base.plan()
