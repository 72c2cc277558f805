"""Plans that were read: every entry is checked before it counts.

The checks of :class:`fewstep.samplers.core.plan.Plan` hold for any table; those here are of types
and names, and those of :mod:`fewstep.samplers.files.plan_sense` follow. Every refusal names the
file and the place in it.
"""

from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

from fewstep.samplers.core.plan import NO_PLAN, SCHEMA, Evaluation, Op, Plan
from fewstep.samplers.files.plan_sense import (
    OWN_TIMES,
    check_landing,
    check_levels,
    check_noise,
    check_unknown_table,
)
from fewstep.schedules.identity import process_named
from fewstep.schedules.limits import MAX_CALLS

MAX_OPS = 64  # of an evaluation; solvers have up to five
LARGEST = 3.4e38  # of a coefficient, since samples may be float32
ROW, ROW_IF_OLD = ("time", "alpha", "sigma", "ops", "form", "store"), ("stage",)
OP = ("reg", "c_x", "c_b", "w", "nu")
PLAN = ("schema", "kind", "evaluations", "end", "process", "name", "provenance")
NUMBERS, TEXTS = ("seconds", "calls"), ("prediction_type", "model", "guidance", "family", "version")
OBJECTS = ("error", "fixed", "seeds", "noises", "start", "objective")


def read_plan(table: Any, where: str = "") -> Plan:
    """The plan of a table, as :meth:`Plan.table` gives it, before or after JSON.

    Args:
        table: any value.
        where: the file, for messages.

    Raises:
        ValueError: in one line with the place, if it is no plan, or one without sense.
    """
    prefix = f"{where}: " if where else ""
    try:
        return _plan(table)
    except ValueError as error:
        raise ValueError(f"{prefix}{error}") from error


def _plan(table: Any) -> Plan:
    if not isinstance(table, Mapping) or table.get("kind") != "fewstep.plan":
        raise ValueError(NO_PLAN)
    schema = _whole(table.get("schema"), "schema")
    if schema > SCHEMA:
        raise ValueError(f"plan of schema {schema}, this fewstep reads up to {SCHEMA}: update it")
    _keys(table, "the plan", PLAN)
    rows = _list(table["evaluations"], "evaluations", MAX_CALLS)
    old = not any(isinstance(row, Mapping) and "stage" in row for row in rows)
    process = _object(table["process"], "process")
    _text(process.get("process"), "process of process")
    for name, value in process.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            _number(value, f"{name} of process")
    plan = Plan(
        tuple(_row(row, f"evaluation {e}", old) for e, row in enumerate(rows)),
        _end(table["end"]),
        process,
        _text(table["name"], "name"),
        _provenance(table["provenance"], len(rows)),
    )
    check_landing(plan)
    known = process_named(plan.process)
    if known is not None:
        check_levels(plan, known)
    elif process["process"] == "vp-discrete":
        check_unknown_table(plan, process["times"])
    if plan.draws:
        check_noise(plan)
    return plan


def _row(row: Any, at: str, old: bool) -> Evaluation:
    _keys(_object(row, at), at, ROW if old else (*ROW, *ROW_IF_OLD))
    ops = _list(row["ops"], f"ops of {at}", MAX_OPS)
    return Evaluation(
        _number(row["time"], f"time of {at}"),
        _number(row["alpha"], f"alpha of {at}"),
        _number(row["sigma"], f"sigma of {at}"),
        tuple(_op(op, f"op {k} of {at}") for k, op in enumerate(ops)),
        row["form"], row["store"], 0 if old else _whole(row["stage"], f"stage of {at}"),
    )  # fmt: skip


def _op(op: Any, at: str) -> Op:
    _keys(_object(op, at), at, OP)
    weights = _list(op["w"], f"w of {at}", MAX_CALLS)
    found = Op(
        op["reg"],
        _number(op["c_x"], f"c_x of {at}"),
        _number(op["c_b"], f"c_b of {at}"),
        tuple(_number(w, f"w[{j}] of {at}") for j, w in enumerate(weights)),
        _number(op["nu"], f"nu of {at}"),
    )
    if found.nu < 0:
        raise ValueError(f"nu of {at}, the deviation of its noise, must be >= 0, got {found.nu}")
    return found


def _end(value: Any) -> tuple[float, float]:
    end = _list(value, "end", 2)
    if len(end) != 2:
        raise ValueError(f"end must be [alpha, sigma] of the result, got {value!r}")
    return _number(end[0], "alpha of end"), _number(end[1], "sigma of end")


def _provenance(value: Any, rows: int) -> Mapping[str, Any]:
    """As it is; what has a meaning is checked."""
    found = _object(value, "provenance")
    if "history" in found and not 0 <= _whole(found["history"], "history of provenance") < rows:
        raise ValueError(
            f"history of provenance must be fewer rows than there are, got {found['history']} of "
            f"{rows}"
        )
    if "landing" in found and not _number(found["landing"], "landing of provenance") > 0:
        raise ValueError(f"landing of provenance must be > 0, got {found['landing']}")
    if found.get("times", OWN_TIMES) != OWN_TIMES:
        raise ValueError(f"times of provenance must be {OWN_TIMES!r}, got {found['times']!r}")
    if "tuned" in found:
        tuned = _object(found["tuned"], "tuned of provenance")
        checks: tuple[tuple[Sequence[str], Callable[[Any, str], Any]], ...] = (
            (NUMBERS, _number), (TEXTS, _text), (OBJECTS, _object)
        )  # fmt: skip
        for names, check in checks:
            for name in names:
                if tuned.get(name) is not None:
                    check(tuned[name], f"{name} of tuned")
        errors = dict(tuned.get("error") or {})
        for solver, by_calls in (tuned.get("fixed") or {}).items():
            found_errors = _object(by_calls, f"{solver} of fixed of tuned").items()
            errors |= {f"{calls} calls of {solver}": error for calls, error in found_errors}
        for name, error in errors.items():
            if error is not None:
                _number(error, f"the error {name} of tuned")
    return found


def _keys(value: Mapping[str, Any], at: str, names: Sequence[str]) -> None:
    if unknown := [key for key in value if key not in names]:
        raise ValueError(f"{at} has an unknown entry {unknown[0]!r}; known: {', '.join(names)}")
    if missing := [name for name in names if name not in value]:
        raise ValueError(f"{at} lacks {missing[0]!r}")


def _object(value: Any, at: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{at} must be an object with names, got {_short(value)}")
    return value


def _list(value: Any, at: str, most: int) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{at} must be a list, got {_short(value)}")
    if len(value) > most:
        raise ValueError(f"{at} must have at most {most:,} entries, got {len(value):,}")
    return value


def _number(value: Any, at: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{at} must be a number, got {_short(value)}")
    number: Any = value  # whole ones may be beyond the range of floats
    if not -LARGEST <= number <= LARGEST:  # NaN, too
        raise ValueError(
            f"{at} is not finite in float32: it must lie within +-{LARGEST:g}, got {_short(value)}"
        )
    return float(value)


def _whole(value: Any, at: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0 or value > 2**31:
        raise ValueError(f"{at} must be a whole number >= 0, got {_short(value)}")
    return value


def _text(value: Any, at: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{at} must be a text, got {_short(value)}")
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}..."
