"""Restart: its variance in closed form, its calls, the paper's settings, what is refused."""

import itertools
import math
import re
import warnings

import numpy as np
import pytest
import torch
from helpers import drive, make
from linear_runs import DATA_STD, output_variance

from fewstep.samplers import Plan, build_plan, parse_spec
from fewstep.samplers.adapter import schedulers
from fewstep.samplers.solvers.restart_recipes import AUTO_FROM, PRESETS
from fewstep.samplers.solvers.spec import Spec
from fewstep.schedules import VE, Flow, discrete_vp, grid_from_rho, make_grid

EDM = VE(0.002, 80.0)
PROCESSES = {"vp": discrete_vp(), "edm": EDM, "flow": Flow()}
EDM_CONFIG = {"sigma_min": 0.002, "sigma_max": 80.0, "grid": "karras"}


def heun_factor(s: float, t: float) -> float:
    """What a Heun step multiplies x by on data N(0, DATA_STD^2), where d = x sigma / (s^2 + ..)."""
    slopes = [sigma / (DATA_STD**2 + sigma**2) for sigma in (s, t)]
    euler = 1 + (t - s) * slopes[0]
    return euler if t == 0 else 1 + (t - s) * (slopes[0] + euler * slopes[1]) / 2


def way_down(points: int, low: float, high: float) -> float:
    """A: the product of Heun factors on the grid of an interval (EDM's, rho = 7)."""
    roots = np.linspace(high ** (1 / 7), low ** (1 / 7), points)
    return math.prod(heun_factor(s, t) for s, t in itertools.pairwise(roots**7))


def expected_variance(sigmas: list[float], intervals: list[list[float]], scale: float) -> float:
    """v <- A^2 (v + S^2 (high^2 - low^2)) at the nearest node of each interval."""
    variance = DATA_STD**2 + sigmas[0] ** 2
    snapped = {min(sigmas[1:-1], key=lambda s: abs(s - low)): (n, k, high)
               for n, k, low, high in intervals}  # fmt: skip
    assert len(snapped) == len(intervals)
    for s, t in itertools.pairwise(sigmas):
        variance *= heun_factor(s, t) ** 2
        points, times, high = snapped.get(t, (2, 0, 1.0))
        for _ in range(times):
            variance += scale**2 * (high**2 - t**2)
            variance *= way_down(points, t, high) ** 2
    return variance


@pytest.mark.parametrize("scale", [0.9, 1.0, 1.003])
@pytest.mark.parametrize(
    "intervals",
    [[[3, 2, 0.06, 0.30]], [[3, 1, 19.35, 40.79], [3, 1, 1.09, 1.92], [3, 4, 0.06, 0.30]],
     [[9, 30, 0.06, 0.20]]],
)  # fmt: skip
def test_variance(intervals: list[list[float]], scale: float) -> None:
    grid = make_grid(EDM, 18, "karras")
    plan = make("restart", grid, solver="heun", intervals=intervals, noise_scale=scale)
    assert plan.nfe == 35 + sum(2 * k * (n - 1) for n, k, *_ in intervals)
    expected = expected_variance(grid.rho.tolist(), intervals, scale)
    assert output_variance(plan) == pytest.approx(expected, rel=1e-11)


def test_the_factor_of_the_paper_and_its_fixed_point() -> None:
    right, wide = 0.06**2 + DATA_STD**2, 0.30**2 + DATA_STD**2
    exact = math.sqrt(right / wide)
    assert (way_down(3, 0.06, 0.30), exact) == pytest.approx((0.8670, 0.8636), abs=5e-5)
    # solvers.md's figures, from a node at 0.0645.
    exact_there = math.sqrt((0.0645**2 + DATA_STD**2) / wide)
    assert (way_down(3, 0.0645, 0.30), exact_there) == pytest.approx((0.8678, 0.8646), abs=5e-5)
    for scale in (0.99, 1.0, 1.01):
        once = exact**2 * (right + scale**2 * (0.30**2 - 0.06**2))
        assert (abs(once - right) < 1e-15) == (scale == 1.0)


@pytest.mark.parametrize("scale", [0.9, 1.0])
def test_many_passes_settle_at_the_fixed_point(scale: float) -> None:
    """With fine steps that is the variance of the noisy data, if the noise is not scaled."""
    levels = np.array([80.0, 20.0, 5.0, 1.0, 0.3, *np.linspace(0.06, 0.03, 12)])
    plan = make("restart", grid_from_rho(EDM, levels), noise_scale=scale, inner="unipc",
                solver="unipc", intervals=[[40, 30, 0.06, 0.3]])  # fmt: skip
    exact = (0.06**2 + DATA_STD**2) / (0.30**2 + DATA_STD**2)
    settled = exact * scale**2 * (0.30**2 - 0.06**2) / (1 - exact)
    last = (0.03**2 + DATA_STD**2) / (0.06**2 + DATA_STD**2)
    assert output_variance(plan) == pytest.approx(settled * last, rel=1e-3)


