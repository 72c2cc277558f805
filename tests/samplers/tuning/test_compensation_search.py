"""The search for DC-Solver's ratios."""

import math

import numpy as np
import pytest
import torch

import fewstep
from fewstep.guidance import CFG
from fewstep.models.exact import GaussianDenoiser, MixtureDenoiser
from fewstep.samplers import build_plan, sample
from fewstep.samplers.solvers.compensation import compensate
from fewstep.samplers.tuning import compensation_search as fit
from fewstep.samplers.tuning.compensation_search import fit_compensation
from fewstep.samplers.tuning.linesearch import BOUNDS, least_of_quartic, line_search
from fewstep.schedules import VE, Flow, NoiseProcess, discrete_vp, grid_from_rho

MEANS = torch.tensor([[-1.3, 0.4], [0.2, -0.9], [0.9, 1.0], [1.4, -0.6]], dtype=torch.float64)
LABELS = torch.tensor([0, 0, 1, 1])


def mixture(process: NoiseProcess | None = None) -> MixtureDenoiser:
    stds = torch.tensor([0.5, 0.35, 0.6, 0.4])
    return MixtureDenoiser(process or discrete_vp(), MEANS, stds, labels=LABELS)


def noises(n: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 2, generator=generator, dtype=torch.float64)


def rmse(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a - b).square().mean().sqrt().item()


# A flow's start has no signal; of a VE process the noise is scaled.
CASES = [
    ("unipc", None, None), ("unipc", CFG(3.0), None), ("deis:grid=quadratic", None, None),
    ("dpmpp:order=3", CFG(2.0), None), ("unipc", None, Flow()), ("ipndm", None, VE(0.002, 80)),
]  # fmt: skip


@pytest.mark.parametrize(("sampler", "guidance", "process"), CASES)
def test_error_falls_on_unseen_noises(sampler: str, guidance, process) -> None:
    denoiser = mixture(process)
    labels = torch.arange(10) % 2 if guidance else None
    found = fit_compensation(
        denoiser, noises(10, 1), 6, guidance=guidance, cond=labels, sampler=sampler, progress=False
    )
    assert found.after < found.before
    assert (found.nfe, found.noises, found.sampler) == (6, 10, sampler)
    assert found.guidance_scale == (guidance.scale if guidance else 1.0)
    spec, _, options = sampler.partition(":")
    own = f"dc:multistep={spec}" + (f",{options}" if "grid" in options else "")
    own = "dc:multistep=dpmpp:order=3" if spec == "dpmpp" else own
    unseen = noises(300, 2)
    cond = torch.arange(300) % 2 if guidance else None
    plain = build_plan(own, denoiser.process, 6)
    plans = (plain, compensate(plain, found.ratios), build_plan("unipc", denoiser.process, 300))
    a, b, exact = (
        sample(denoiser, plan, plan.nfe, noise=unseen, cond=cond, guidance=guidance)
        for plan in plans
    )
    # Measured: 0.26 to 0.9.
    assert rmse(b, exact) < 0.95 * rmse(a, exact)


def test_same_arguments_same_ratios_and_no_draws() -> None:
    state = torch.random.get_rng_state()
    results = [fit_compensation(mixture(), noises(10, 1), 5, progress=False) for _ in range(2)]
    assert results[0] == results[1]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert fewstep.fit_compensation is fit_compensation


@pytest.fixture
def search() -> fit._Search:
    denoiser = mixture()
    grid, plan = fit._uncompensated(denoiser, 6, "dpmpp")
    x = noises(10, 3)
    return fit._Search(denoiser, None, x, plan, fit._reference(denoiser, None, x, grid))


@pytest.mark.parametrize("i", [1, 2, 4, 5])
def test_closed_form_is_the_line_search(search: fit._Search, i: int) -> None:
    ones, known = np.ones(6), []
    search.state(ones, 6, known)
    before = len(known)

    def error(ratio: float) -> float:
        ratios = ones.copy()
        ratios[i] = ratio
        state = search.state(ratios, i + 1, known)
        return float(search.weights @ search._squares(state, i + 1))

    best = search.improved(ones, i, i + 1)[i]
    assert len(known) == before  # no call was needed
    least = min(error(r) for r in np.linspace(*BOUNDS, 401))
    assert error(best) <= least * (1 + 1e-9)
    near = line_search(error, best + 0.15 if best < 1.5 else best - 0.15, calls=40)
    assert error(near) <= least * (1 + 1e-3)


