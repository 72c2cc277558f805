"""Plans entered in the middle, as image-to-image does: every entry of every kind of plan."""

import math
import warnings

import numpy as np
import pytest
import torch
from helpers import CONFIGS, Mixture1D, drive, make, run_plan
from linear_runs import states

from fewstep.samplers import Plan, build_plan
from fewstep.samplers.adapter import schedulers
from fewstep.samplers.solvers.tail import tail
from fewstep.schedules import discrete_vp, grid_from_rho

LATENT = CONFIGS["vp-scaled"]
PROCESS = discrete_vp("scaled_linear", beta_start=0.00085, beta_end=0.012)
STARTS = torch.linspace(-2, 2, 17, dtype=torch.float64)


def stored(spec: str, n: int) -> dict:
    joint = "," if ":" in spec else ":"
    return {"plans": [build_plan(f"{spec}{joint}grid=linspace,final=sigma_min", PROCESS, n)]}


RESTART = {"intervals": [[3, 2, 0.4, 1.5]]}
# (class, options by number of calls)
CASES = {
    "unipc": ("UniPC", lambda n: {}),
    "deis": ("DEIS", lambda n: {}),
    "heun": ("Heun", lambda n: {}),
    "edm": ("EDMStochastic", lambda n: {"noise_scale": 1.0}),
    "edm-calm": ("EDMStochastic", lambda n: {"noise_scale": 1.0, "churn": 0.0}),
    "euler-a": ("EulerAncestral", lambda n: {}),
    "sa": ("SASolver", lambda n: {}),
    "sa-ode": ("SASolver", lambda n: {"tau": 0.0}),
    "sa-more": ("SASolver", lambda n: {"mode": "more_steps"}),
    "sa-pece": ("SASolver", lambda n: {"evaluate": "pece"}),
    "sa-more-pece": ("SASolver", lambda n: {"mode": "more_steps", "evaluate": "pece", "tau": 0.0}),
    "2s": ("DPMSolverPPSinglestep", lambda n: {"order": 2}),
    "3s": ("DPMSolverPPSinglestep", lambda n: {}),
    "3s-midpoint": ("DPMSolverPPSinglestep", lambda n: {"solver_type": "midpoint"}),
    "3s-sde": ("DPMSolverPPSinglestep", lambda n: {"tau": 1.0}),
    "rho-3": ("DEISRungeKutta", lambda n: {}),
    "rho-4": ("DEISRungeKutta", lambda n: {"order": 4}),
    "restart": ("Restart", lambda n: RESTART),
    "restart-unipc": ("Restart", lambda n: {**RESTART, "solver": "unipc"}),
    "restart-3s": ("Restart", lambda n: {**RESTART, "solver": "singlestep"}),
    "restart-sa": ("Restart", lambda n: {**RESTART, "solver": "sa"}),
    "restart-calm": ("Restart", lambda n: {}),
    "plan-unipc": ("PlanScheduler", lambda n: stored("unipc", n)),
    "plan-singlestep": ("PlanScheduler", lambda n: stored("singlestep", n)),
    "plan-restart": ("PlanScheduler",
                     lambda n: stored("restart:intervals=[[3,1,0.4,1.5]],solver=dpmpp", n)),
}  # fmt: skip
# Those without noise.
CALM = ["unipc", "deis", "heun", "edm-calm", "sa-ode", "sa-more-pece", "2s", "3s", "3s-midpoint",
        "rho-3", "rho-4", "plan-unipc", "plan-singlestep"]  # fmt: skip


def scheduler_for(case: str, n: int, **kwargs):
    cls, options = CASES[case]
    scheduler = getattr(schedulers, cls)(**LATENT, final="sigma_min", **options(n), **kwargs)
    scheduler.set_timesteps(n)
    return scheduler


def tails(case: str, n: int) -> list[Plan]:
    scheduler = scheduler_for(case, n)
    rebuild = scheduler._rebuild
    return [tail(scheduler.plan, k, rebuild, scheduler.process) for k in range(n)]


