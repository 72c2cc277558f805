"""SA-Solver: its weights by quadrature, its noise, and the methods that it contains."""

import math

import numpy as np
import pytest
import torch
from helpers import Mixture1D, counted_draws, drive, make, run_plan
from linear_runs import weak_order

from fewstep.samplers import SAMPLERS, Op, Plan, build_plan
from fewstep.samplers.adapter import schedulers
from fewstep.samplers.solvers.multistep import predictor_corrector
from fewstep.schedules import VE, Flow, Grid, discrete_vp, make_grid

PROCESSES = {"vp": discrete_vp(), "ve": VE(), "flow": Flow()}
EVERYWHERE = "tau_min=0,tau_max=1e9"
LINE = torch.linspace(-2, 2, 17, dtype=torch.float64)


def corrected_steps(plan: Plan) -> list[tuple[int, Op, Op, Op]]:
    """(evaluation, corrector, base, predictor) of the evaluations that have all three."""
    return [(e, *row.ops) for e, row in enumerate(plan.evaluations) if len(row.ops) == 3]


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("p", [1, 2, 3])
def test_without_noise_it_is_unipc_bh1(p: int, process: str) -> None:
    grid = make_grid(PROCESSES[process], 9, "karras")
    a = make(f"sa:predictor_order={p},corrector_order={p + 1},tau=0", grid)
    b = make(f"unipc:order={p},solver_type=bh1", grid)
    assert [row.ops for row in a.evaluations] == [row.ops for row in b.evaluations]


@pytest.mark.parametrize("p", [1, 2, 3])
def test_without_noise_the_class_is_unipc(p: int) -> None:
    x = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    a = schedulers.SASolver(predictor_order=p, corrector_order=p + 1, tau=0.0)
    b = schedulers.UniPC(order=p, solver_type="bh1")
    assert torch.equal(drive(a, x, 9), drive(b, x, 9))


def test_two_outputs_each_without_noise() -> None:
    """(2, 2) corrects with the pair of UniPC-1 and predicts with that of UniPC-2."""
    grid = make_grid(PROCESSES["vp"], 9, "karras")
    both = make("sa:predictor_order=2,corrector_order=2,tau=0", grid).evaluations
    one = make("unipc:order=1,solver_type=bh1", grid).evaluations
    two = make("unipc:order=2,solver_type=bh1", grid).evaluations
    for e in range(1, 8):
        assert both[e].ops[0] == one[e].ops[0]
        assert both[e].ops[1:] == two[e].ops[1:]


def official_weights(grid: Grid, step: int, nodes: list[int], tau: float) -> list[float]:
    """(1 + tau^2) sigma_t e^(-tau^2 lam_t) int e^((1 + tau^2) lam) l_j(lam) dlam by quadrature.

    arXiv:2309.05019, eq. 15 and 18, in absolute lambda as the authors have it.
    """
    low, high = grid.lam[step], grid.lam[step + 1]
    points, measure = np.polynomial.legendre.leggauss(48)
    lam = (low + high) / 2 + (high - low) / 2 * points
    # e^(-tau^2 lam_t) taken inside, where nothing overflows.
    kernel = np.exp((1 + tau**2) * lam - tau**2 * high) * measure * (high - low) / 2
    weights = []
    for j in nodes:
        others = [grid.lam[i] for i in nodes if i != j]
        basis = np.prod([(lam - other) / (grid.lam[j] - other) for other in others], axis=0)
        weights.append((1 + tau**2) * grid.sigma[step + 1] * float(np.sum(kernel * basis)))
    return weights


@pytest.mark.parametrize("grid_name", ["karras", "linspace"])
@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 1.4])
@pytest.mark.parametrize(("predictor", "corrector"), [(1, 1), (2, 2), (3, 4), (4, 3)])
def test_weights_are_those_of_the_paper(
    predictor: int, corrector: int, tau: float, grid_name: str
) -> None:
    grid = make_grid(PROCESSES["vp"], 14, grid_name)
    plan = make(
        f"sa:predictor_order={predictor},corrector_order={corrector},tau={tau},mode=more_steps,"
        f"lower_order_final=False,{EVERYWHERE}",
        grid,
    )
    steps = [row for row in corrected_steps(plan) if row[0] >= 4]
    assert len(steps) == 8
    for e, correct, base, predict in steps:
        old = official_weights(grid, e - 1, [e - k for k in range(corrector)], tau)
        np.testing.assert_allclose(correct.w, old, rtol=1e-9)
        new = official_weights(grid, e, [e - k for k in range(predictor)], tau)
        np.testing.assert_allclose(predict.w, new, rtol=1e-9)
        h = grid.lam[e + 1] - grid.lam[e]
        decay = grid.sigma[e + 1] / grid.sigma[e] * math.exp(-(tau**2) * h)
        assert base.c_x == pytest.approx(decay, rel=1e-12)
        noise = grid.sigma[e + 1] * math.sqrt(1 - math.exp(-2 * tau**2 * h))
        assert base.nu == pytest.approx(noise, rel=1e-9)


