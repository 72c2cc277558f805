"""What a table is made of: evaluations of the network, and the operations after each."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from fewstep.schedules.base import Array
from fewstep.schedules.prediction import Form

Register = Literal["x", "base", "H0"]
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


def history_entries(evaluations: Iterable[Evaluation]) -> Iterator[list[int]]:
    """Which evaluation's output each history slot holds while the ops of an evaluation run."""
    held: list[int] = []
    for e, row in enumerate(evaluations):
        held = [e, *(held if row.store == "push" else held[1:])]
        yield held
