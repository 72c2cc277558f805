"""Solvers that are the same method under two names, and variances known in closed form.

solvers.md section 7, tests 2, 3 and 5.
"""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from helpers import Mixture1D, counted_draws, make, run_plan

from fewstep.samplers.solvers.weights import exponential_weights, moments
from fewstep.schedules import (
    VE,
    ContinuousVP,
    Flow,
    discrete_vp,
    grid_from_rho,
    make_grid,
)

PROCESSES = {
    "vp": discrete_vp(), "vp-zero-snr": discrete_vp(zero_terminal_snr=True), "ve": VE(),
    "continuous": ContinuousVP(), "flow": Flow(),
}  # fmt: skip
FIRST_ORDER = ["euler", "dpmpp:order=1", "deis:order=1", "ipndm:order=1",
               "unipc:order=1,disable_corrector=[-1]", "singlestep:order=1", "rho_rk:order=1",
               "euler_a:eta=0", "sa:predictor_order=1,corrector_order=0,tau=0",
               "restart:intervals=[],solver=ddim"]  # fmt: skip
LINE = torch.linspace(-2, 2, 17, dtype=torch.float64)


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("grid_name", ["karras", "trailing"])
@pytest.mark.parametrize("spec", FIRST_ORDER)
def test_first_order_is_ddim(spec: str, grid_name: str, process: str) -> None:
    grid = make_grid(PROCESSES[process], 9, grid_name)
    start = LINE * PROCESSES[process].start_scale
    reference = run_plan(make("ddim", grid), Mixture1D(), start)
    # Rounding: x / alpha is up to 160 where a noise-form method starts.
    assert (run_plan(make(spec, grid), Mixture1D(), start) - reference).abs().max() < 1e-12


@pytest.mark.parametrize("process", PROCESSES)
def test_2m_is_unip_2_bh2(process: str) -> None:
    grid = make_grid(PROCESSES[process], 8)
    a = make("dpmpp:order=2,lower_order_final=True", grid)
    b = make("unipc:order=2,solver_type=bh2,disable_corrector=[-1]", grid)
    start = LINE * PROCESSES[process].start_scale
    difference = run_plan(a, Mixture1D(), start) - run_plan(b, Mixture1D(), start)
    assert difference.abs().max() < 1e-12


@pytest.mark.parametrize("h", [0.02, 0.7, 3.0])
@pytest.mark.parametrize("nodes", [[-0.8, -2.1], [1.0, -0.8], [1.0, -0.8, -2.1], [-1, -2, -3.5]])
@pytest.mark.parametrize("scale", [lambda h: h, math.expm1], ids=["bh1", "bh2"])
def test_b_of_h_cancels_with_three_nodes(nodes: list[float], h: float, scale) -> None:
    """UniPC's own system (arXiv:2302.04867, eq. 11): sum_k a_k r_k^(n-1) = M_n / B(h)."""
    r = np.array(nodes)
    system = np.vander(r, increasing=True).T
    a = np.linalg.solve(system, moments(h, len(r) + 1)[1:] / scale(h))
    slopes = scale(h) * a / r
    weights = np.concatenate([[-math.expm1(-h) - slopes.sum()], slopes])
    for rule in ("half-step", "half-moment", "exact"):
        own = exponential_weights([0.0, *nodes], h, rule)
        np.testing.assert_allclose(own, weights, rtol=1e-10, atol=1e-12)


def test_bh1_is_bh2_from_order_three_on() -> None:
    grid = make_grid(PROCESSES["vp"], 8)
    plans = [
        make(f"unipc:order=3,solver_type={name},lower_order_final=False", grid)
        for name in ("bh1", "bh2")
    ]
    a, b = ([row.ops for row in plan.evaluations] for plan in plans)
    # Evaluation 3 corrects with four nodes and predicts with three; 1 and 2 use pairs.
    assert a[3:] == b[3:]
    assert a[1] != b[1]


def edm_heun(sigmas: list[float], x: np.ndarray, denoise) -> np.ndarray:
    """EDM's algorithm 1 (arXiv:2206.00364), with D(x; sigma)."""
    for s, t in itertools.pairwise(sigmas):
        d = (x - denoise(x, s)) / s
        euler = x + (t - s) * d
        x = euler if t == 0 else x + (t - s) * (d + (euler - denoise(euler, t)) / t) / 2
    return x


