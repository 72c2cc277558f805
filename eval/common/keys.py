"""Keys of cached references: texts that hold whatever a reference depends on, its code included."""

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fewstep.eval.common.cache import digest
from fewstep.eval.common.source_code import Code
from fewstep.guidance.expression import Expression
from fewstep.schedules.base import NoiseProcess
from fewstep.types import Denoiser


class Solved(Protocol):
    """A problem whose solution is kept."""

    @property
    def fingerprint(self) -> str: ...

    @property
    def answers(self) -> Any: ...

    @property
    def denoiser(self) -> Denoiser: ...

    @property
    def process(self) -> NoiseProcess: ...


def reference_key(
    problem: Solved,
    guidance: Expression | None,
    *parts: str | Tensor | None,
    by: Callable[..., Any],
) -> str | None:
    """The key of a reference under ``guidance``; None if that cannot be told from another.

    The code behind guidance, denoiser, process and ``by`` is part of it, in whatever files that is.
    There is no key, and so nothing is cached, where the code of guidance cannot be read (in a
    notebook), one of its functions reads something that has neither settings nor weights, or the
    model gives two answers to one input. What the model answers is no part of the key: it is
    compared within a tolerance (:func:`fewstep.eval.common.cache.cached`).

    Args:
        problem: its fingerprint tells its data and weights.
        guidance: None for the plain prediction.
        parts: whatever else the reference depends on.
        by: the function or class that computes it.
    """
    if problem.answers is None:
        return None
    code = Code()
    try:
        written = stable(guidance, lambda value: _function(value, code))
        code.add(guidance)
        # Walking data may find more functions, and these more data.
        done = 0
        while done < len(code.data):
            label, value = code.data[done]
            written += f"; {label} = {stable(value, lambda value: _function(value, code))}"
            code.add(value)
            done += 1
    except TypeError:
        return None
    code.add_readable(problem.denoiser, problem.process, by)
    known = [torch.empty(0) if part is None else part for part in parts]
    identity = json.dumps(problem.process.identity())
    return digest([problem.fingerprint, identity, written, *known, *code.texts()])


def checked_field(guidance: Expression | None) -> tuple[float, ...]:
    """The breakpoints of guidance that has a reference.

    Raises:
        ValueError: for guidance that has none.
    """
    if guidance is None:
        return ()
    if not guidance.is_field:
        raise ValueError(
            f"there is no reference under {guidance}: it draws at random or goes by the steps of "
            "the solver, so no two samplers are after the same solution"
        )
    return guidance.breakpoints()


def refused(value: Any) -> str:
    """Raises TypeError: the value cannot be written."""
    raise TypeError(f"{type(value).__qualname__} has neither settings nor weights to be known by")


def stable(value: Any, other: Callable[[Any], str] = refused) -> str:
    """Settings and models as a text that is the same in every process.

    Dataclasses are written by their fields, and models by a ``fingerprint`` or their weights.

    Args:
        value: what to write.
        other: writes anything else, such as a function.

    Raises:
        TypeError: for what ``other`` does not write.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    if isinstance(value, tuple | list):
        return f"[{', '.join(stable(entry, other) for entry in value)}]"
    name = type(value).__qualname__
    if isinstance(mark := getattr(value, "fingerprint", None), str):
        return f"{name}({mark})"
    if isinstance(value, nn.Module):
        weights = value.state_dict()
        return f"{name}({digest([*weights, *weights.values()])})"
    if is_dataclass(value):
        settings = ((field.name, getattr(value, field.name)) for field in fields(value))
        written = [f"{field}={stable(entry, other)}" for field, entry in settings]
        return f"{name}({', '.join(written)})"
    for place in ("network", "net"):
        if isinstance(network := getattr(value, place, None), nn.Module):
            return f"{name}({stable(network)})"
    return other(value)


def _function(value: Any, code: Code) -> str:
    """A function, or data that one of them reads."""
    if isinstance(value, Tensor):
        return digest([value])
    if isinstance(value, Mapping):
        entries = (f"{key!r}: {stable(value[key], lambda v: _function(v, code))}" for key in value)
        return f"{{{', '.join(entries)}}}"
    return code.function(value)
