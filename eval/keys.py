"""Keys of cached references: texts that hold whatever a reference depends on, its code included."""

import inspect
import json
from dataclasses import fields, is_dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.eval.cache import digest
from fewstep.guidance import (
    Expression,
    context,
    contrast,
    driver,
    expression,
    gfcg,
    gradients,
    minority,
    modifiers,
    rows,
    shaping,
)
from fewstep.models import adapters, classifier, exact, fashion, ode, prediction, rarity
from fewstep.schedules import NoiseProcess

# The code that references depend on, beside their process: a change makes cached ones stale.
SOURCES: tuple[ModuleType, ...] = (adapters, exact, fashion, ode, prediction)
# The code of guidance that has a reference (time-step guidance has none), and of its models.
GUIDANCE_SOURCES: tuple[ModuleType, ...] = (
    context, contrast, driver, expression, gfcg, gradients, minority, modifiers, rows, shaping,
    classifier, rarity,
)  # fmt: skip


def reference_key(
    fingerprint: str,
    process: NoiseProcess,
    guidance: Expression | None,
    *parts: str | Tensor | None,
) -> str | None:
    """The key of a reference under ``guidance``; None if that cannot be told from another."""
    try:
        written = stable(guidance)
    except TypeError:
        return None
    modules = SOURCES if guidance is None else SOURCES + GUIDANCE_SOURCES
    code = [*map(inspect.getsource, modules), inspect.getsource(type(process))]
    known = [torch.empty(0) if part is None else part for part in parts]
    return digest([fingerprint, json.dumps(process.identity()), written, *known, *code])


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


def stable(value: Any) -> str:
    """Settings and models as a text that is the same in every process.

    Dataclasses are written by their fields, and models by a ``fingerprint`` or their weights.

    Raises:
        TypeError: for anything else, such as a function.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(stable, value))}]"
    name = type(value).__qualname__
    if isinstance(mark := getattr(value, "fingerprint", None), str):
        return f"{name}({mark})"
    if isinstance(value, nn.Module):
        weights = value.state_dict()
        return f"{name}({digest([*weights, *weights.values()])})"
    if is_dataclass(value):
        written = [f"{field.name}={stable(getattr(value, field.name))}" for field in fields(value)]
        return f"{name}({', '.join(written)})"
    for place in ("network", "net"):
        if isinstance(network := getattr(value, place, None), nn.Module):
            return f"{name}({stable(network)})"
    raise TypeError(f"{name} has neither settings nor weights to be known by")