def test_line_search_takes_few_calls() -> None:
    calls = []

    def error(x: float) -> float:
        calls.append(x)
        return math.cosh(2 * (x - 1.63)) + 0.3 * (x - 1.63) ** 3

    assert abs(line_search(error, 1.0) - 1.63) < 0.01
    assert len(calls) <= 10
    assert line_search(lambda x: x, 1.0) == BOUNDS[0]
    assert line_search(lambda x: -x, 1.0) == BOUNDS[1]
    assert line_search(lambda x: 0.0, 1.3) == pytest.approx(1.3, abs=0.2)


def test_least_of_quartic() -> None:
    coefficients = np.polynomial.polynomial.polyfromroots([0.3, 0.3, 1.4, 1.4])
    coefficients[1] -= 0.01  # the second well is deeper
    assert least_of_quartic(coefficients) == pytest.approx(1.4, abs=0.02)
    assert least_of_quartic(np.array([1.0, 0, 0, 0, 0])) == 1.0
    assert least_of_quartic(np.array([0.0, -1, 0, 0, 0])) == BOUNDS[1]


def test_reference_passes_through_the_nodes() -> None:
    """On Gaussian data the solution is known at every node."""
    for process in (discrete_vp(), VE(0.002, 80.0)):
        denoiser = GaussianDenoiser(process, 0.3, 0.6)
        grid, plan = fit._uncompensated(denoiser, 5, "unipc")
        x = noises(4, 5)
        states = fit._reference(denoiser, None, x, grid)
        start = fit.levels(plan)[0]
        x = x * fit.start_scale(plan)
        for level, state in zip(fit.levels(plan)[1:], states, strict=False):
            torch.testing.assert_close(state, denoiser.flow_map(x, start, level), rtol=0, atol=2e-4)


def test_refined_grid_holds_the_nodes() -> None:
    for process in (discrete_vp(), Flow(), VE()):
        rho = np.append(np.geomspace(min(process.rho_max, 50), 0.1, 5), 0.0)
        grid = grid_from_rho(process, rho)
        fine, nodes = fit._refined(grid, 7)
        np.testing.assert_allclose(fine.rho[nodes], rho[1:], rtol=1e-12)
        assert fine.nfe == 5 * 7 + 1
        assert fine.rho[-2] == pytest.approx(process.rho_min)


def test_nothing_to_gain_leaves_ones() -> None:
    """A point mass is solved exactly by every plan."""
    denoiser = GaussianDenoiser(discrete_vp(), 0.7, 0.0)
    with pytest.warns(UserWarning, match="they stay at 1"):
        found = fit_compensation(denoiser, noises(4, 1), 5, progress=False)
    assert found.ratios == (1.0,) * 5
    assert found.after == found.before


def test_results_that_are_not_finite_are_an_error() -> None:
    denoiser = GaussianDenoiser(discrete_vp(), math.nan, 1.0)
    with pytest.raises(ValueError, match="not finite on these noises"):
        fit_compensation(denoiser, noises(4, 1), 5, progress=False)


def test_two_calls_and_a_bar() -> None:
    found = fit_compensation(mixture(), noises(10, 1), 2, sweeps=0)
    assert found.nfe == 2
    assert found.after < found.before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"nfe": 1}, "nothing to compensate with nfe = 1"),
     ({"noises": torch.zeros(3)}, r"shape \(n, ...\), got \(3,\)"),
     ({"noises": torch.zeros(0, 2)}, r"shape \(n, ...\)"),
     ({"sampler": "heun"}, "multistep solvers"), ({"sampler": "sa"}, "adds noise"),
     ({"sampler": "ddim:eta=1"}, "adds noise"), ({"sampler": "x"}, "unknown sampler"),
     ({"sweeps": -1}, "sweeps must be at least 0")],
)  # fmt: skip
def test_bad_arguments(arguments: dict, message: str) -> None:
    given = {"noises": noises(4, 1), "nfe": 5, "progress": False, **arguments}
    with pytest.raises(ValueError, match=message):
        fit_compensation(mixture(), **given)


@pytest.mark.parametrize("grid", ["karras", "logsnr", "tan"])
def test_grids_whose_last_node_is_the_least_level(grid: str) -> None:
    found = fit_compensation(
        mixture(), noises(10, 1), 5, sampler=f"unipc:grid={grid}", progress=False
    )
    assert found.after <= found.before
