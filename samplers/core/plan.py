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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from fewstep.schedules.process import Array
from fewstep.writing import write_whole

SCHEMA = 1
NO_PLAN = "this file is not a fewstep plan: no 'kind': 'fewstep.plan'"
Register = Literal["x", "base", "H0"]
Form = Literal["data", "noise"]
Store = Literal["push", "replace"]


@dataclass(frozen=True, slots=True)
class Op:
    """``reg <- c_x x + c_b base + sum_j w[j] H[j] + nu noise``."""

    reg: Register
    c_x: float = 0.0
    c_b: float = 0.0
    w: tuple[float, ...] = ()
    nu: float = 0.0

    def __str__(self) -> str:
        terms = [f"{self.c_x:.6g} x"] if self.c_x else []
        terms += [f"{self.c_b:.6g} base"] if self.c_b else []
        terms += [f"{w:.6g} H[{j}]" for j, w in enumerate(self.w) if w]
        terms += [f"{self.nu:.6g} noise"] if self.nu else []
        total = (" + ".join(terms) or "0").replace("+ -", "- ")
        return f"{self.reg.replace('H0', 'H[0]')} <- {total}"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One network call and what is done with its output.

    ``stage`` 0 begins a solver step; later calls of the same step count up. It changes no number.
    """

    time: float
    alpha: float
    sigma: float
    ops: tuple[Op, ...]
    form: Form = "data"
    store: Store = "push"
    stage: int = 0


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
        entries = list(history_entries(self))
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
        from fewstep.samplers.files.json_values import parse_json

        return cls.from_table(parse_json(text, "this text"))

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> "Plan":
        """Reads what :meth:`table` gave, before or after JSON.

        Raises:
            ValueError: if it is no plan, one of a newer schema, or one without sense
                (:mod:`fewstep.samplers.files.plan_tables`).
        """
        from fewstep.samplers.files.plan_tables import read_plan  # which makes plans

        return read_plan(table)

    @classmethod
    def load(cls, path: str | Path) -> "Plan":
        """The one plan of a file or folder (:mod:`fewstep.samplers.files.tuned_files`)."""
        from fewstep.samplers.files.tuned_files import load_plan  # which makes plans itself

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


def apply_ops(
    ops: Sequence[Op], x: Array, base: Array, history: Sequence[Array],
    noises: Iterable[Array] = (),
) -> tuple[Array, Array, list[Array]]:  # fmt: skip
    """x, base and history after ops that run in order, on vectors of coefficients.

    One of ``noises`` is taken for each op that draws.
    """
    held, draws = list(history), iter(noises)
    for op in ops:
        read = sum(w * entry for w, entry in zip(op.w, held, strict=False))
        noise = op.nu * next(draws) if op.nu else 0.0
        value = op.c_x * x + op.c_b * base + read + noise
        if op.reg == "x":
            x = value
        elif op.reg == "base":
            base = value
        else:
            held[0] = value
    return x, base, held


def history_entries(plan: Plan) -> Iterator[list[int]]:
    """Which evaluation's output each history slot holds while the ops of an evaluation run."""
    held: list[int] = []
    for e, row in enumerate(plan.evaluations):
        held = [e, *(held if row.store == "push" else held[1:])]
        yield held


def _validate(plan: Plan) -> None:
    if not plan.evaluations:
        raise ValueError("a plan needs at least one evaluation")
    if not (min(plan.end) >= 0 and 0 < max(plan.end) < math.inf):
        raise ValueError(f"a plan ends at alpha >= 0 and sigma >= 0, not both 0, got {plan.end}")
    has_base = False
    for e, (row, held) in enumerate(zip(plan.evaluations, history_entries(plan), strict=True)):
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
