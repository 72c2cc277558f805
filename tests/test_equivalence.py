"""Solvers that are the same method under two names, and variances known in closed form.

solvers.md section 7, tests 2, 3 and 5.
"""

import itertools
import math
from collections.abc import Callable
from fractions import Fraction

import diffusers
import numpy as np
import pytest
import torch
from helpers import Mixture1D, run_plan

from fewstep.samplers import Plan, build_plan, parse_spec
from fewstep.samplers.multistep import predictor_corrector
from fewstep.samplers.weights import exponential_weights, moments
from fewstep.schedules import (
    VE,
    ContinuousVP,
    Flow,
    Grid,
    discrete_vp,
    grid_from_rho,
    make_grid,
)

PROCESSES = {
    "vp": discrete_vp(), "vp-zero-snr": discrete_vp(zero_terminal_snr=True), "ve": VE(),
    "continuous": ContinuousVP(), "flow": Flow(),
}  # fmt: skip
FIRST_ORDER = ["euler", "dpmpp:order=1", "deis:order=1", "ipndm:order=1",
               "unipc:order=1,disable_corrector=[-1]"]  # fmt: skip
LINE = torch.linspace(-2, 2, 17, dtype=torch.float64)


def make(spec: str, grid: Grid, **options) -> Plan:
    parsed = parse_spec(spec)
    return parsed.sampler.build(grid, **parsed.options, **options)


