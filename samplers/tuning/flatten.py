"""Any deterministic plan as a tied table."""

import itertools
import math
from collections.abc import Sequence

import numpy as np

from fewstep.samplers.core.ops import apply_ops
from fewstep.samplers.core.plan import Plan
from fewstep.samplers.solvers.registry import check_process
from fewstep.samplers.tuning.tied import Tied
from fewstep.schedules.process import Array, NoiseProcess

TOLERANCE = 1e-8  # of weights, which are of order 1; rounding is 1e-16 over the least 1 - r


def flatten(plan: Plan, process: NoiseProcess) -> Tied:
    """The tied table that gives the samples of a plan, up to rounding.

    Without noise every register is a linear map of x_0 and the data predictions D_j: noise outputs
    are (x - alpha D) / sigma, correctors and bases are sums. So x_i = A_i x_0 + sum_j B_ij D_j. If
    constant data are solved exactly, then A_i = sigma_i / sigma_0 and the B of two nodes differ by
    weights that sum to alpha_{i+1} (1 - r): the tied form. Solvers that are exact for constant
    noise are, since a constant D has a constant noise.

    Args:
        plan: of one call at each level: multistep, with correctors or not, in either form, also
            singlestep ones, whose levels fall from stage to stage. Rows of history above a landing
            (:mod:`fewstep.samplers.gaussian.warm`), in data form, stay such.
        process: the noise process of the plan.

    Raises:
        ValueError: for a plan of another process, one that adds noise, calls twice at a level or
            climbs, tells the network another time than the level's, or is not exact for constant
            data.
    """
    check_process(plan, process)
    marks = [(row.alpha, row.sigma) for row in plan.evaluations] + [plan.end]
    rho = plan.sigmas(native=False)
    if any(b >= a for a, b in itertools.pairwise(rho)):
        raise ValueError(
            f"the plan {plan.name!r} calls twice at a level, or climbs: a tied table needs levels "
            "that fall from call to call, as of a multistep solver"
        )
    _check_times(plan, rho, process)
    first = plan.history
    if first and any(row.form == "noise" for row in plan.evaluations):
        raise ValueError(
            f"the plan {plan.name!r} looks back at noise above its landing, where a tied table has "
            "data predictions: use a solver in data form, as unipc or dpmpp"
        )
    states = _linear_maps(plan)
    c = np.zeros((plan.nfe - first, plan.nfe))
    for i in range(first, plan.nfe):
        r = 0.0 if math.isinf(rho[i]) else rho[i + 1] / rho[i]
        rest = states[i + 1] - marks[i + 1][1] / marks[i][1] * states[i]
        weights = rest / (marks[i + 1][0] * (1 - r))
        if abs(weights[0]) > TOLERANCE or abs(weights[1:].sum() - 1) > TOLERANCE:
            raise ValueError(
                f"step {i} of the plan {plan.name!r} is not exact for constant data (its weights "
                f"sum to {weights[1:].sum():.6g}): scaled outputs have no tied form"
            )
        c[i - first] = weights[1:]
    landed = "landing" in plan.provenance
    return Tied.from_matrix(process, rho[first:], c, rho[:first], landed)


def _check_times(plan: Plan, rho: Sequence[float], process: NoiseProcess) -> None:
    told = np.array([row.time for row in plan.evaluations])
    own = process.time(np.array(rho[:-1]))
    off = np.abs(told - own) > 1e-6 * max(1.0, float(np.abs(own).max()))
    if off.any():
        i = int(np.argmax(off))
        raise ValueError(
            f"evaluation {i} of the plan {plan.name!r} tells the network time {told[i]:g}, its "
            f"level has {own[i]:g}: a tied table has no times of its own"
        )


def _linear_maps(plan: Plan) -> list[Array]:
    """(1 + n,) coefficients of (x_0, D_0 .. D_{n-1}) in the state at every node and the end."""
    if plan.draws:
        raise ValueError(
            f"the plan {plan.name!r} adds noise, which no tied table does: use its deterministic "
            "form (eta=0, tau=0, churn=0)"
        )
    x = np.eye(1 + plan.nfe)[0]
    base = np.zeros_like(x)
    history: list[Array] = []
    states = [x]
    for e, row in enumerate(plan.evaluations):
        output = np.eye(1 + plan.nfe)[1 + e]
        if row.form == "noise":
            output = (x - row.alpha * output) / row.sigma
        history = [output, *(history if row.store == "push" else history[1:])]
        x, base, history = apply_ops(row.ops, x, base, history)
        states.append(x)
    return states
