"""A plan entered in the middle, as image-to-image pipelines do."""

from collections.abc import Callable
from dataclasses import replace

from fewstep.samplers.plan import Op, Plan
from fewstep.schedules.grids import Grid


def tail(plan: Plan, k: int, rebuild: Callable[[Grid], Plan], grid: Grid) -> Plan:
    """The plan that starts at evaluation ``k`` and makes the calls that are left.

    Where the rows from k on look back at nothing they are taken as they are. Multistep methods
    begin anew on the rest of the grid. The second call of a step is no place to start: it leaves
    the sample alone, and the next step begins from the same level.

    Args:
        plan: the whole.
        k: where to start, 0 <= k < plan.nfe.
        rebuild: the solver, for a method of one call a step.
        grid: of the whole plan.
    """
    if k == 0:
        return plan
    rows = plan.evaluations[k:]
    try:
        return replace(plan, evaluations=rows)
    except ValueError:  # a row reads what only an earlier one would have written
        if plan.nfe == grid.nfe:
            return rebuild(replace(grid, rho=grid.rho[k:], time=grid.time[k:]))
    idle = replace(rows[0], ops=(Op("x", c_x=1.0),))
    return replace(plan, evaluations=(idle, *rows[1:]))
