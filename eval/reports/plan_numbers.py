"""Where a plan calls the network, and what its steps take of the outputs, in numbers."""

import math
from typing import NamedTuple

import numpy as np

from fewstep.samplers.core.ops import apply_ops
from fewstep.samplers.core.plan import Plan
from fewstep.schedules.process import Array


class Node(NamedTuple):
    """A level of a plan: its name, the network's time, sigma / alpha."""

    name: str
    time: float
    rho: float


def nodes(plan: Plan) -> list[Node]:
    """Where a plan calls the network; levels of a history are -1, -2 and so on, upwards."""
    rho = plan.sigmas(native=False)
    return [Node(str(i - plan.history), row.time, rho[i]) for i, row in enumerate(plan.evaluations)]


def step_weights(plan: Plan) -> Array:
    """(n, h + n) weights of the data predictions, those of a history first, in each step.

    Step i of n is x' / alpha' = r x / alpha + (1 - r) sum_j w_ij D_j, with r the ratio of the two
    sigma / alpha. A step that is exact for constant data has weights that sum to 1.

    Raises:
        ValueError: for a plan that adds noise, or calls twice at a level.
    """
    if plan.draws:
        raise ValueError(f"the plan {plan.name!r} adds noise, so that its steps are no weights")
    count, rho = plan.nfe, plan.sigmas(native=False)
    marks = [(row.alpha, row.sigma) for row in plan.evaluations] + [plan.end]
    unit = np.eye(1 + count)
    x, base, held, made = unit[0], np.zeros(1 + count), list[Array](), np.zeros((count, count))
    for i, row in enumerate(plan.evaluations):
        before, output = x, unit[1 + i]
        if row.form == "noise":
            output = (x - row.alpha * output) / row.sigma
        held = [output, *(held if row.store == "push" else held[1:])]
        x, base, held = apply_ops(row.ops, x, base, held)
        if i < plan.history:
            continue
        r = 0.0 if math.isinf(rho[i]) else rho[i + 1] / rho[i]
        if r >= 1:
            raise ValueError(f"the plan {plan.name!r} calls twice at a level, or climbs")
        alpha, sigma = marks[i + 1]
        made[i] = ((x - sigma / row.sigma * before) / (alpha * (1 - r)))[1:]
    return made[plan.history :]
