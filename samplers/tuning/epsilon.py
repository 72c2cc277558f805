r"""Epsilon Scaling: the predicted noise divided by a number near 1 (arXiv:2308.15321).

In sampling a network sees states that are not those it was trained on, and its noise predictions
grow longer than on noised data. The paper divides them,

    eps <- eps / b_i,    b_i = k i + b,

by b alone (its uniform schedule) or by a line, with i the step counted from the clean end, 0 at the
last. Of a data prediction D = (x - sigma eps) / alpha that is

    D <- D / b_i + (1 - 1 / b_i) x / alpha,

so it is one more op on the newest output, before those that read it. A longer or shorter eps also
moves the error of the discretisation: what b gains on an exact model is that, and not the bias.
"""

from dataclasses import replace

import numpy as np

from fewstep.samplers.core.ops import Evaluation, Op
from fewstep.samplers.core.plan import Plan
from fewstep.samplers.tuning.numeric import Numbers
from fewstep.schedules.process import Array

RANGE = 0.1  # of b_i in one step of the tuner; published ones lie between 0.998 and 1.05


def scale_epsilon(plan: Plan, k: float = 0.0, b: float = 1.0) -> Plan:
    """The plan with the noise of step i divided by k i + b.

    Calls without signal (alpha = 0), whose output holds no noise, and rows of history above a
    landing, which no network answers, stay as they are. The calls of one step share a divisor.

    Args:
        plan: any, with noise or without.
        k: by which b_i grows from a step to the one before.
        b: of the last step; 1 with k = 0 is the plan itself.

    Raises:
        ValueError: for divisors that are not positive and finite, or a plan that is scaled already.
    """
    rows = plan.evaluations
    divisors = k * steps_from_the_end(plan) + b
    if not ((divisors > 0) & np.isfinite(divisors)).all():
        raise ValueError(
            f"noise is divided by positive numbers, got {divisors.min():g} to {divisors.max():g} "
            f"from k = {k:g} and b = {b:g}: keep them near 0 and 1"
        )
    if "epsilon" in plan.provenance:
        raise ValueError(f"the noise of {plan.name!r} is scaled already: scale the plan it is of")
    if (divisors == 1).all():
        return plan
    made = [
        row if e < plan.history else _scaled(row, float(divisor))
        for e, (row, divisor) in enumerate(zip(rows, divisors, strict=True))
    ]
    provenance = {**plan.provenance, "epsilon": {"k": float(k), "b": float(b)}}
    return replace(plan, evaluations=tuple(made), provenance=provenance)


def steps_from_the_end(plan: Plan) -> Array:
    """(nfe,) for each call how many solver steps begin after its own."""
    begins = np.array([row.stage == 0 for row in plan.evaluations])
    return np.asarray(begins[::-1].cumsum()[::-1] - begins, dtype=float)


def epsilon_numbers(plan: Plan) -> Numbers:
    """k and b of a plan without noise; at one step b alone.

    Args:
        plan: what is scaled; the start, at k = 0 and b = 1, is the plan itself.
    """
    most = float(steps_from_the_end(plan).max())
    scale = np.array([RANGE / most, RANGE]) if most else np.array([RANGE])

    def scaled(vector: Array) -> Plan:
        k, b = (0.0, *vector)[-2:]
        return scale_epsilon(plan, float(k), float(b))

    return Numbers(np.array([0.0, 1.0])[-len(scale) :], scaled, scale)


def _scaled(row: Evaluation, divisor: float) -> Evaluation:
    if divisor == 1 or row.alpha == 0:
        return row
    c_x = 0.0 if row.form == "noise" else (1 - 1 / divisor) / row.alpha
    return replace(row, ops=(Op("H0", c_x=c_x, w=(1 / divisor,)), *row.ops))
