"""Methods that start afresh at every step, against their papers' formulas step by step."""

import itertools
import math

import numpy as np
import pytest
import torch
from helpers import Mixture1D, make, run_plan

from fewstep.samplers import build_plan
from fewstep.samplers.solvers.singlestep import blocks
from fewstep.schedules import VE, Flow, Grid, NoiseProcess, discrete_vp, make_grid

PROCESSES = {"vp": discrete_vp(), "ve": VE(), "flow": Flow()}
LINE = torch.linspace(-2, 2, 17, dtype=torch.float64)


def fraction(process: NoiseProcess, s: float, t: float, r: float) -> tuple[float, float]:
    """(alpha, sigma) at the fraction r of the way from ratio s to t in lambda."""
    alpha, sigma = process.from_rho(s * math.exp(-r * math.log(s / t)))
    return float(alpha), float(sigma)


def dpm_solver(process: NoiseProcess, rho: np.ndarray, order: int, kind: str) -> torch.Tensor:
    """DPM-Solver++ singlestep as in the official code (arXiv:2211.01095, algorithm 1)."""
    m, x = Mixture1D(), LINE * rho[0] * float(process.from_rho(rho[0])[0])
    for s, t in itertools.pairwise(map(float, rho)):
        h = math.log(s / t)
        (a_s, s_s), (a_t, s_t) = fraction(process, s, t, 0), fraction(process, s, t, 1)
        m_s = m(x, a_s, s_s)
        r1 = 1 / order
        a_1, s_1 = fraction(process, s, t, r1)
        m_1 = m(s_1 / s_s * x - a_1 * math.expm1(-r1 * h) * m_s, a_1, s_1)
        phi_1 = math.expm1(-h)
        phi_2 = phi_1 / h + 1
        phi_3 = phi_2 / h - 1 / 2
        first = s_t / s_s * x - a_t * phi_1 * m_s
        if order == 2 and kind == "midpoint":
            x = first - 0.5 / r1 * a_t * phi_1 * (m_1 - m_s)
        elif order == 2:
            x = first + a_t * phi_2 / r1 * (m_1 - m_s)
        else:
            r2 = 2 / 3
            a_2, s_2 = fraction(process, s, t, r2)
            phi_22 = math.expm1(-r2 * h) / (r2 * h) + 1
            inner = s_2 / s_s * x - a_2 * math.expm1(-r2 * h) * m_s
            m_2 = m(inner + r2 / r1 * a_2 * phi_22 * (m_1 - m_s), a_2, s_2)
            d_0, d_1 = (m_1 - m_s) / r1, (m_2 - m_s) / r2
            if kind == "midpoint":
                x = first + a_t * phi_2 * d_1
            else:
                slope = (r2 * d_0 - r1 * d_1) / (r2 - r1)
                curvature = 2 * (d_1 - d_0) / (r2 - r1)
                x = first + a_t * phi_2 * slope - a_t * phi_3 * curvature
    return x


@pytest.mark.parametrize("process", ["vp", "ve"])
@pytest.mark.parametrize("grid_name", ["karras", "linspace"])
@pytest.mark.parametrize("kind", ["midpoint", "heun"])
@pytest.mark.parametrize("order", [2, 3])
def test_it_is_the_official_formula(order: int, kind: str, grid_name: str, process: str) -> None:
    grid = make_grid(PROCESSES[process], 4 * order, grid_name, final="sigma_min")
    plan = make(f"singlestep:order={order},solver_type={kind}", grid)
    start = LINE * grid.rho[0] * grid.alpha[0]
    expected = dpm_solver(PROCESSES[process], grid.rho[::order], order, kind)
    result = run_plan(plan, Mixture1D(), start)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("process", ["vp", "ve"])
