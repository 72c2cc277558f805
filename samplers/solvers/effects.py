"""No option of a spec is taken and not read.

Each option that is given, and differs from its default, is left out once: if the table stays the
same at this number of calls and at others, on this noise process and on another, nothing reads the
option beside the others, as ``variant=exact`` beside ``order=2``, and the spec is refused. So no
solver lists which of its options go together.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from fewstep.schedules.process import NoiseProcess, discrete_vp

if TYPE_CHECKING:
    from fewstep.samplers.solvers.spec import Spec

# Other numbers of calls: 4th order shows from 4 on, Restart climbs from 18 on, EDM's churn is at
# its limit below 100 steps.
CALLS = (12, 40)
MANY = 300
# Options whose value may well change nothing, and why.
FREE: Mapping[str, str] = {
    "compensation": "ratios of 1 are what a search gives where nothing is gained",
}
INNER = ("solver", "inner", "multistep")  # options that are specs themselves
_trying: ContextVar[bool] = ContextVar("fewstep_a_plan_is_made_to_compare", default=False)


def warn_of_plan(message: str) -> None:
    """Warns of a plan that is made to be used, not of one that is made to be compared."""
    if not _trying.get():
        warnings.warn(message, stacklevel=3)


def check_options(spec: "Spec", process: NoiseProcess, nfe: int) -> None:
    """Passes a spec all of whose options count.

    Raises:
        ValueError: for an option without effect beside the others, or the number of a step that
            is not there.
    """
    _check_steps(spec, nfe)
    if "power" in spec.grid and spec.grid.get("grid") != "karras":
        raise ValueError(
            f"power= of the sampler {spec} belongs to grid=karras: add that, or leave it out"
        )
    if spec.options or spec.grid:
        asked = _Asked(str(spec), spec)
        try:
            _check_effects(asked, process, nfe)
        except TypeError:  # a process of the user's that cannot be hashed
            _check_effects.__wrapped__(asked, process, nfe)


@dataclass(frozen=True)
class _Asked:
    """A spec that is known by its text, from which not every one can be read again."""

    text: str
    spec: "Spec" = field(compare=False)


@lru_cache(maxsize=256)  # a spec is sampled from many times, and compared in tens of milliseconds
def _check_effects(asked: _Asked, process: NoiseProcess, nfe: int) -> None:
    spec, token = asked.spec, _trying.set(True)
    try:
        for told, rest in _left_out(spec):
            if not _differ(spec, rest, process, nfe):
                raise ValueError(
                    f"{told} of the sampler {spec} has no effect beside its other options: leave "
                    "it out"
                )
    finally:
        _trying.reset(token)


def missing_step(options: Mapping[str, Any], nfe: int) -> str:
    """What to say of a step that is not to be corrected, and is not there; "" if all are."""
    gone = [step for step in options.get("disable_corrector", ()) if step >= nfe]
    if not gone:
        return ""
    return (
        f"disable_corrector names step {gone[0]}, and {nfe} calls have steps 0 to {nfe - 1} (-1 "
        "means all): leave it out"
    )


def _check_steps(spec: "Spec", nfe: int) -> None:
    steps = spec.options.get("disable_corrector", ())
    if problem := missing_step(spec.options, nfe):
        raise ValueError(problem)
    if len(set(steps)) < len(steps) or (-1 in steps and len(steps) > 1):
        raise ValueError(
            f"disable_corrector={list(steps)} names a step twice (-1 means all): leave one out"
        )


def _left_out(spec: "Spec") -> Iterator[tuple[str, "Spec"]]:
    """Each option, and the spec without it; options of a spec within the spec as well."""
    defaults = spec.defaults()
    for kind in ("options", "grid"):
        given = getattr(spec, kind)
        for key, value in given.items():
            default = defaults[key]
            said = list(value) != list(default) if isinstance(default, tuple) else value != default
            if said and key not in FREE:
                others: Any = {kind: {k: v for k, v in given.items() if k != key}}
                yield f"{key}={value}", replace(spec, **others)
            if key in INNER and ":" in value:
                for told, less in _left_out(spec.within(value)):
                    changed: Any = {kind: {**given, key: str(less)}}
                    yield f"{told} in {key}=", replace(spec, **changed)


def _differ(spec: "Spec", other: "Spec", process: NoiseProcess, nfe: int) -> bool:
    """Whether the two make different tables of some number of calls, on some process."""
    others = [(where, n) for where in (process, discrete_vp()) for n in CALLS]
    tried = [(process, nfe), *others, (process, MANY)]
    known = False
    for where, n in sorted(tried, key=lambda case: case[1]):  # most options show in few calls
        differ = _differ_at(spec, other, where, n)
        if differ:
            return True
        known = known or differ is not None
    return not known  # a spec that fits nowhere is refused for that, by whoever makes its plan


def _differ_at(spec: "Spec", other: "Spec", process: NoiseProcess, nfe: int) -> bool | None:
    try:
        plan = spec.made(process, nfe)
    except ValueError:
        return None  # where the spec itself does not fit
    try:
        without = other.made(process, nfe)
    except ValueError:
        return True
    return (plan.evaluations, plan.end) != (without.evaluations, without.end)