def counted_draws(seed: int = 0) -> Callable[[torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda like: torch.randn(like.shape, generator=generator, dtype=like.dtype)


# The same method ------------------------------------------------------------------------------


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
        torch.testing.assert_close(
            run_plan(plan, Mixture1D(), start), expected, rtol=0, atol=1e-12
        )


@pytest.mark.parametrize(
    "spec",
    ["ddim:eta=0.7", "dpmpp:order=3", "dpmpp:tau=0.8", "unipc", "unipc:order=2,solver_type=bh1",
     "deis:variable=rho", "deis:variable=log_rho", "ipndm", "heun", "edm:churn=4"],
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


# Noise ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_ddim_noise_is_that_of_the_paper(eta: float) -> None:
    """arXiv:2010.02502, eq. 16, in the squares of alpha; and no step changes the noise level."""
    plan = build_plan(f"ddim:eta={eta},grid=trailing,final=sigma_min", PROCESSES["vp"], 9)
    marks = [(row.alpha, row.sigma) for row in plan.evaluations] + [plan.end]
    for row, (alpha_s, sigma_s), (alpha_t, sigma_t) in zip(
        plan.evaluations, marks, marks[1:], strict=False
    ):
        (op,) = row.ops
        paper = eta * sigma_t / sigma_s * math.sqrt(1 - alpha_s**2 / alpha_t**2)
        assert op.nu == pytest.approx(paper, rel=1e-10)
        assert (op.c_x * sigma_s) ** 2 + op.nu**2 == pytest.approx(sigma_t**2, rel=1e-12)


@pytest.mark.parametrize("eta", [0.4, 1.0])
@pytest.mark.parametrize("process", ["vp", "ve"])
def test_ddim_eta_is_a_noise_scale_tau(eta: float, process: str) -> None:
    """tau^2 = -ln(1 - eta^2 (1 - e^(-2h))) / (2h), the same on every step of equal h."""
    grid = make_grid(PROCESSES[process], 9, "karras", final="sigma_min")
    h = np.diff(grid.lam)
    taus = np.sqrt(-np.log1p(eta**2 * np.expm1(-2 * h)) / (2 * h))
    a = make("ddim", grid, eta=eta)
    b = predictor_corrector(grid, order=1, tau=taus.tolist())
    start = LINE * PROCESSES[process].start_scale
    results = [run_plan(plan, Mixture1D(), start, counted_draws()) for plan in (a, b)]
    torch.testing.assert_close(*results, rtol=0, atol=1e-11)


DATA_STD = 0.5


def gaussian(x: torch.Tensor, alpha: float, sigma: float) -> torch.Tensor:
    """E[x0 | x] for data N(0, DATA_STD^2): linear in x."""
    return x * (alpha * DATA_STD**2 / (alpha**2 * DATA_STD**2 + sigma**2))


class Basis:
    """Each draw is one coordinate more: the squared norm of the result is its exact variance.

    A run on linear data is linear in (x_T, noise_1, noise_2, ...).
    """

    def __init__(self, size: int) -> None:
        self.size, self.count = size, 0

    def start(self, variance: float) -> torch.Tensor:
        x = torch.zeros(1, self.size, 1, 1, dtype=torch.float64)
        x[0, 0] = math.sqrt(variance)
        return x

    def draw(self, like: torch.Tensor) -> torch.Tensor:
        self.count += 1
        noise = torch.zeros_like(like)
        noise[0, self.count] = 1.0
        return noise


def output_variance(plan: Plan) -> float:
    basis, first = Basis(2 * plan.nfe + 1), plan.evaluations[0]
    start = basis.start((first.alpha * DATA_STD) ** 2 + first.sigma**2)
    return run_plan(plan, gaussian, start, basis.draw).square().sum().item()


def variance_error(plan: Plan) -> float:
    """Relative error of the output variance."""
    exact = (plan.end[0] * DATA_STD) ** 2 + plan.end[1] ** 2
    return abs(output_variance(plan) / exact - 1)


SDE_ORDERS = [("order=1", 1), ("order=2", 2), ("order=2,solver_type=heun", 2),
              ("order=3,variant=official", 2), ("order=3,variant=exact", 2)]  # fmt: skip


@pytest.mark.parametrize("tau", [0.6, 1.0])
@pytest.mark.parametrize(("options", "order"), SDE_ORDERS)
def test_sde_has_its_weak_order(options: str, order: int, tau: float) -> None:
    """Weak order is at most 2, since the data prediction is not smooth along a noisy path."""
    errors = [
        variance_error(make(f"dpmpp:{options},tau={tau},lower_order_final=False",
                            make_grid(ContinuousVP(), n, "logsnr", final="sigma_min")))
        for n in (80, 160)
    ]  # fmt: skip
    assert math.log2(errors[0] / errors[1]) > order - 0.15


def test_third_order_sde_is_better_than_second() -> None:
    def error(options: str) -> float:
        grid = make_grid(ContinuousVP(), 40, "logsnr", final="sigma_min")
        return variance_error(make(f"dpmpp:{options},tau=1,lower_order_final=False", grid))

    assert error("order=3,variant=exact") < error("order=2") < error("order=1") / 4


def peer_variance_error(order: int, n: int) -> float:
    """The same of diffusers' sde-dpmsolver++ on the grid with n steps to the least level."""
    peer = diffusers.DPMSolverMultistepScheduler(
        algorithm_type="sde-dpmsolver++", prediction_type="sample", solver_order=order,
        use_lu_lambdas=True, lower_order_final=False,
    )  # fmt: skip
    peer.set_timesteps(n + 1)
    rho = peer.sigmas.double()[:-1]
    alphas = 1 / (1 + rho**2).sqrt()
    variances = (alphas * DATA_STD) ** 2 + (rho * alphas) ** 2
    basis = Basis(n + 1)
    x = basis.start(float(variances[0]))
    peer.set_begin_index(0)
    for i, t in enumerate(peer.timesteps[:-1]):
        output = gaussian(x, float(alphas[i]), float(alphas[i] * rho[i]))
        noise = basis.draw(x)
        x = peer.step(output, t, x, variance_noise=noise, return_dict=False)[0]
    return abs(x.square().sum().item() / float(variances[-1]) - 1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers")
def test_third_order_sde_of_diffusers_is_of_first_order() -> None:
    """A sign: worse than its second order, and its error only halves with twice the steps."""
    grid = make_grid(discrete_vp(), 80, "logsnr", final="sigma_min")
    options = "lower_order_final=False,tau=1"
    second = variance_error(make(f"dpmpp:{options}", grid))
    third = variance_error(make(f"dpmpp:order=3,variant=exact,{options}", grid))
    assert peer_variance_error(2, 80) == pytest.approx(second, rel=1e-2)  # float32 coefficients
    assert third < second < peer_variance_error(3, 80) / 5
    assert math.log2(peer_variance_error(3, 40) / peer_variance_error(3, 80)) < 1.3


def churn_variance(sigmas: list[float], churn: float, scale: float) -> float:
    """EDM's algorithm 2 on data N(0, s^2): each step multiplies the variance by a Heun factor."""
    steps, s2 = len(sigmas) - 1, DATA_STD**2
    gamma = min(churn / steps, math.sqrt(2) - 1)
    variance = None
    for low, t in itertools.pairwise(sigmas):
        up = low * (1 + gamma * (0.05 <= low <= 50))
        variance = s2 + up**2 if variance is None else variance + scale**2 * (up**2 - low**2)
        slope = up / (s2 + up**2)  # d = (x - D) / sigma
        euler = 1 + (t - up) * slope
        factor = euler if t == 0 else 1 + (t - up) * (slope + euler * t / (s2 + t**2)) / 2
        variance *= factor**2
    return variance


@pytest.mark.parametrize("scale", [1.0, 1.003])
@pytest.mark.parametrize("churn", [0.0, 3.0, 40.0])
def test_churn_variance(churn: float, scale: float) -> None:
    grid = make_grid(VE(), 12)
    plan = make("edm", grid, churn=churn, noise_scale=scale)
    expected = churn_variance(grid.rho.tolist(), churn, scale)
    assert output_variance(plan) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("churn", [0.0, 20.0])
def test_churn_keeps_the_variance_of_the_data(churn: float) -> None:
    errors = [
        variance_error(make("edm", make_grid(VE(), n), churn=churn, noise_scale=1.0))
        for n in (80, 160, 320)
    ]
    assert errors[2] < errors[1] < errors[0]
    assert errors[2] < 2e-3


# Weights --------------------------------------------------------------------------------------


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
