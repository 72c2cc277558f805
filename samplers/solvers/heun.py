"""Methods of two calls a step in the noise form: Heun, and EDM's sampler with churn."""

import math
from dataclasses import replace

from fewstep.samplers.core.ops import Evaluation, Op
from fewstep.samplers.core.plan import Plan
from fewstep.samplers.solvers.multistep import check_noise_scale, climb, finish
from fewstep.schedules.grids import Grid
from fewstep.schedules.prediction import Form


def heun_intervals(nfe: int, without_signal: bool, ends_at_zero: bool, **options: float) -> int:
    """Steps that nfe calls pay for: two each, one where only first order exists.

    That is the step to sigma = 0 and one that starts without signal; an odd call left over makes
    one more step of first order at the end (at the start it would cost far more accuracy).
    """
    return min(nfe, math.ceil((nfe + without_signal + ends_at_zero) / 2))


def heun(grid: Grid, *, nfe: int | None = None) -> Plan:
    """Heun's method in rho = sigma / alpha, EDM's deterministic sampler (arXiv:2206.00364, alg. 1).

    Args:
        grid: one node per step.
        nfe: network calls to spend on the steps; the 2 steps - nfe that get one call are the first
            if it starts without signal and then the last ones. None means as many as can be.

    Raises:
        ValueError: if the grid cannot be walked with nfe calls.
    """
    return edm_stochastic(grid, nfe=nfe, churn=0.0).renamed("heun")


def edm_stochastic(
    grid: Grid,
    *,
    nfe: int | None = None,
    churn: float = 40.0,
    churn_min: float = 0.05,
    churn_max: float = 50.0,
    noise_scale: float = 1.003,
) -> Plan:
    """EDM's stochastic sampler (arXiv:2206.00364, algorithm 2), in y = x / alpha for any process.

    Before a step from ratio rho in [churn_min, churn_max] the noise level is raised to
    rho (1 + gamma), gamma = min(churn / steps, sqrt(2) - 1), and the network is called *there*. The
    noise is therefore added at the end of the step before; a first step that churns starts from the
    raised level. Noise lifts no sample across a break of the grid.

    Args:
        grid: one node per step.
        nfe: network calls, see :func:`heun`.
        churn, churn_min, churn_max, noise_scale: S_churn, S_min, S_max and S_noise of the paper;
            the defaults are its ImageNet-64 setting.

    Raises:
        ValueError: if the grid cannot be walked with nfe calls, or for a value outside its range.
    """
    if not 0 <= churn < math.inf:
        raise ValueError(f"churn must be a finite number >= 0, got {churn}")
    if not 0 <= churn_min <= churn_max:
        raise ValueError(
            f"the window of churn needs 0 <= churn_min <= churn_max (in sigma / alpha), got "
            f"{churn_min}, {churn_max}"
        )
    check_noise_scale(noise_scale)
    steps = grid.nfe
    gamma = min(churn / steps, math.sqrt(2) - 1)
    edges = [float(grid.rho[b]) for b in grid.breaks]
    raised = [
        min(
            rho * (1 + gamma if churn_min <= rho <= churn_max else 1.0),
            *(edge for edge in [math.inf, *edges] if edge >= rho),
        )
        for rho in map(float, grid.rho[:-1])
    ] + [float(grid.rho[-1])]
    rows: list[Evaluation] = []
    for i, calls in enumerate(_calls(grid, nfe)):
        step = _step(grid, raised[i], float(grid.rho[i + 1]), calls)
        up = raised[i + 1] - float(grid.rho[i + 1])
        if up > 0:
            step[-1] = _with_churn(grid, step[-1], i + 1, raised[i + 1], noise_scale)
        rows += step
    return finish(grid, rows, f"edm:churn={churn:g}")


def _calls(grid: Grid, nfe: int | None) -> list[int]:
    """1 or 2 for each step."""
    steps = grid.nfe
    start, end = int(grid.alpha[0] == 0), int(grid.rho[-1] == 0)
    nfe = 2 * steps - min(start + end, steps) if nfe is None else nfe
    single = 2 * steps - nfe
    if not min(start + end, steps) <= single <= steps:
        raise ValueError(
            f"a grid of {steps} steps takes {steps} to {2 * steps - start - end} calls of Heun's "
            f"method, not {nfe}: use heun_intervals(nfe, ...) steps"
        )
    first = min(start, single)
    return [1] * first + [2] * (steps - single) + [1] * (single - first)


def _step(grid: Grid, rho_s: float, rho_t: float, calls: int) -> list[Evaluation]:
    """The evaluations of one step from ratio rho_s to rho_t."""
    (alpha_s, sigma_s), (alpha_t, sigma_t) = _level(grid, rho_s), _level(grid, rho_t)
    time_s, time_t = (float(grid.process.time(rho)) for rho in (rho_s, rho_t))
    if alpha_s == 0:
        op = Op("x", c_x=sigma_t / sigma_s, w=(alpha_t,))
        return [Evaluation(time_s, alpha_s, sigma_s, (op,), form="data")]
    form: Form = "noise"
    keep, move = alpha_t / alpha_s, alpha_t * (rho_t - rho_s)
    euler = Op("x", c_x=keep, w=(move,))
    stage = Op("x", c_b=keep, w=(move,))  # from base, so that an edited sample can be told
    if calls == 1:
        return [Evaluation(time_s, alpha_s, sigma_s, (euler,), form)]
    trapezoid = Op("x", c_b=keep, w=(move / 2, move / 2))
    return [
        Evaluation(time_s, alpha_s, sigma_s, (Op("base", c_x=1.0), stage), form),
        Evaluation(time_t, alpha_t, sigma_t, (trapezoid,), form, stage=1),
    ]


def _with_churn(grid: Grid, row: Evaluation, node: int, rho: float, scale: float) -> Evaluation:
    """The same evaluation, its result raised from node ``node`` to ratio ``rho`` by fresh noise."""
    low = float(grid.alpha[node]), float(grid.rho[node])
    up = climb(low, (_level(grid, rho)[0], rho), scale)
    return replace(row, ops=(*row.ops, up))


def _level(grid: Grid, rho: float) -> tuple[float, float]:
    alpha, sigma = grid.process.from_rho(rho)
    return float(alpha), float(sigma)
