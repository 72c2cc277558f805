"""Tables that were read: every entry is checked before it counts.

The checks of :class:`fewstep.samplers.core.plan.Plan` hold for any table; those here are of types
and names, and those of :mod:`fewstep.samplers.core.sense` follow. Every refusal names the place.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fewstep.json_values import as_list, as_number, as_object, as_text, as_whole, check_keys
from fewstep.samplers.core.ops import Evaluation, Op
from fewstep.samplers.core.sense import OWN_TIMES
from fewstep.schedules.limits import MAX_CALLS

SCHEMA = 1
NO_PLAN = "this file is not a fewstep plan: no 'kind': 'fewstep.plan'"
MAX_OPS = 64  # of an evaluation; solvers have up to five
ROW, ROW_IF_OLD = ("time", "alpha", "sigma", "ops", "form", "store"), ("stage",)
OP = ("reg", "c_x", "c_b", "w", "nu")
PLAN = ("schema", "kind", "evaluations", "end", "process", "name", "provenance")
NUMBERS, TEXTS = ("seconds", "calls"), ("prediction_type", "model", "guidance", "family", "version")
OBJECTS = ("error", "fixed", "seeds", "noises", "start", "objective")
Entries = tuple[
    tuple[Evaluation, ...], tuple[float, float], Mapping[str, Any], str, Mapping[str, Any]
]


def checked_entries(table: Any) -> Entries:
    """What :class:`fewstep.samplers.core.plan.Plan` takes, from a table that anybody may have made.

    Args:
        table: any value.

    Returns:
        Evaluations, end, process, name and provenance.

    Raises:
        ValueError: in one line with the place, for an entry that is not of its kind.
    """
    if not isinstance(table, Mapping) or table.get("kind") != "fewstep.plan":
        raise ValueError(NO_PLAN)
    schema = as_whole(table.get("schema"), "schema")
    if schema > SCHEMA:
        raise ValueError(f"plan of schema {schema}, this fewstep reads up to {SCHEMA}: update it")
    check_keys(table, "the plan", PLAN)
    rows = as_list(table["evaluations"], "evaluations", MAX_CALLS)
    old = not any(isinstance(row, Mapping) and "stage" in row for row in rows)
    process = as_object(table["process"], "process")
    as_text(process.get("process"), "process of process")
    for name, value in process.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            as_number(value, f"{name} of process")
    return (
        tuple(_row(row, f"evaluation {e}", old) for e, row in enumerate(rows)),
        _end(table["end"]),
        process,
        as_text(table["name"], "name"),
        _provenance(table["provenance"], len(rows)),
    )


def _row(row: Any, at: str, old: bool) -> Evaluation:
    check_keys(as_object(row, at), at, ROW if old else (*ROW, *ROW_IF_OLD))
    ops = as_list(row["ops"], f"ops of {at}", MAX_OPS)
    return Evaluation(
        as_number(row["time"], f"time of {at}"),
        as_number(row["alpha"], f"alpha of {at}"),
        as_number(row["sigma"], f"sigma of {at}"),
        tuple(_op(op, f"op {k} of {at}") for k, op in enumerate(ops)),
        row["form"], row["store"], 0 if old else as_whole(row["stage"], f"stage of {at}"),
    )  # fmt: skip


def _op(op: Any, at: str) -> Op:
    check_keys(as_object(op, at), at, OP)
    weights = as_list(op["w"], f"w of {at}", MAX_CALLS)
    found = Op(
        op["reg"],
        as_number(op["c_x"], f"c_x of {at}"),
        as_number(op["c_b"], f"c_b of {at}"),
        tuple(as_number(w, f"w[{j}] of {at}") for j, w in enumerate(weights)),
        as_number(op["nu"], f"nu of {at}"),
    )
    if found.nu < 0:
        raise ValueError(f"nu of {at}, the deviation of its noise, must be >= 0, got {found.nu}")
    return found


def _end(value: Any) -> tuple[float, float]:
    end = as_list(value, "end", 2)
    if len(end) != 2:
        raise ValueError(f"end must be [alpha, sigma] of the result, got {value!r}")
    return as_number(end[0], "alpha of end"), as_number(end[1], "sigma of end")


def _provenance(value: Any, rows: int) -> Mapping[str, Any]:
    """As it is; what has a meaning is checked."""
    found = as_object(value, "provenance")
    if "history" in found and not 0 <= as_whole(found["history"], "history of provenance") < rows:
        raise ValueError(
            f"history of provenance must be fewer rows than there are, got {found['history']} of "
            f"{rows}"
        )
    if "landing" in found and not as_number(found["landing"], "landing of provenance") > 0:
        raise ValueError(f"landing of provenance must be > 0, got {found['landing']}")
    if found.get("times", OWN_TIMES) != OWN_TIMES:
        raise ValueError(f"times of provenance must be {OWN_TIMES!r}, got {found['times']!r}")
    if "tuned" in found:
        tuned = as_object(found["tuned"], "tuned of provenance")
        checks: tuple[tuple[Sequence[str], Callable[[Any, str], Any]], ...] = (
            (NUMBERS, as_number), (TEXTS, as_text), (OBJECTS, as_object)
        )  # fmt: skip
        for names, check in checks:
            for name in names:
                if tuned.get(name) is not None:
                    check(tuned[name], f"{name} of tuned")
        errors = dict(tuned.get("error") or {})
        for solver, by_calls in (tuned.get("fixed") or {}).items():
            found_errors = as_object(by_calls, f"{solver} of fixed of tuned").items()
            errors |= {f"{calls} calls of {solver}": error for calls, error in found_errors}
        for name, error in errors.items():
            if error is not None:
                as_number(error, f"the error {name} of tuned")
    return found
