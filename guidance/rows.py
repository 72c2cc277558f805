"""What sources ask the network for, and what they answer with."""

from collections.abc import Generator, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.types import Denoiser, Level


@dataclass(frozen=True, eq=False)
class TimeNoise:
    """Noise on the time embedding of a row, in units of that embedding's standard deviation.

    Attributes:
        site: keys the draw.
        scale: standard deviation.
        module: name of the embedding's module; None looks for the usual ones.
    """

    site: str
    scale: float
    module: str | None = None


@dataclass(frozen=True, eq=False)
class Row:
    """One network row for each sample.

    Attributes:
        key: rows of equal key are one row.
        cond: the condition, of n rows (or as many as ``subset``).
        model: a second denoiser; None means the guided one.
        time_noise: None means the network is told the true time.
        subset: (m,) indices of the samples that need it; None means all.
        at: another (x, level) than the present one.
        graph: whether the prediction is to be differentiated by ``Context.leaf``.
    """

    key: Hashable
    cond: Any = None
    model: Denoiser | None = None
    time_noise: TimeNoise | None = None
    subset: Tensor | None = None
    at: tuple[Tensor, Level] | None = None
    graph: bool = False


@dataclass(frozen=True, eq=False)
class Direction:
    """``strength * delta``, to be added to the data prediction.

    Attributes:
        delta: (n, ...); for a contrast with a worse branch r it is c - r.
        strength: a number or (n,); for a contrast w - 1.
    """

    delta: Tensor
    strength: float | Tensor

    @property
    def total(self) -> Tensor:
        """(n, ...)."""
        if isinstance(self.strength, Tensor):
            return column(self.strength, self.delta) * self.delta
        return self.strength * self.delta


# Yields the rows it needs, is sent their data predictions, returns a direction or None.
Steps = Generator[Sequence[Row], Sequence[Tensor], Direction | None]


def column(values: Tensor, like: Tensor) -> Tensor:
    """(n,) values shaped to multiply (n, ...)."""
    return values.to(like.dtype).view(-1, *[1] * (like.ndim - 1))


def signature(cond: Any) -> Hashable:
    """Conditions of equal signature fit into one batch."""
    if isinstance(cond, Mapping):
        return tuple(sorted((key, signature(value)) for key, value in cond.items()))
    if isinstance(cond, Tensor):
        return tuple(cond.shape[1:]), cond.dtype
    return None if cond is None else id(cond)


def joined(conds: Sequence[Any]) -> Any:
    """Conditions of equal signature as one of all their rows."""
    first = conds[0]
    if isinstance(first, Mapping):
        return {key: joined([cond[key] for cond in conds]) for key in first}
    return torch.cat(list(conds)) if isinstance(first, Tensor) else first


def taken(cond: Any, rows: Tensor | slice) -> Any:
    """Some rows of a condition."""
    if isinstance(cond, Mapping):
        return {key: taken(value, rows) for key, value in cond.items()}
    return cond[rows] if isinstance(cond, Tensor) else cond


def together(plans: Sequence[Steps]) -> Generator[Sequence[Row], Sequence[Tensor], list[Any]]:
    """Several plans in rounds: what they ask for in a round is asked at once."""
    results: list[Any] = [None] * len(plans)
    asked: dict[int, Sequence[Row]] = {}

    def proceed(i: int, answers: Sequence[Tensor] | None) -> None:
        try:
            asked[i] = next(plans[i]) if answers is None else plans[i].send(answers)
        except StopIteration as end:
            asked.pop(i, None)
            results[i] = end.value

    for i in range(len(plans)):
        proceed(i, None)
    while asked:
        waiting = {i: list(rows) for i, rows in asked.items()}
        answers = list((yield [row for rows in waiting.values() for row in rows]))
        for i, rows in waiting.items():
            proceed(i, answers[: len(rows)])
            del answers[: len(rows)]
    return results
