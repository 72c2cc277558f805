"""What modifiers make of a guided prediction, against their formulas and against diffusers."""

import math

import pytest
import torch
from guidance_problems import F64, LEVEL, Images, Watched, draw, noise, ring
from torch import Tensor

from fewstep.guidance import (
    CFG,
    GFCG,
    CFGpp,
    DynamicThreshold,
    Every,
    Interval,
    Project,
    Rescale,
    ScaleSchedule,
    ZeroStar,
    guide,
)
from fewstep.guidance.modifiers.shaping import from_space, to_space
from fewstep.guidance.sizes import inner
from fewstep.models.ode import level_at
from fewstep.samplers import build_plan, sample
from fewstep.samplers.core.run import levels
from fewstep.schedules import VE, ContinuousVP, Flow
from fewstep.types import Level

MODEL, X, LABELS = Images(), noise(5, 3, 4, 4), torch.arange(5)
C, U = MODEL(X, LEVEL, LABELS), MODEL(X, LEVEL)
TIGHT = {"rtol": 1e-12, "atol": 1e-12}
FLOW = Images(Flow())
AT = level_at(Flow(), 1.5)


def dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1)[:, None, None, None]


@pytest.mark.parametrize("process", [ContinuousVP(), VE(), Flow()])
@pytest.mark.parametrize("lam", [0.3, 1.0])
def test_cfgpp_is_ddim_that_adds_back_the_unconditional_noise(process, lam: float) -> None:
    model, start, cond = ring(process=process), noise(8, 2), torch.arange(8)
    spec = "ddim:grid=logsnr" if not isinstance(process, Flow) else "ddim:grid=linspace"
    got = draw(model, spec, 12, 8, noise=start, shape=None, cond=cond, guidance=CFG(2) | CFGpp(lam))
    plan = build_plan(spec, process, 12)
    x = start * (plan.evaluations[0].sigma if plan.evaluations[0].alpha == 1 else 1)
    for level in levels(plan):
        eps = [(x - level.alpha * model(x, level, k)) / level.sigma for k in (cond, None)]
        mixed = eps[1] + lam * (eps[0] - eps[1])
        if level.alpha:
            x0 = (x - level.sigma * mixed) / level.alpha
        else:  # without signal it is taken from the data predictions
            x0 = model(x, level).lerp(model(x, level, cond), lam)
        x = level.next_alpha * x0 + level.next_sigma * eps[1]
    torch.testing.assert_close(got, x, **TIGHT)


def test_projection_at_eta_one_is_cfg_and_at_zero_is_orthogonal() -> None:
    guided = {eta: guide(MODEL, CFG(4) | Project(eta))(X, LEVEL, LABELS) for eta in (0.0, 0.5, 1.0)}
    torch.testing.assert_close(guided[1.0], U + 4 * (C - U), **TIGHT)
    torch.testing.assert_close(inner(guided[0.0] - C, C), torch.zeros(5, dtype=F64), **TIGHT)
    parallel = 3 * dot(C - U, C) / dot(C, C) * C
    torch.testing.assert_close(guided[0.5], guided[1.0] - 0.5 * parallel, **TIGHT)


@pytest.mark.parametrize("eta", [0.0, 0.3])
def test_projection_and_the_guider_of_diffusers(eta: float) -> None:
    """The same where its scale is w - 1 and its flag "original"; else a multiple of c apart."""
    apg = pytest.importorskip("diffusers.guiders.adaptive_projected_guidance")
    options = {"eta": eta, "norm_threshold": 0.7}
    ours = guide(MODEL, CFG(4) | Project(eta, r=0.7))(X, LEVEL, LABELS)
    original = apg.normalized_guidance(C, U, 3.0, use_original_formulation=True, **options)
    torch.testing.assert_close(ours, original, **TIGHT)
    options["norm_threshold"] = 0.0
    ours = guide(MODEL, CFG(4) | Project(eta))(X, LEVEL, LABELS)
    default = apg.normalized_guidance(C, U, 4.0, **options)
    parallel = dot(C - U, C) / dot(C, C) * C
    torch.testing.assert_close(ours - default, (1 - eta) * parallel, **TIGHT)


def test_momentum_is_the_recursion_of_the_paper() -> None:
    guided = guide(MODEL, CFG(4) | Project(1.0, r=3.0, beta=-0.5))
    mean = torch.zeros_like(X)
    for step in range(4):
        at = Level(0.4, 0.6, 0.8 - 0.1 * step, step, step=step)
        x = X + step
        c, u = MODEL(x, at, LABELS), MODEL(x, at)
        mean = (c - u) - 0.5 * mean
        clipped = mean * (3.0 / dot(mean, mean).sqrt()).clamp(max=1)
        torch.testing.assert_close(guided(x, at, LABELS), c + 3 * clipped, **TIGHT)


def test_momentum_counts_solver_steps_and_starts_anew_with_a_run() -> None:
    guided = guide(MODEL, CFG(4) | Project(1.0, beta=0.5))
    delta = {}
    for index, step in enumerate((0, 0, 1, 1)):
        at = Level(0.4, 0.6, 0.8 - 0.1 * index, index, step=step)
        c, u = MODEL(X, at, LABELS), MODEL(X, at)
        delta[index] = c - u
        # Both calls of a step add half of what the last call of the step before came to.
        expected = delta[index] + (0.5 * delta[1] if step else 0)
        torch.testing.assert_close(guided(X, at, LABELS), c + 3 * expected, **TIGHT)
    again = guided(X, Level(0.4, 0.6, 0.8), LABELS)
    torch.testing.assert_close(again, U + 4 * (C - U), **TIGHT)