def test_heun_is_edm_algorithm_1() -> None:
    grid = make_grid(VE(), 6)

    def denoise(x: np.ndarray, sigma: float) -> np.ndarray:
        return Mixture1D()(torch.tensor(x), 1.0, sigma).numpy()

    start = LINE * 80
    expected = torch.tensor(edm_heun(grid.rho.tolist(), start.numpy(), denoise))
    for spec in ("heun", "edm:churn=0"):
        plan = make(spec, grid)
        assert plan.nfe == 11
        torch.testing.assert_close(run_plan(plan, Mixture1D(), start), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "spec",
    ["ddim:eta=0.7", "dpmpp:order=3", "dpmpp:tau=0.8", "unipc", "unipc:order=2,solver_type=bh1",
     "deis:variable=rho", "deis:variable=log_rho", "ipndm", "heun", "edm:churn=4", "euler_a",
     "singlestep", "singlestep:order=2,solver_type=midpoint,tau=1", "rho_rk", "sa:tau=0.8",
     "sa:mode=more_steps,evaluate=pece", "restart:intervals=[[3,2,0.5,2],[4,1,3,20]]",
     "restart:intervals=[[3,2,0.5,2]],solver=sa,noise_scale=1.1"],
)  # fmt: skip
@pytest.mark.parametrize("process", ["vp", "continuous", "flow"])
def test_any_process_is_ve_on_x_over_alpha(spec: str, process: str) -> None:
    rho = np.append(np.geomspace(50, 0.02, 8), 0.0)
    grids = [grid_from_rho(p, rho) for p in (PROCESSES[process], VE(0.001, 100))]
    first, other = (make(spec, grid) for grid in grids)
    alpha = first.evaluations[0].alpha
    a = run_plan(first, Mixture1D(), LINE * 50 * alpha, counted_draws())
    b = run_plan(other, Mixture1D(), LINE * 50, counted_draws())
    torch.testing.assert_close(a / first.end[0], b, rtol=0, atol=1e-11)


@pytest.mark.parametrize("eta", [0.4, 1.0])
def test_euler_ancestral_is_ddim_and_k_diffusions(eta: float) -> None:
    grid = make_grid(VE(), 9, "karras")
    own = make("euler_a", grid, eta=eta)
    assert own.evaluations == make("ddim", grid, eta=eta).evaluations
    draw, x = counted_draws(), LINE * 80
    for s, t in itertools.pairwise(grid.rho.tolist()):
        up = min(
            t, eta * math.sqrt(t**2 * (s**2 - t**2) / s**2)
        )  # k-diffusion's get_ancestral_step
        down = math.sqrt(t**2 - up**2)
        x = x + (x - Mixture1D()(x, 1.0, s)) / s * (down - s)
        if up:
            x = x + up * draw(x)
    result = run_plan(own, Mixture1D(), LINE * 80, counted_draws())
    torch.testing.assert_close(result, x, rtol=0, atol=1e-12)


def exact_moment(z: float, n: int) -> float:
    """M_n = z sum_j (-z)^j n! / (n+1+j)! in rational arithmetic, where nothing cancels."""
    x = Fraction(z)
    term, total = Fraction(1, n + 1), Fraction(0)
    for j in itertools.count(1):
        total += term
        term *= -x / (n + 1 + j)
        if j > 2 * abs(z) and abs(term) < Fraction(1, 10**40):
            return float(x * total)
    raise AssertionError


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("z", [1e-6, 1e-3, 0.1, 0.499999, 0.5, 0.7, 1.0, 2.5, 8.0, 20.0, 50.0])
def test_moments(z: float, sign: int) -> None:
    own = moments(sign * z, 6)
    exact = [exact_moment(sign * z, n) for n in range(6)]
    # The recursion from |z| = 0.5 on loses a factor n / z of accuracy at each n.
    np.testing.assert_allclose(own[:4], exact[:4], rtol=1e-13)
    np.testing.assert_allclose(own, exact, rtol=1e-11)


def test_moments_of_an_infinite_step() -> None:
    np.testing.assert_array_equal(moments(math.inf, 5), np.ones(5))
