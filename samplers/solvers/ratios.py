"""DC-Solver's ratios, and the file that keeps the result of a search.

A ratio belongs to one call of one run: the same solver, levels and guidance, on the same model.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from fewstep.json_values import parse_json, read_bounded
from fewstep.samplers.core.plan import Plan
from fewstep.samplers.solvers.spec import parse_spec
from fewstep.writing import write_whole


def check_ratios(ratios: Sequence[float], nfe: int) -> None:
    """Checks one ratio for each call.

    Raises:
        ValueError: for another number of them, a first one other than 1, or one not finite.
    """
    if isinstance(ratios, str) or not all(isinstance(r, int | float) for r in ratios):
        raise ValueError(f"ratios are a list of numbers, got {ratios!r}")
    if len(ratios) != nfe:
        raise ValueError(
            f"{len(ratios)} ratios for {nfe} calls; give one for each, 1 for those not compensated"
        )
    if not all(map(math.isfinite, ratios)):
        raise ValueError(f"ratios must be finite, got {list(ratios)}; 1 changes nothing")
    if ratios[0] != 1:
        raise ValueError(
            f"the first ratio must be 1, got {ratios[0]}: there is one output only by then"
        )


class RatioFile:
    """A frozen dataclass that is kept as a JSON object with its kind."""

    kind: ClassVar[str]

    def table(self) -> dict[str, Any]:
        """JSON values, which the config of a scheduler can hold."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self), allow_nan=False))  # type: ignore[call-overload]
        return {"kind": self.kind, **values}

    def to_json(self) -> str:
        return json.dumps(self.table(), indent=1)

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Self:
        """Reads what :meth:`table` gave.

        Raises:
            ValueError: if it is something else, or entries are missing or malformed.
        """
        names = {field.name for field in fields(cls)}  # type: ignore[arg-type]
        if table.get("kind") != cls.kind or {*table} != {"kind", *names}:
            raise ValueError(
                f"no {cls.kind} object: it needs 'kind' and exactly {', '.join(sorted(names))}"
            )
        values = {key: table[key] for key in names}
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})

    @classmethod
    def from_json(cls, text: str) -> Self:
        return cls.from_table(parse_json(text, "this text"))

    def save(self, path: str | Path) -> None:
        """Writes the file, whole or not at all."""
        write_whole(path, self.to_json() + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        return cls.from_table(parse_json(read_bounded(Path(path)), str(path)))


@dataclass(frozen=True)
class Compensation(RatioFile):
    """The result of one search.

    Attributes:
        ratios: one for each call, the first 1.
        sampler: the spec it was made for, a multistep solver with its grid.
        times: (nfe,) network times of the calls.
        guidance_scale: 1 without guidance.
        before, after: root mean square errors at the end, on the noises of the search.
        noises: how many there were.
    """

    kind: ClassVar[str] = "fewstep.compensation"

    ratios: tuple[float, ...]
    sampler: str
    times: tuple[float, ...]
    guidance_scale: float
    before: float
    after: float
    noises: int

    def __post_init__(self) -> None:
        check_ratios(self.ratios, len(self.times))

    @property
    def nfe(self) -> int:
        return len(self.ratios)

    def made_for(self, plan: Plan, solver: str) -> bool:
        """Whether the calls are those of the search, and so is the solver."""
        mine, other = parse_spec(self.sampler), parse_spec(solver)
        same = mine.name == other.name and {**mine.sampler.options(), **mine.options} == {
            **other.sampler.options(), **other.options,
        }  # fmt: skip
        times = [row.time for row in plan.evaluations]
        return same and bool(np.allclose(times, self.times, rtol=1e-6, atol=1e-9))
