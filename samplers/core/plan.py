"""A sampler as a table of numbers.

A plan is a straight-line linear program over a few registers. At each evaluation the network is
called at (time, alpha, sigma), its output is converted to data or noise and put onto the history H
(newest first), and then the ops run in order::

    reg <- c_x x + c_b base + sum_j w_j H[j] + nu noise,    reg in {x, base, H[0]}

``x`` is the sample that was evaluated until an op overwrites it; when the ops have run it is the
next sample to evaluate. Everything that a solver decides is in these numbers.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from fewstep.json_values import parse_json, read_bounded
from fewstep.samplers.core.ops import Evaluation, Op, Register, Store, history_entries
from fewstep.samplers.core.reading import NO_PLAN, SCHEMA, checked_entries
from fewstep.samplers.core.sense import check_sense
from fewstep.schedules.prediction import Form
from fewstep.writing import write_whole

CONFIG = "scheduler_config.json"  # of a folder with a plan


@dataclass(frozen=True)
class Plan:
    """A validated table.

    Attributes:
        evaluations: one entry per network call, after those of a history if there is one.
        end: (alpha, sigma) of the result.
        process: the identity of the noise process that the numbers belong to.
        name: the spec that made it.
        provenance: anything else worth keeping (JSON values).

    Raises:
        ValueError: if a number is not finite, a level is impossible, an op reads a register that
            does not hold what it expects, or a result is never written.
    """

    evaluations: tuple[Evaluation, ...]
    end: tuple[float, float]
    process: Mapping[str, Any]
    name: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _validate(self)

    @property
    def nfe(self) -> int:
        """Number of evaluations: of network calls, but for a history from a Gaussian."""
        return len(self.evaluations)

    @property
    def history(self) -> int:
        """First evaluations that a Gaussian answers (:mod:`fewstep.samplers.gaussian.warm`)."""
        return int(self.provenance.get("history", 0))

    @property
    def calls(self) -> int:
        """Number of network calls."""
        return self.nfe - self.history

    @property
    def draws(self) -> int:
        """Noises that a run adds."""
        return sum(bool(op.nu) for row in self.evaluations for op in row.ops)

    def sigmas(self, native: bool) -> list[float]:
        """sigma of every evaluation and of the end, or with native=False sigma / alpha."""
        marks = [(row.alpha, row.sigma) for row in self.evaluations] + [self.end]
        return [s if native else s / a if a else math.inf for a, s in marks]

    @cached_property
    def reads(self) -> tuple[tuple[int, int], ...]:
        """For each evaluation (its history entry, last evaluation that reads the entry or -1)."""
        last: dict[int, int] = {}
        entries = list(history_entries(self.evaluations))
        for e, held in enumerate(entries):
            for op in self.evaluations[e].ops:
                for j, w in enumerate(op.w):
                    if w:
                        last[held[j]] = e
        return tuple((held[0], last.get(held[0], -1)) for held in entries)

    def table(self) -> dict[str, Any]:
        """The plan as JSON values."""
        return {"schema": SCHEMA, "kind": "fewstep.plan", **asdict(self)}

    def to_json(self) -> str:
        """The table as JSON; ``Plan.from_json`` gives back every number bit for bit."""
        return json.dumps(self.table(), allow_nan=False, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """Reads what :meth:`to_json` wrote.

        Raises:
            ValueError: if the text is no plan, one of a newer schema, or one without sense.
        """
        return cls.from_table(parse_json(text, "this text"))

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> "Plan":
        """Reads what :meth:`table` gave, before or after JSON.

        Raises:
            ValueError: if it is no plan, one of a newer schema, or one without sense
                (:mod:`fewstep.samplers.core.reading`, :mod:`fewstep.samplers.core.sense`).
        """
        return read_plan(table)

    @classmethod
    def load(cls, path: str | Path) -> "Plan":
        """The one plan of a file or folder, see :func:`load_plans`."""
        return load_plan(path)

    def save(self, path: str | Path) -> None:
        """Writes the table as JSON, whole or not at all."""
        write_whole(path, self.to_json() + "\n")

    def renamed(self, name: str) -> "Plan":
        return replace(self, name=name)

    def __str__(self) -> str:
        lines = [f"{self.name or 'plan'}: {self.calls} calls"]
        for e, row in enumerate(self.evaluations):
            lines.append(
                f"e{e:<3} t={round(row.time, 6):<9.4g} alpha={row.alpha:<9.4g} "
                f"sigma={row.sigma:<9.4g} {row.form}, {row.store}"
                + (f", stage {row.stage}" if row.stage else "")
            )
            lines += [f"      {op}" for op in row.ops]
        return "\n".join([*lines, f"end  alpha={self.end[0]:.4g} sigma={self.end[1]:.4g}"])


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
        plan = Plan(*checked_entries(table))
        check_sense(plan)
    except ValueError as error:
        raise ValueError(f"{prefix}{error}") from error
    return plan


def load_plans(path: str | Path) -> tuple[Plan, ...]:
    """The plans of a file or folder, by their numbers of calls.

    Args:
        path: what ``Plan.save`` or :func:`fewstep.samplers.save_tuned` wrote, or any config of a
            :class:`fewstep.PlanScheduler`.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it holds none, or one that this version cannot read.
    """
    table = read_table(path)
    if table.get("kind") == "fewstep.plan":
        return (read_plan(table, str(path)),)
    held = table.get("plans")
    if not isinstance(held, list) or not held:
        raise ValueError(f"{path}: {NO_PLAN}, and no scheduler config with plans")
    return tuple(sorted(read_plans(held, str(path)), key=lambda plan: plan.calls))


def read_plans(tables: Sequence[Any], where: str) -> list[Plan]:
    """Plans of different numbers of calls.

    Raises:
        ValueError: for a table that is none, or two of as many calls.
    """
    plans = [read_plan(table, f"{where}, plans[{i}]") for i, table in enumerate(tables)]
    calls = [plan.calls for plan in plans]
    if twice := [n for i, n in enumerate(calls) if n in calls[:i]]:
        raise ValueError(f"{where} holds two plans of {twice[0]} calls: leave one out")
    return plans


def load_plan(path: str | Path, calls: int | None = None) -> Plan:
    """The plan of a file or folder that makes so many calls, or the only one.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if there is no such plan, or several and no number.
    """
    plans = load_plans(path)
    found = [plan for plan in plans if calls in (None, plan.calls)]
    if len(found) == 1:
        return found[0]
    numbers = ", ".join(str(plan.calls) for plan in plans)
    if calls is None:
        raise ValueError(f"{path} holds plans of {numbers} calls, say which by nfe")
    if len(plans) == 1:
        raise ValueError(
            f"{path}: the plan {plans[0].name!r} makes {numbers} calls, not {calls}: leave nfe "
            f"out, or make it {numbers}"
        )
    raise ValueError(f"{path} holds plans of {numbers} calls, not of {calls}")


def read_table(path: str | Path) -> dict[str, Any]:
    """The JSON object of a file, or of a folder's ``scheduler_config.json``.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it is no JSON object, or a file too large for one.
    """
    file = Path(path) / CONFIG if Path(path).is_dir() else Path(path)
    if not file.exists():
        missing = f"{CONFIG} in the folder {path}" if Path(path).is_dir() else f"plan at {path}"
        raise FileNotFoundError(
            f"no {missing}; `fewstep tune` and `fewstep plan SPEC --nfe N --save` write plans"
        )
    content = read_bounded(file)
    try:
        table = parse_json(content, str(file))
    except ValueError as error:
        raise ValueError(f"this file is not a fewstep plan: {error}") from error
    if not isinstance(table, dict):
        raise ValueError(f"{file}: {NO_PLAN}")
    return table


def _validate(plan: Plan) -> None:
    if not plan.evaluations:
        raise ValueError("a plan needs at least one evaluation")
    if not (min(plan.end) >= 0 and 0 < max(plan.end) < math.inf):
        raise ValueError(f"a plan ends at alpha >= 0 and sigma >= 0, not both 0, got {plan.end}")
    has_base = False
    read_from = history_entries(plan.evaluations)
    for e, (row, held) in enumerate(zip(plan.evaluations, read_from, strict=True)):
        if not (math.isfinite(row.time) and row.alpha >= 0 and 0 < row.sigma < math.inf):
            raise ValueError(
                f"evaluation {e} needs a finite time, alpha >= 0 and sigma > 0, got time "
                f"{row.time}, alpha {row.alpha}, sigma {row.sigma}"
            )
        if row.form not in get_args(Form) or row.store not in get_args(Store):
            raise ValueError(
                f"evaluation {e} needs a form of {', '.join(get_args(Form))} and a store of "
                f"{', '.join(get_args(Store))}, got {row.form!r} and {row.store!r}"
            )
        if row.stage < 0:
            raise ValueError(f"evaluation {e} needs a stage >= 0, got {row.stage}")
        if row.alpha == 0 and row.form == "noise":
            raise ValueError(f"evaluation {e} is at alpha = 0, where only the data form exists")
        for op in row.ops:
            _validate_op(plan, e, op, held, has_base)
            has_base = has_base or op.reg == "base"
        if not any(op.reg == "x" for op in row.ops):
            raise ValueError(f"evaluation {e} never writes x, the next sample")


def _validate_op(plan: Plan, e: int, op: Op, held: list[int], has_base: bool) -> None:
    if op.reg not in get_args(Register):
        raise ValueError(
            f"evaluation {e} writes a register {op.reg!r}; there are "
            f"{', '.join(get_args(Register))}"
        )
    if not all(map(math.isfinite, (op.c_x, op.c_b, op.nu, *op.w))):
        raise ValueError(f"evaluation {e} has a coefficient that is not finite: {op}")
    if op.c_b and not has_base:
        raise ValueError(f"evaluation {e} reads base before anything wrote it: {op}")
    if len(op.w) > len(held):
        raise ValueError(f"evaluation {e} reads {len(op.w)} outputs, history has {len(held)}")
    form = plan.evaluations[e].form
    if any(w and plan.evaluations[k].form != form for k, w in zip(held, op.w, strict=False)):
        raise ValueError(f"evaluation {e} mixes data and noise outputs: {op}")