def test_rho_2_is_heun_and_dpm_solver_2_with_r_1(process: str) -> None:
    grid = make_grid(PROCESSES[process], 10, "karras", final="sigma_min")
    halves = Grid(grid.process, grid.rho[::2], grid.time[::2])
    start = LINE * grid.rho[0] * grid.alpha[0]
    own = run_plan(make("rho_rk:order=2", grid), Mixture1D(), start)
    heun = run_plan(make("heun", halves), Mixture1D(), start)
    x, m = start, Mixture1D()
    for i in range(5):  # arXiv:2206.00927, algorithm 4, in the noise prediction
        (a_s, s_s), (a_t, s_t) = ((halves.alpha[k], halves.sigma[k]) for k in (i, i + 1))
        move = s_t * math.expm1(halves.lam[i + 1] - halves.lam[i])
        eps = (x - a_s * m(x, a_s, s_s)) / s_s
        u = a_t / a_s * x - move * eps
        eps_u = (u - a_t * m(u, a_t, s_t)) / s_t
        x = a_t / a_s * x - move * eps - move / 2 * (eps_u - eps)
    # Rounding: x / alpha is 157 at the start.
    torch.testing.assert_close(own, heun, rtol=0, atol=1e-11)
    torch.testing.assert_close(own, x, rtol=0, atol=1e-11)


def kutta(s: float, t: float, y: torch.Tensor, slope) -> torch.Tensor:
    k1 = slope(y, s)
    k2 = slope(y + (t - s) / 2 * k1, (s + t) / 2)
    k3 = slope(y + (t - s) * (2 * k2 - k1), t)
    return y + (t - s) / 6 * (k1 + 4 * k2 + k3)


def classical(s: float, t: float, y: torch.Tensor, slope) -> torch.Tensor:
    k1 = slope(y, s)
    k2 = slope(y + (t - s) / 2 * k1, (s + t) / 2)
    k3 = slope(y + (t - s) / 2 * k2, (s + t) / 2)
    k4 = slope(y + (t - s) * k3, t)
    return y + (t - s) / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


@pytest.mark.parametrize(("order", "method"), [(3, kutta), (4, classical)])
def test_runge_kutta_in_rho(order: int, method) -> None:
    grid = make_grid(PROCESSES["ve"], 3 * order, "karras", final="sigma_min")
    plan = make(f"rho_rk:order={order}", grid)

    def slope(y: torch.Tensor, rho: float) -> torch.Tensor:
        return (y - Mixture1D()(y, 1.0, rho)) / rho

    y = LINE * 80
    for s, t in itertools.pairwise(map(float, grid.rho[::order])):
        y = method(s, t, y, slope)
    result = run_plan(plan, Mixture1D(), LINE * 80)
    torch.testing.assert_close(result, y, rtol=0, atol=1e-11)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("last", [False, True])
def test_blocks(order: int, first: bool, last: bool) -> None:
    """All calls are spent, no block is longer than the order, and most are as long."""
    for nfe in range(1, 41):
        sizes = blocks(nfe, order, first, last)
        assert sum(sizes) == nfe
        middle = sizes[first : len(sizes) - (last and len(sizes) > first)]
        assert all(1 <= k <= order for k in sizes)
        assert not middle or max(middle) - min(middle) <= 1
        assert len(middle) == math.ceil(sum(middle) / order)
        assert not first or sizes[0] == 1
        assert not last or sizes[-1] == 1


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("tau", [0.0, 1.0])
def test_stages_lie_at_their_fractions(process: str, tau: float) -> None:
    """In lambda, whatever the grid; and each call is told the time of its level."""
    plan = build_plan(f"singlestep:order=3,tau={tau},grid=linspace", PROCESSES[process], 11)
    levels = [(row.time, row.sigma / row.alpha) for row in plan.evaluations if row.alpha]
    sizes = blocks(11, 3, len(levels) < 11, True)[len(levels) < 11 :]
    start = 0
    for k in sizes[:-1]:
        rho = [levels[start + j][1] for j in range(k + 1)]
        np.testing.assert_allclose(np.diff(np.log(rho)), math.log(rho[k] / rho[0]) / k, rtol=1e-9)
        start += k
    for time, rho in levels:
        assert time == pytest.approx(float(PROCESSES[process].time(rho)), rel=1e-9)


@pytest.mark.parametrize(
    ("spec", "message"),
    [("singlestep:order=4", "order must be 1, 2 or 3 for DPMSolverPPSinglestep, got 4; for higher"),
     ("singlestep:solver_type=bh1", "solver_type must be 'midpoint' or 'heun', got 'bh1'"),
     ("singlestep:tau=-1", "tau must be a number from 0 to 100, got -1"),
     ("rho_rk:order=5", "order must be 1, 2, 3 or 4 for DEISRungeKutta, got 5")],
)  # fmt: skip
def test_refused(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_plan(spec, PROCESSES["vp"], 6)