SOLVERS = ["heun", "edm", "ddim", "dpmpp:order=3", "unipc", "deis", "ipndm", "rho_rk",
           "singlestep", "sa", "sa:mode=more_steps,evaluate=pece"]  # fmt: skip


def build(solver: str, process: str, n: int, **options) -> Plan:
    """Restart around any solver; a spec cannot hold another one with two options."""
    return Spec("restart", {"solver": solver, **options}, {"grid": "karras"}).build(
        PROCESSES[process], n
    )


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("solver", SOLVERS)
def test_without_passes_it_is_its_solver(solver: str, process: str) -> None:
    """Intervals with no times are as good as none."""
    grid = f"{',' if ':' in solver else ':'}grid=karras"
    for n in (1, 2, 7, 12):
        alone = build_plan(solver + grid, PROCESSES[process], n)
        for intervals in ([], [[3, 0, 0.06, 0.3]]):
            plan = build(solver, process, n, intervals=intervals)
            assert plan.evaluations == alone.evaluations


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("solver", SOLVERS)
def test_the_passes_are_plans_of_the_inner_solver(solver: str, process: str) -> None:
    """Climb, then the solver on the interval's grid from its first call on, each time."""
    grid, times = make_grid(PROCESSES[process], 9, "karras"), 3
    plan = make("restart", grid, solver="ddim", inner=solver, intervals=[[5, times, 0.5, 2.0]])
    node = 1 + int(np.abs(grid.rho[1:-1] - 0.5).argmin())
    levels = np.linspace(2 ** (1 / 7), float(grid.rho[node]) ** (1 / 7), 5) ** 7
    levels[-1] = grid.rho[node]
    inside = grid_from_rho(grid.process, levels)
    parsed = parse_spec(solver)
    options = {**parsed.sampler.options(), **parsed.options}
    if "lower_order_final" in options:
        options["lower_order_final"] = False
    way = parsed.sampler.plan(inside, parsed.sampler.calls(inside, options), options).evaluations
    assert plan.nfe == 9 + times * len(way)
    ratio = float(inside.alpha[0] / grid.alpha[node])
    nu = float(inside.alpha[0] * math.sqrt(2.0**2 - grid.rho[node] ** 2))
    for k in range(times):
        first = node + k * len(way)
        climb = plan.evaluations[first - 1].ops[-1]
        assert (climb.reg, climb.c_b, climb.w) == ("x", 0.0, ())
        assert (climb.c_x, climb.nu) == pytest.approx((ratio, nu), rel=1e-12)
        walked = plan.evaluations[first : first + len(way)]
        for ours, theirs in zip(walked, way, strict=True):
            assert (ours.time, ours.sigma) == pytest.approx((theirs.time, theirs.sigma), rel=1e-9)
            last = ours is walked[-1] and k + 1 < times
            own = ours.ops[:-1] if last else ours.ops
            for a, b in zip(own, theirs.ops, strict=True):
                assert (a.c_x, a.c_b, a.nu, *a.w) == pytest.approx((b.c_x, b.c_b, b.nu, *b.w))


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_make_their_calls(preset: str) -> None:
    nfe = PRESETS[preset].nfe
    process = discrete_vp("scaled_linear", beta_start=0.00085, beta_end=0.012)
    latent = preset.startswith("sd15")
    plan = build_plan(f"restart:preset={preset},grid={'linspace' if latent else 'karras'}",
                      process if latent else EDM, nfe)  # fmt: skip
    assert plan.nfe == nfe
    assert sum(bool(op.nu) for row in plan.evaluations for op in row.ops) == sum(
        interval.times for interval in PRESETS[preset].intervals
    )
    config = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    scheduler = schedulers.Restart(
        preset=preset, **({**config, "grid": "linspace"} if latent else EDM_CONFIG)
    )
    scheduler.set_timesteps(nfe)
    assert len(scheduler.timesteps) == nfe
    for wrong in (nfe - 1, nfe + 1, 10):
        with pytest.raises(ValueError, match=f"this Restart preset makes {nfe} calls, not {wrong}"):
            scheduler.set_timesteps(wrong)
    assert len(scheduler.timesteps) == nfe