@pytest.mark.parametrize("space", ["noise", "velocity", "data"])
def test_rescaling_restores_the_deviation_of_the_unguided_prediction(space) -> None:
    got = guide(FLOW, CFG(5) | Rescale(1.0, space))(X, AT, LABELS)
    c = FLOW(X, AT, LABELS)
    plain, scaled = (to_space(value, X, AT, space) for value in (c, got))
    torch.testing.assert_close(scaled.flatten(1).std(1), plain.flatten(1).std(1), **TIGHT)
    cfg = guide(FLOW, CFG(5))(X, AT, LABELS)
    torch.testing.assert_close(guide(FLOW, CFG(5) | Rescale(0.0, space))(X, AT, LABELS), cfg)
    blend = to_space(guide(FLOW, CFG(5) | Rescale(0.7, space))(X, AT, LABELS), X, AT, space)
    full = to_space(cfg, X, AT, space)
    torch.testing.assert_close(blend, 0.7 * scaled + 0.3 * full, **TIGHT)
    back = from_space(to_space(c, X, AT, space), X, AT, space)
    torch.testing.assert_close(back, c, **TIGHT)


def test_zero_star_is_its_formula_in_velocity() -> None:
    got = guide(FLOW, CFG(5) | ZeroStar(0))(X, AT, LABELS)
    vc, vu, v = ((X - x0) / AT.sigma for x0 in (FLOW(X, AT, LABELS), FLOW(X, AT), got))
    a = dot(vc, vu) / dot(vu, vu)
    torch.testing.assert_close(v, a * vu + 5 * (vc - a * vu), **TIGHT)


@pytest.mark.parametrize("steps", [1, 3])
def test_zero_star_stands_still_at_first(steps: int) -> None:
    seen = []
    sample(
        FLOW, "euler:grid=linspace", 8, noise=X, cond=LABELS,
        guidance=CFG(5) | ZeroStar(steps), callback=lambda index, x: seen.append(x.clone()),
    )  # fmt: skip
    for x in seen[:steps]:
        torch.testing.assert_close(x, X, **TIGHT)
    assert (seen[steps] - X).abs().max() > 1e-3


def test_zero_star_warns_of_solvers_that_remember_standing_still() -> None:
    with pytest.warns(UserWarning, match=r"reads 2 outputs.*ZeroStar\(0\)"):
        sample(FLOW, "dpmpp", 6, noise=X, cond=LABELS, guidance=CFG(5) | ZeroStar())


def test_dynamic_thresholding_is_its_formula_and_comes_last() -> None:
    x = 4 * X
    cut = CFG(9) | DynamicThreshold(0.9) | Project(0.5)
    assert str(cut) == str(CFG(9) | Project(0.5) | DynamicThreshold(0.9))
    got = guide(MODEL, cut)(x, LEVEL, LABELS)
    plain = guide(MODEL, CFG(9) | Project(0.5))(x, LEVEL, LABELS)
    s = plain.flatten(1).abs().quantile(0.9, dim=1).clamp_min(1)[:, None, None, None]
    assert s.max() > 1.2
    torch.testing.assert_close(got, plain.clamp(-s, s) / s, **TIGHT)
    within = guide(MODEL, (CFG(1.001) + GFCG(lambda x: x.flatten(1)[:, :8])) | DynamicThreshold(1))
    assert within(x, LEVEL, LABELS).abs().max() <= 1


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_schedules_rise_and_keep_the_mean_strength(name: str) -> None:
    process, strengths = ContinuousVP(), []
    for u in torch.linspace(0, 1, 201).tolist():
        start, end = 1.0, process.t_min
        time = start + u * (end - start)
        alpha, sigma = (float(value) for value in process.alpha_sigma(time))
        at = Level(time, alpha, sigma)
        c, u0 = MODEL(X, at, LABELS), MODEL(X, at)
        got = guide(MODEL, CFG(3) | ScaleSchedule(name))(X, at, LABELS)
        strengths.append(float(dot(got - c, c - u0)[0] / dot(c - u0, c - u0)[0]))
    assert sum(strengths) / 201 == pytest.approx(2.0, rel=0.01)
    assert strengths == sorted(strengths)
    assert strengths[0] == pytest.approx(0, abs=1e-9)


def test_a_schedule_may_be_a_function_of_progress() -> None:
    got = guide(MODEL, CFG(3) | ScaleSchedule(lambda u: 0.25))(X, LEVEL, LABELS)
    torch.testing.assert_close(got, C + 0.5 * (C - U), **TIGHT)


def test_interval_and_every_go_by_solver_steps() -> None:
    for part in (Every(3), Interval(0.28, 2.9)):
        watched = Watched(ring())
        draw(watched, "heun:grid=karras", 12, 8, cond=torch.arange(8), guidance=CFG(2) | part)
        guided = [rows == 16 for rows in watched.rows]
        for on, level in zip(guided, watched.levels, strict=True):
            inside = 0.28 * (1 + 1e-6) < level.gate_rho <= 2.9 * (1 + 1e-6)
            assert on == (inside if isinstance(part, Interval) else level.step % 3 == 0)
        assert any(guided)
        assert not all(guided)


def test_interval_is_open_below_and_closed_above() -> None:
    part = Interval(0.5, 2.0)
    assert [part.holds(rho) for rho in (0.5, 0.51, 2.0, 2.01, math.inf)] == [0, 1, 1, 0, 0]
    assert Interval(1.0, math.inf).holds(math.inf)
    assert part.edges() == (0.5, 2.0)
    assert ((CFG(2) | Interval(0, 3)) | Interval(1, 2)).breakpoints() == (3, 2, 1)
