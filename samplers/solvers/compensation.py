r"""DC-Solver: the newest output of a multistep solver, moved along the path of the last ones.

Before the prediction from node i, the output m_i is replaced by the value at another time of the
polynomial through the last K + 1 outputs (arXiv:2409.03755, eq. 9 and 10),

    m^_i = sum_k L_k(t'_i) m_{i-k},    t'_i = ratio_i t_i + (1 - ratio_i) t_{i-1},

with L_k the Lagrange basis on the network times t_i .. t_{i-K}. It costs no call. A ratio of 1
changes nothing, 0 would use the previous output again, and more than 1 looks ahead. Since
sum_k L_k = 1, constant data stay exact whatever the ratios.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fewstep.json_values import parse_json, read_bounded
from fewstep.samplers.core.ops import Evaluation, Op
from fewstep.samplers.core.plan import Plan
from fewstep.samplers.solvers.cascade import CascadePolynomial
from fewstep.samplers.solvers.effects import warn_of_plan
from fewstep.samplers.solvers.ratios import Compensation, check_ratios
from fewstep.samplers.solvers.spec import SAMPLERS, Spec, parse_spec
from fewstep.schedules.grids import Grid

DEGREE = 2  # K: arXiv:2409.03755, table 6: better than 1 and 3


def compensate(plan: Plan, ratios: Sequence[float], breaks: Collection[int] = frozenset()) -> Plan:
    """The plan with its outputs compensated.

    The replacement stays in the history under the time of the output it replaces: the prediction
    that follows and the correction of the same step use it. The correction before it reads the
    output as it was. Node 1 has two outputs to go through, later ones three; outputs of the other
    form (a first one without signal, in a noise-form plan) are left out.

    Args:
        plan: of one call a step.
        ratios: ``plan.nfe`` of them; the first must be 1, since there is no second output yet.
        breaks: calls across which nothing looks back, as of the grid; the ratio of such a call
            changes nothing, for the same reason.

    Returns:
        A plan of the same calls; where all ratios are 1, the same rows.

    Raises:
        ValueError: for ratios of another number, that are not finite or do not begin with 1, for a
            plan with two calls at a level, or one that is compensated already.
    """
    check_ratios(ratios, plan.nfe)
    rows = plan.evaluations
    if any(row.store == "replace" or any(op.reg == "H0" for op in row.ops) for row in rows):
        raise ValueError(
            f"the plan {plan.name!r} rewrites its outputs; compensation needs a multistep plan "
            "that calls the network once a step and is not compensated yet"
        )
    made = []
    for i, (row, ratio) in enumerate(zip(rows, ratios, strict=True)):
        since = max([0, i - DEGREE, *(b for b in breaks if b <= i)])
        weights = _weights(rows[since : i + 1][::-1], float(ratio))
        at = corrector_ops(row)
        moved = (Op("H0", w=weights),) if weights else ()
        made.append(replace(row, ops=(*row.ops[:at], *moved, *row.ops[at:])))
    return replace(plan, evaluations=tuple(made))


def corrector_ops(row: Evaluation) -> int:
    """How many ops of a row belong to the corrector, which comes before the predictor."""
    writes = [k for k, op in enumerate(row.ops) if op.reg == "x"]
    return writes[-2] + 1 if len(writes) > 1 else 0


def _weights(rows: Sequence[Evaluation], ratio: float) -> tuple[float, ...]:
    """L_k(t') on the times of ``rows``, newest first; nothing if there is nothing to move."""
    times = [row.time for row in rows if row.form == rows[0].form]
    if ratio == 1 or len(times) < 2:
        return ()
    if len(set(times)) < len(times):
        raise ValueError(
            f"compensation interpolates in the network time, and the calls before {times[0]:g} "
            "have equal ones: use levels within the trained range, or ratio 1 there"
        )
    target = ratio * times[0] + (1 - ratio) * times[1]
    return tuple(
        math.prod((target - other) / (time - other) for other in times if other != time)
        for time in times
    )


def dc(
    grid: Grid,
    *,
    multistep: str = "unipc",
    compensation: str | Sequence[float] | Mapping[str, Any] = "none",
    guidance_scale: float = 1.0,
) -> Plan:
    """DC-Solver (arXiv:2409.03755, algorithm 1): a multistep solver with compensated outputs.

    Args:
        grid: noise levels.
        multistep: spec of the solver that is compensated, without grid options; one call a step.
        compensation: the ratios. ``"none"``; a list with one for each call; a dict of such lists by
            number of calls, ``{"5": [...], "8": [...]}``; what ``Compensation.table()`` or
            ``CascadePolynomial.table()`` gave; or the path of a JSON file with one of these.
        guidance_scale: where ratios depend on it, i.e. with a cascade polynomial.

    Raises:
        ValueError: if there are no ratios for this number of calls, they are malformed, or the
            solver is none of one call a step.
        FileNotFoundError: if a file of ratios is not there.
    """
    plan = multistep_plan(grid, multistep)
    found = find_ratios(compensation, plan.nfe, guidance_scale)
    if isinstance(found, Compensation):
        if not found.made_for(plan, multistep):
            warn_of_plan(
                f"the ratios in use were fitted for {found.sampler!r} on other levels or with "
                f"another solver than {multistep!r} here: fit them anew for this one"
            )
        found = found.ratios
    made = plan if found is None else compensate(plan, found, grid.breaks)
    return made.renamed(f"dc:multistep={multistep}")


def multistep_plan(grid: Grid, solver: str) -> Plan:
    """The uncompensated plan of ``solver`` on a grid.

    Raises:
        ValueError: if the solver brings a grid of its own, or takes more calls than steps.
    """
    spec = solver_spec(solver)
    plan = spec.sampler.plan(grid, grid.nfe, spec.options)
    if any(row.store == "replace" for row in plan.evaluations) or plan.nfe != grid.nfe:
        raise ValueError(f"DC-Solver compensates solvers of one call a step, not {solver!r}")
    return plan


def solver_spec(solver: str) -> Spec:
    """The spec of a solver to compensate.

    Raises:
        ValueError: if it is no spec, has grid options, or is no multistep solver.
    """
    spec = parse_spec(solver)
    if spec.grid:
        raise ValueError(
            f"multistep={solver!r} has grid options; give them to dc itself, as in "
            "dc:multistep=unipc,grid=karras"
        )
    multistep = [name for name, entry in SAMPLERS.items() if entry.steps is None and name != "dc"]
    if spec.name not in (*multistep, "sa"):
        raise ValueError(
            f"DC-Solver compensates multistep solvers ({', '.join(multistep)}, sa), not "
            f"{spec.name!r}"
        )
    return spec


def find_ratios(
    value: Any, nfe: int, guidance_scale: float
) -> Compensation | Sequence[float] | None:
    """The ratios for ``nfe`` calls in what :func:`dc` accepts.

    Returns:
        A search's result, a list, or None where there is nothing to compensate.

    Raises:
        ValueError: if it holds none for this number of calls, or is malformed.
        FileNotFoundError: if a file is not there.
    """
    if value is None or value == "none" or nfe == 1:
        return None
    if isinstance(value, str | Path):
        if not Path(value).is_file():
            raise FileNotFoundError(
                f"no ratios at {value}; write 'none', a list, or the path of a file that "
                "Compensation.save wrote"
            )
        value = parse_json(read_bounded(Path(value)), str(value))
    if not isinstance(value, Mapping):
        return _checked(value, nfe)
    if value.get("kind") == CascadePolynomial.kind:
        return CascadePolynomial.from_table(value).ratios(nfe, guidance_scale)
    if "kind" in value:
        search = Compensation.from_table(value)
        check_ratios(search.ratios, nfe)
        return search
    if str(nfe) not in value:
        raise ValueError(
            f"no ratios for {nfe} calls, only for {', '.join(map(str, value)) or 'none'}: use one "
            "of these, or fit_compensation(denoiser, noises, nfe)"
        )
    return _checked(value[str(nfe)], nfe)


def _checked(ratios: Any, nfe: int) -> Sequence[float]:
    if not isinstance(ratios, Sequence):
        raise ValueError(f"ratios are a list of numbers, got {ratios!r}")
    check_ratios(ratios, nfe)
    return ratios