@pytest.mark.parametrize("n", [11, 14, 19])
@pytest.mark.parametrize("case", CASES)
def test_the_calls_are_those_of_the_whole(case: str, n: int) -> None:
    whole, *late = tails(case, n)
    levels = [(row.time, row.alpha, row.sigma) for row in whole.evaluations]
    for k, plan in enumerate(late, 1):
        assert plan.nfe == n - k
        assert plan.end == whole.end
        own = [(row.time, row.alpha, row.sigma) for row in plan.evaluations]
        np.testing.assert_allclose(own, levels[k:], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("n", [11, 14, 19])
@pytest.mark.parametrize("case", CASES)
def test_a_point_mass_is_exact(case: str, n: int) -> None:
    """Mean alpha c and variance sigma^2 at every call and at the end."""
    for plan in tails(case, n):
        marks = np.array([(row.alpha, row.sigma) for row in plan.evaluations] + [plan.end])
        seen = torch.stack(states(plan, 0.7)).numpy()
        # Rounding: the noise form divides by sigma = 0.03 at the end.
        np.testing.assert_allclose(seen[:, -1], 0.7 * marks[:, 0], rtol=0, atol=1e-10)
        np.testing.assert_allclose((seen[:, :-1] ** 2).sum(1), marks[:, 1] ** 2, rtol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_the_network_is_called_there(case: str) -> None:
    """Through the scheduler: n - k calls from entry k, at its times, and to the end."""
    scheduler, x = scheduler_for(case, 11), torch.ones(1, 1, 2, 2)
    for k in (1, 4, 5, 6, 7, 10):
        scheduler.set_timesteps(11)
        scheduler.set_begin_index(k)
        generator = torch.Generator().manual_seed(0)
        for t in scheduler.timesteps[k:]:
            x = scheduler.step(torch.tanh(x), t, x, generator=generator, return_dict=False)[0]
        assert scheduler.step_index == 11
        assert x.isfinite().all()


def fine_solution(plan: Plan, x: torch.Tensor) -> torch.Tensor:
    """The ODE from the plan's first level to its end."""
    first = plan.evaluations[0]
    ratios = first.sigma / first.alpha, plan.end[1] / plan.end[0]
    grid = grid_from_rho(PROCESS, np.geomspace(*ratios, 120))
    return run_plan(make("unipc:order=4,lower_order_final=False", grid), Mixture1D(), x)


@pytest.mark.parametrize("n", [14, 19])
@pytest.mark.parametrize("case", CALM)
def test_no_late_start_in_mid_run_is_worse_than_ddim(case: str, n: int) -> None:
    """On the levels that are left, from the same sample; in the mean over the entries far better.

    What is left of an unfinished step is of first order.
    """
    ratios = []
    for plan in tails(case, n)[1 : n // 2]:
        first = plan.evaluations[0]
        x = first.alpha * STARTS / 2 + first.sigma * STARTS.flip(0)
        marks = [row.sigma / row.alpha for row in plan.evaluations] + [plan.end[1] / plan.end[0]]
        levels = [rho for i, rho in enumerate(marks) if i == 0 or rho < marks[i - 1] * (1 - 1e-9)]
        plain = make("ddim", grid_from_rho(PROCESS, np.array(levels)))
        exact = fine_solution(plan, x)
        own, other = ((run_plan(p, Mixture1D(), x) - exact).norm().item() for p in (plan, plain))
        ratios.append(own / other)
    assert max(ratios) < 1
    assert math.prod(ratios) ** (1 / len(ratios)) < 0.6


@pytest.mark.parametrize(
    ("case", "k"),
    [("unipc", 4), ("deis", 5), ("sa", 4), ("sa-ode", 6), ("sa-more", 5), ("euler-a", 3)],
)
def test_it_is_the_method_on_the_rest_of_the_grid(case: str, k: int) -> None:
    whole = scheduler_for(case, 11)
    rest = grid_from_rho(whole.process, whole.grid.rho[k:])
    alone = whole._build(rest, 11 - k)
    late = tail(whole.plan, k, whole._rebuild, whole.process)
    for a, b in zip(late.evaluations, alone.evaluations, strict=True):
        for own, other in zip(a.ops, b.ops, strict=True):
            numbers = [(op.c_x, op.c_b, op.nu, *op.w) for op in (own, other)]
            np.testing.assert_allclose(*numbers, rtol=1e-9)


@pytest.mark.parametrize("case", ["3s", "rho-4", "heun", "3s-sde"])
def test_a_start_between_steps_keeps_the_rest_as_it_is(case: str) -> None:
    """Rows of methods that look back at nothing are taken over unchanged."""
    scheduler = scheduler_for(case, 14)
    plans = tails(case, 14)
    kept = [k for k, plan in enumerate(plans)
            if plan.evaluations == scheduler.plan.evaluations[k:]]  # fmt: skip
    fresh = [k for k, row in enumerate(scheduler.plan.evaluations)
             if not any(op.c_b for op in row.ops)
             or any(op.reg == "base" and op.c_x for op in row.ops)]  # fmt: skip
    assert kept == fresh
    assert len(kept) >= 4


def test_a_whole_run_is_not_touched() -> None:
    for case in ("unipc", "sa", "3s"):
        scheduler = scheduler_for(case, 11)
        assert tails(case, 11)[0].evaluations == scheduler.plan.evaluations
        assert drive(scheduler, torch.ones(1, 1, 2, 2), 11).isfinite().all()


def test_a_call_that_does_nothing_is_told() -> None:
    scheduler = schedulers.Heun()
    for k in range(7):
        scheduler.set_timesteps(7)
        scheduler.set_begin_index(k)
        x = torch.ones(1, 1, 2, 2)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            scheduler.step(x, scheduler.timesteps[k], x)
        second = k % 2 == 1
        assert ["second call of a step" in str(w.message) for w in caught] == [True] * second
