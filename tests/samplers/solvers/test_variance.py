"""Noise: each step's share of it, and the exact variance of what comes out.

solvers.md section 7, tests 2 and 3.
"""

import itertools
import math

import diffusers
import numpy as np
import pytest
import torch
from helpers import Mixture1D, counted_draws, make, run_plan
from linear_runs import (
    DATA_STD,
    Basis,
    fine_plan,
    gaussian,
    output_variance,
    states,
    variance_error,
    weak_order,
)

from fewstep.samplers import build_plan
from fewstep.samplers.solvers.multistep import predictor_corrector
from fewstep.samplers.solvers.spec import parse_spec
from fewstep.schedules import VE, discrete_vp, make_grid

PROCESSES = {"vp": discrete_vp(), "ve": VE()}
LINE = torch.linspace(-2, 2, 17, dtype=torch.float64)


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


SDE_ORDERS = [("order=1", 1), ("order=2", 2), ("order=2,solver_type=heun", 2),
              ("order=3,variant=official", 2), ("order=3,variant=exact", 2)]  # fmt: skip


@pytest.mark.parametrize("tau", [0.6, 1.0])
@pytest.mark.parametrize(("options", "order"), SDE_ORDERS)
def test_sde_has_its_weak_order(options: str, order: int, tau: float) -> None:
    """Weak order is at most 2, since the data prediction is not smooth along a noisy path."""
    assert weak_order(f"dpmpp:{options},tau={tau}", 80, 160) > order - 0.15


# Stages see part of a step's noise, which shows for longer than in a multistep method.
@pytest.mark.parametrize("tau", [0.6, 1.0])
@pytest.mark.parametrize("kind", ["heun", "midpoint"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_singlestep_sde_has_its_weak_order(order: int, kind: str, tau: float) -> None:
    slope = weak_order(f"singlestep:order={order},solver_type={kind},tau={tau}", 600, 1200)
    assert min(order, 2) - 0.15 < slope < min(order, 2) + 0.15


PATHS = [
    "dpmpp:order=3,tau={tau}",
    *[f"singlestep:order={k},solver_type={kind},tau={{tau}}"
      for k in (1, 2, 3) for kind in ("heun", "midpoint")],
    *[f"sa:mode={mode},evaluate={calls},tau={{tau}},tau_min=0,tau_max=1e9"
      for mode in ("few_steps", "more_steps") for calls in ("pec", "pece")],
]  # fmt: skip


@pytest.mark.parametrize("tau", [0.0, 0.6, 1.0, 1.4])
@pytest.mark.parametrize("grid_name", ["karras", "linspace"])
@pytest.mark.parametrize("spec", PATHS)
def test_samples_and_stages_lie_on_one_path(spec: str, grid_name: str, tau: float) -> None:
    """On a point mass x - alpha c is sigma times a stationary process of correlation e^(-tau^2 h).

    That holds between any two calls, those within a step included, and for the end. (SA-Solver's
    last step has no noise.)
    """
    # Whether or not each option counts, as a midpoint of one call and a window of no noise do not.
    parsed = parse_spec(f"{spec.format(tau=tau)},grid={grid_name},final=sigma_min")
    plan = parsed.made(PROCESSES["vp"], 11)
    marks = np.array([(row.alpha, row.sigma) for row in plan.evaluations] + [plan.end])
    seen, c = torch.stack(states(plan, 0.7)).numpy(), 0.7
    np.testing.assert_allclose(seen[:, -1], marks[:, 0] * c, rtol=0, atol=1e-12)
    time = tau**2 * np.log(marks[:, 0] / marks[:, 1])
    if spec.startswith("sa"):
        time[-1] = time[-2]
    correlation = np.exp(-np.abs(time[:, None] - time))
    covariance = correlation * marks[:, 1] * marks[:, 1, None]
    np.testing.assert_allclose(seen[:, :-1] @ seen[:, :-1].T, covariance, rtol=0, atol=1e-12)


def test_third_order_sde_is_better_than_second() -> None:
    def error(options: str) -> float:
        return variance_error(fine_plan(f"dpmpp:{options},tau=1", 40))

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
