"""From a plan to the passes over memory that run it.

Two savings, both exact up to rounding. An output that no later evaluation reads is never stored:
its conversion is folded into the op that uses it. One that is stored is kept as
``output + (p / q) x`` in a single pass, and the weights that read it carry the factor q.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fewstep.samplers.core.ops import Evaluation, Op, history_entries
from fewstep.samplers.core.plan import Plan
from fewstep.schedules.prediction import Prediction

Key = str | int  # "x", "o" (the network's output), "base", or the number of a history entry
Terms = tuple[tuple[Key, Any], ...]


@dataclass(frozen=True)
class Action:
    """``dest <- sum coefficient * register + nu * noise``."""

    dest: Key
    terms: Terms
    nu: Any = 0.0


@dataclass(frozen=True)
class Step:
    """The actions of one evaluation.

    Attributes:
        convert: terms of the converted output that is stored as entry ``entry``; None if folded.
        actions: the ops.
        last: number of the action that makes the tensor that is returned.
        free: entries that nothing reads any more.
        base_pending: a later evaluation reads base as this one leaves it.
        rebuild: terms that give the returned x again from what stays in memory; None if impossible.
        data: (p, q) of the data prediction p x + q output, for previews.
    """

    entry: int
    convert: Terms | None
    actions: tuple[Action, ...]
    last: int
    free: tuple[int, ...]
    base_pending: bool
    rebuild: Terms | None
    data: tuple[Any, Any]


def compile_plan(
    plan: Plan,
    prediction: Prediction,
    *,
    rows: Sequence[Evaluation] | None = None,
    fold: bool = True,
) -> tuple[Step, ...]:
    """The program of a plan for one kind of network output.

    Args:
        plan: gives the structure: which numbers are zero, what is read when.
        prediction: what the output means.
        rows: the same table with tensors for numbers (see ``plan_tensors``); None for the plan's.
        fold: False keeps every converted output as it is (needed when it is thresholded, and when
            coefficients are tensors).

    Raises:
        ValueError: if the output cannot be converted at some level.
    """
    rows = plan.evaluations if rows is None else rows
    last_read = dict(plan.reads)
    scales: dict[int, Any] = {}
    steps = []
    for e, held in enumerate(history_entries(plan.evaluations)):
        row, entry = rows[e], held[0]
        p, q = prediction.coefficients(row.alpha, row.sigma, row.form)
        folded = fold and _can_fold(plan.evaluations[e], last_read[entry], e)
        scaled = fold and not folded and plan.evaluations[e].sigma > 0
        scales[entry] = q if scaled else 1.0
        convert = None if folded else _terms(("o", 1.0), ("x", p / q)) if scaled else (
            _terms(("x", p), ("o", q))
        )  # fmt: skip
        actions = []
        for op, shape in zip(row.ops, plan.evaluations[e].ops, strict=True):
            output = (entry, p, q) if folded else None
            actions.append(_action(op, shape, held, scales, output))
            if op.reg == "H0":
                scales[entry] = 1.0
        free = tuple(k for k in {*held} if last_read[k] <= e)
        pending = _base_pending(plan, e)
        last = max(i for i, action in enumerate(actions) if action.dest == "x")
        rebuild = _rebuild(actions, last, free) if pending else None
        data = prediction.coefficients(row.alpha, row.sigma, "data")
        steps.append(Step(entry, convert, tuple(actions), last, free, pending, rebuild, data))
    return tuple(steps)


def plan_tensors(plan: Plan, values: Any) -> tuple[Evaluation, ...]:
    """The plan's rows with the entries of a flat tensor for numbers.

    Args:
        plan: the structure.
        values: (k,) tensor, laid out as :func:`plan_values`; gradients flow to it.
    """
    numbers = iter(values.unbind())
    rows = []
    for row in plan.evaluations:
        time, alpha, sigma = next(numbers), next(numbers), next(numbers)
        ops = tuple(
            Op(
                op.reg,
                next(numbers),
                next(numbers),
                tuple(next(numbers) for _ in op.w),
                next(numbers),
            )
            for op in row.ops
        )
        rows.append(Evaluation(time, alpha, sigma, ops, row.form, row.store, row.stage))
    return tuple(rows)


def plan_values(plan: Plan) -> list[float]:
    """Every number of the table: time, alpha, sigma, then c_x, c_b, w and nu of each op."""
    numbers: list[float] = []
    for row in plan.evaluations:
        numbers += [row.time, row.alpha, row.sigma]
        for op in row.ops:
            numbers += [op.c_x, op.c_b, *op.w, op.nu]
    return numbers


def _terms(*terms: tuple[Key, Any]) -> Terms:
    """Without those that are zero; one with coefficient 1 first, which saves a pass."""
    kept = [(key, c) for key, c in terms if not (isinstance(c, float) and c == 0.0)]
    return tuple(sorted(kept, key=lambda term: not (isinstance(term[1], float) and term[1] == 1)))


def _can_fold(row: Evaluation, last_read: int, e: int) -> bool:
    """Whether the output is read here only, before x changes, and never rewritten."""
    changed = False
    for op in row.ops:
        if op.reg == "H0" or (changed and op.w and op.w[0]):
            return False
        changed = changed or op.reg == "x"
    return last_read <= e


def _action(
    op: Op,
    shape: Op,
    held: Sequence[int],
    scales: dict[int, Any],
    output: tuple[int, Any, Any] | None,
) -> Action:
    """Ops name history slots; actions name entries. ``shape`` tells which numbers are zero."""
    c_x = op.c_x
    terms: list[tuple[Key, Any]] = []
    for slot, (w, nonzero) in enumerate(zip(op.w, shape.w, strict=True)):
        if not nonzero:
            continue
        if output is not None and held[slot] == output[0]:
            c_x = c_x + w * output[1]
            terms.append(("o", w * output[2]))
        else:
            terms.append((held[slot], w * scales[held[slot]]))
    # Rounding of the fold: a flow's Euler step has exactly one unit of x.
    if isinstance(c_x, float) and abs(c_x - 1) < 1e-14:
        c_x = 1.0
    has_x = bool(shape.c_x) or output is not None
    base: list[tuple[Key, Any]] = [("base", op.c_b)] if shape.c_b else []
    first: list[tuple[Key, Any]] = [("x", c_x)] if has_x else []
    dest: Key = held[0] if op.reg == "H0" else op.reg
    return Action(dest, _terms(*first, *base, *terms), op.nu if shape.nu else 0.0)


def _base_pending(plan: Plan, e: int) -> bool:
    for row in plan.evaluations[e + 1 :]:
        for op in row.ops:
            if op.c_b:
                return True
            if op.reg == "base":
                return False
    return False


def _rebuild(actions: Sequence[Action], last: int, free: Sequence[int]) -> Terms | None:
    """The last op on x, if base and surviving entries are all it reads and stay as they were."""
    action = actions[last]
    gone = {"x", "o", *free}
    untouched = all(later.dest != "base" for later in actions[last + 1 :])
    if untouched and not action.nu and not any(key in gone for key, _ in action.terms):
        return action.terms
    return None