@pytest.mark.parametrize("kind", ["midpoint", "heun"])
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_two_nodes_are_the_2m_sde_of_k_diffusion(eta: float, kind: str) -> None:
    """k-diffusion's ``sample_dpmpp_2m_sde``, whose eta is tau^2."""
    grid = make_grid(PROCESSES["ve"], 9, "karras", final="sigma_min")
    draw, x, old, h_last = counted_draws(), LINE * 80, None, 0.0
    for s, t in zip(grid.rho, grid.rho[1:], strict=False):
        denoised, h = Mixture1D()(x, 1.0, float(s)), math.log(s / t)
        k = h + eta * h
        x = t / s * math.exp(-eta * h) * x - math.expm1(-k) * denoised
        if old is not None:
            share = -math.expm1(-k) / 2 if kind == "midpoint" else math.expm1(-k) / k + 1
            x = x + share * h / h_last * (denoised - old)
        if eta:
            x = x + draw(x) * t * math.sqrt(-math.expm1(-2 * eta * h))
        old, h_last = denoised, h
    rule = "half-moment" if kind == "midpoint" else "exact"
    tau = math.sqrt(eta)
    own = predictor_corrector(grid, order=2, rule=rule, tau=tau, lower_order_final=False)
    options = f"order=2,solver_type={kind},lower_order_final=False"
    other = make(f"dpmpp:{options}", grid, tau=tau)
    assert own.evaluations == other.evaluations
    result = run_plan(own, Mixture1D(), LINE * 80, counted_draws())
    torch.testing.assert_close(result, x, rtol=0, atol=1e-10)


@pytest.mark.parametrize("tau", [0.6, 1.0, 1.4])
@pytest.mark.parametrize(
    ("predictor", "corrector", "calls"),
    [(1, 0, "pec"), (1, 2, "pec"), (2, 2, "pec"), (2, 3, "pec"), (3, 4, "pec"), (3, 4, "pece")],
)
def test_weak_order(predictor: int, corrector: int, calls: str, tau: float) -> None:
    """1 with one output, otherwise 2: the data prediction is not smooth along a noisy path.

    Pairs and triples come down faster at first.
    """
    slope = weak_order(
        f"sa:predictor_order={predictor},corrector_order={corrector},evaluate={calls},tau={tau},"
        f"{EVERYWHERE}", 72, 144,
    )  # fmt: skip
    order = 2 if predictor > 1 or corrector > 1 else 1
    assert order - 0.15 < slope < order + (1 if predictor == 2 else 0.15)


MODES = [(m, e) for m in ("few_steps", "more_steps") for e in ("pec", "pece")]


@pytest.mark.parametrize(("mode", "calls"), MODES)
def test_a_step_draws_once_and_the_last_not_at_all(mode: str, calls: str) -> None:
    grid = make_grid(PROCESSES["vp"], 9, "karras")
    options = {"mode": mode, "evaluate": calls, "tau_min": 0.0, "tau_max": 1e9}
    entry = SAMPLERS["sa"]
    nfe = entry.calls(grid, options)
    plan = entry.plan(grid, nfe, {"tau": 1.0, **options})
    assert nfe == 9 + {"pec": mode == "more_steps", "pece": 7 + (mode == "more_steps")}[calls]
    noisy = [op for row in plan.evaluations for op in row.ops if op.nu]
    assert len(noisy) == 8
    assert all(op.reg == "base" for op in noisy[:7])  # what predictor and corrector both add to
    assert not any(op.nu for op in plan.evaluations[-1].ops)
    calm = entry.plan(grid, nfe, {"tau": 0.0, **options})
    assert not any(op.nu for row in calm.evaluations for op in row.ops)


def test_the_window_is_of_targets() -> None:
    grid = make_grid(PROCESSES["ve"], 12, "karras")
    plan = make("sa:tau=1,tau_min=0.1,tau_max=5", grid)
    noisy = [any(op.nu for op in row.ops) for row in plan.evaluations]
    assert noisy == [0.1 <= rho <= 5 for rho in grid.rho[1:]]
    assert 3 < sum(noisy) < 9


def test_pece_stands_on_corrected_outputs() -> None:
    """The second call of a level is at the corrected sample, and its output takes the place."""
    plan = build_plan("sa:evaluate=pece,tau=0", PROCESSES["vp"], 12)
    rows = plan.evaluations
    pairs = [e for e in range(1, 12) if rows[e].store == "replace"]
    assert len(pairs) == 12 - len({row.sigma for row in rows}) == 5
    for e in pairs:
        assert rows[e].sigma == rows[e - 1].sigma
        (corrector,) = rows[e - 1].ops
        assert (corrector.reg, corrector.c_b, corrector.nu) == ("x", 1.0, 0.0)
        assert rows[e].ops[0].reg == "base" or rows[e + 1].sigma == rows[-1].sigma


@pytest.mark.parametrize("evaluate", ["pec", "pece"])
@pytest.mark.parametrize("mode", ["few_steps", "more_steps"])
def test_calls_on_one_grid(mode: str, evaluate: str) -> None:
    """Every number of calls from the steps of a grid to the most is walked; others are refused."""
    entry, options = SAMPLERS["sa"], {"mode": mode, "evaluate": evaluate}
    for steps in (1, 2, 3, 6):
        grid = make_grid(PROCESSES["flow"], steps, "karras")
        most = entry.calls(grid, options)
        for nfe in range(steps, most + 1):
            assert entry.plan(grid, nfe, options).nfe == nfe
        with pytest.raises(ValueError, match="use sa_steps"):
            entry.plan(grid, most + 1, options)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"mode": "many"}, "mode must be 'few_steps' or 'more_steps', got 'many'"),
     ({"evaluate": "pecece"}, "evaluate must be 'pec' or 'pece', got 'pecece'"),
     ({"predictor_order": 0}, "predictor_order >= 1"),
     ({"corrector_order": -1}, "corrector_order >= 0"),
     ({"tau": -0.1}, "tau must be a number from 0 to 100, got -0.1"),
     ({"tau": math.inf}, "tau must be a number from 0 to 100, got inf"),
     ({"tau_min": 2.0, "tau_max": 1.0}, "0 <= tau_min <= tau_max")],
)  # fmt: skip
def test_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        schedulers.SASolver(**options).set_timesteps(6)