def test_the_main_run_of_a_preset_is_the_papers() -> None:
    """imagenet64-39: 14 points of Heun, and three passes of 4 calls each."""
    plan = build_plan("restart:preset=imagenet64-39,grid=karras", EDM, 39)
    main = make_grid(EDM, 14, "karras")
    called = {round(row.sigma, 9) for row in plan.evaluations}
    assert {round(float(rho), 9) for rho in main.rho[:-1]} <= called
    assert {40.79, 1.92, 0.3} <= called


@pytest.mark.parametrize("solver", ["heun", "sa:mode=more_steps,evaluate=pece", "singlestep"])
@pytest.mark.parametrize("process", PROCESSES)
def test_automatic_intervals_fit_every_number_of_calls(process: str, solver: str) -> None:
    for n in range(1, 41):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            plan = build(solver, process, n)
        assert plan.nfe == n
        told = ["do not pay for a Restart interval" in str(warning.message) for warning in caught]
        ops = [row.ops[-1] for row in plan.evaluations]
        climbs = [op for op in ops if op.reg == "x" and op.nu and not op.w]
        assert told == [True] * (not climbs)
        # A pass of a solver of two calls a step may just not be paid for at first.
        assert not climbs if n < AUTO_FROM else climbs or n < AUTO_FROM + 6


TWINS = [[3, 1, 0.59, 1.09], [3, 1, 1.09, 1.92]]


def test_intervals_on_one_node_are_refused_by_name() -> None:
    """At 14 steps of EDM's grid both snap to 0.823; the paper's code drops one of them."""
    message = "from 0.59 and 1.09 both fall on the node at 0.823: join them, move one, or use more"
    with pytest.raises(ValueError, match=message):
        make("restart", make_grid(EDM, 14, "karras"), solver="heun", intervals=TWINS)
    scheduler = schedulers.Restart(**EDM_CONFIG, solver="heun", intervals=TWINS)
    with pytest.raises(ValueError, match=message):
        scheduler.set_timesteps(27 + 8)


REFUSED = {
    "many": "intervals must be 'auto' or [[points, times, low, high], ...], got 'many'",
    5: "intervals must be 'auto' or [[points, times, low, high], ...], got 5",
    (3, 1, 0.06, 0.3): "a Restart interval is [points, times, low, high], got 3",
    ((3, 1, 0.06),): "a Restart interval is [points, times, low, high], got",
    (("a", 1, 0.06, 0.3),): "a Restart interval is [points, times, low, high], got",
    ((2.5, 1, 0.06, 0.3),): "0 < low < high in sigma / alpha, got [2.5, 1, 0.06, 0.3]",
    ((1, 1, 0.06, 0.3),): "[points >= 2, times >= 0, low, high]",
    ((3, -1, 0.06, 0.3),): "[points >= 2, times >= 0, low, high]",
    ((3, 1, 0.3, 0.06),): "0 < low < high in sigma / alpha, got [3, 1, 0.3, 0.06]",
    ((3, 1, 0.06, math.nan),): "0 < low < high",
    ((3, 1, 0.06, 100.0),): "[0.06, 100] does not fit: its node is at 0.0515",
    ((3, 1, 1e-4, 2e-4),): "[0.0001, 0.0002] does not fit: its node is at 0.002",
    ((3, 30, 0.06, 0.3),): "these Restart intervals take 120 calls and the main run 2 or more, but",
}


@pytest.mark.parametrize("intervals", REFUSED)
def test_refused_intervals_leave_the_old_plan(intervals) -> None:
    scheduler = schedulers.Restart(**EDM_CONFIG, solver="heun")
    scheduler.set_timesteps(20)
    plan, x = scheduler.plan, torch.ones(1, 1, 2, 2)
    scheduler.register_to_config(intervals=intervals)
    with pytest.raises(ValueError, match=re.escape(REFUSED[intervals])) as raised:
        scheduler.set_timesteps(28)
    assert "\n" not in str(raised.value)
    assert scheduler.plan is plan
    assert scheduler.num_inference_steps == len(scheduler.timesteps) == 20
    assert drive(scheduler, x).isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"preset": "cifar"}, "unknown preset 'cifar' of Restart; known: cifar10-vp-43"),
     ({"noise_scale": -1.0}, "noise_scale must be a number from 0 to 100, got -1"),
     ({"solver": "restart"}, "and not restart; got 'restart'"),
     ({"inner": "heun:grid=karras"}, "got 'heun:grid=karras': give the grid to Restart itself")],
)  # fmt: skip
def test_other_refusals(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        schedulers.Restart(**EDM_CONFIG, **options).set_timesteps(30)


def test_interval_numbers_may_be_floats() -> None:
    grid = make_grid(EDM, 14, "karras")
    a, b = (make("restart", grid, intervals=[[k, k, 0.06, 0.3]]) for k in (3, 3.0))
    assert a == b
