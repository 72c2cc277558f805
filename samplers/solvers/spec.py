"""Samplers by name, and the reading of specs such as ``dpmpp:order=3,grid=karras``.

The entries are in :mod:`fewstep.samplers.solvers.registry`, which imports every solver; solvers
that run others inside (Restart, DC-Solver) look them up here.
"""

import ast
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from fewstep.samplers.core.plan import Plan
from fewstep.samplers.solvers.auto import chosen_grid
from fewstep.samplers.solvers.effects import check_options
from fewstep.schedules.breaks import snap
from fewstep.schedules.grids import Grid
from fewstep.schedules.limits import check_calls
from fewstep.schedules.process import NoiseProcess


@dataclass(frozen=True)
class Sampler:
    """One entry of the registry.

    Attributes:
        build: the solver function, ``build(grid, **options) -> Plan``.
        scheduler: the name of its diffusers class.
        summary: one line for tables.
        paper: where it comes from.
        steps: for solvers that take ``nfe=`` and a grid with fewer steps than calls:
            ``steps(nfe, without_signal, ends_at_zero, **options)``, the steps that the calls pay
            for. One call more pays for at most one step more (or for one pass more of Restart).
    """

    build: Callable[..., Plan]
    scheduler: str
    summary: str
    paper: str
    steps: Callable[..., int] | None = None

    def options(self) -> dict[str, Any]:
        """Names and defaults of the solver's own options."""
        parameters = inspect.signature(self.build).parameters.values()
        return {
            p.name: p.default
            for p in parameters
            if p.kind is inspect.Parameter.KEYWORD_ONLY and p.name != "nfe"
        }

    def texts(self) -> set[str]:
        """Names of those that are texts and nothing else."""
        parameters = inspect.signature(self.build).parameters.values()
        return {p.name for p in parameters if p.annotation is str}

    def taken(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The solver's own options as a scheduler's config has them."""
        return {name: config[name] for name in self.options()}

    def paid(
        self, nfe: int, without_signal: bool, ends_at_zero: bool, options: Mapping[str, Any]
    ) -> int:
        """Steps that ``nfe`` calls pay for."""
        return (
            nfe if self.steps is None else self.steps(nfe, without_signal, ends_at_zero, **options)
        )

    def intervals(
        self,
        process: NoiseProcess,
        nfe: int,
        ends_at_zero: bool = True,
        options: Mapping[str, Any] | None = None,
    ) -> int:
        """Steps of the grid that ``nfe`` calls walk."""
        without_signal = bool(process.from_rho(process.rho_max)[0] == 0)
        return self.paid(nfe, without_signal, ends_at_zero, options or {})

    def calls(self, grid: Grid, options: Mapping[str, Any]) -> int:
        """The most calls that walk a given grid."""
        if self.steps is None:
            return grid.nfe
        ends = bool(grid.alpha[0] == 0), bool(grid.rho[-1] == 0)
        return next(n for n in count(grid.nfe) if self.steps(n + 1, *ends, **options) > grid.nfe)

    def plan(self, grid: Grid, nfe: int, options: Mapping[str, Any]) -> Plan:
        return self.build(grid, **options, **({"nfe": nfe} if self.steps else {}))


SAMPLERS: dict[str, Sampler] = {}
GRID_OPTIONS = {"grid": "auto", "final": "zero", "power": 7.0, "shift": 1.0}


@dataclass(frozen=True)
class Spec:
    """A parsed spec: the sampler's name, its own options, and those of the grid."""

    name: str
    options: Mapping[str, Any]
    grid: Mapping[str, Any]

    @property
    def sampler(self) -> Sampler:
        return SAMPLERS[self.name]

    def defaults(self) -> dict[str, Any]:
        """Every option that it may have, with its default."""
        return {**self.sampler.options(), **GRID_OPTIONS}

    def within(self, text: str) -> "Spec":
        """A spec that is the value of an option of this one."""
        return parse_spec(text)

    def build(self, process: NoiseProcess, nfe: int, breakpoints: Sequence[float] = ()) -> Plan:
        """The plan for a process and a number of calls.

        Args:
            process: the noise process.
            nfe: network calls, >= 1.
            breakpoints: ratios sigma / alpha that nodes are moved onto, where history restarts.

        Raises:
            ValueError: for nfe < 1 or above ``MAX_CALLS``, too few steps for the breakpoints, or an
                option that has no effect beside the others.
        """
        check_calls(nfe)
        plan = self.made(process, nfe, breakpoints)
        check_options(self, process, nfe)
        return plan.renamed(str(self))

    def made(self, process: NoiseProcess, nfe: int, breakpoints: Sequence[float] = ()) -> Plan:
        """The plan of :meth:`build`, whether or not all options have an effect."""
        ends_at_zero = {**GRID_OPTIONS, **self.grid}["final"] == "zero"
        steps = self.sampler.intervals(process, nfe, ends_at_zero, self.options)
        grid = snap(self.grid_of(process, steps, self.name), breakpoints)
        return self.sampler.plan(grid, nfe, self.options)

    def grid_of(self, process: NoiseProcess, steps: int, family: str) -> Grid:
        """The grid that the spec asks for; the automatic one is that of ``family``."""
        chosen = {**GRID_OPTIONS, **self.grid}
        return chosen_grid(family, process, steps, chosen.pop("grid"), **chosen)

    def __str__(self) -> str:
        pairs = ",".join(f"{k}={v}" for k, v in {**self.options, **self.grid}.items())
        return self.name + (f":{pairs}" if pairs else "")


def parse_spec(text: str) -> Spec:
    """Reads ``name`` or ``name:option=value,...``.

    Lists are written ``[0,1]``; a spec within a spec that has commas goes into round brackets,
    ``restart:solver=(unipc:order=2,solver_type=bh1)``.

    Raises:
        ValueError: for an unknown sampler or option, or a malformed pair.
    """
    if not isinstance(text, str):
        raise ValueError(f"a sampler is named by a text such as 'unipc:order=2', got {text!r}")
    text = text.strip()
    if text.startswith("(") and text.endswith(")"):
        text = text[1:-1]
    name, _, rest = text.partition(":")
    if name not in SAMPLERS:
        raise ValueError(f"unknown sampler {name!r}; known: {', '.join(SAMPLERS)}")
    known = SAMPLERS[name].options()
    options: dict[str, Any] = {}
    grid: dict[str, Any] = {}
    for pair in _pairs(rest):
        key, equals, value = pair.partition("=")
        key = key.strip()
        if not equals or key not in {**known, **GRID_OPTIONS}:
            raise ValueError(
                f"unknown option {pair!r} of sampler {name!r}; known: "
                f"{', '.join(f'{k}=' for k in {**known, **GRID_OPTIONS})}"
            )
        if key in options or key in grid:
            raise ValueError(f"option {key}= of sampler {name!r} is there twice: leave one out")
        default = GRID_OPTIONS.get(key, known.get(key))
        value = value.strip()
        plain = key in GRID_OPTIONS or key in SAMPLERS[name].texts()
        taken = value if plain and isinstance(default, str) else _value(key, value, default)
        (grid if key in GRID_OPTIONS else options)[key] = taken
    return Spec(name, options, grid)


def _pairs(text: str) -> list[str]:
    """Splits at the commas outside brackets."""
    pairs, depth, start = [], 0, 0
    for i, c in enumerate(text):
        depth += (c in "[(") - (c in "])")
        if c == "," and depth == 0:
            pairs.append(text[start:i])
            start = i + 1
    return [*pairs, text[start:]] if text else []


def _value(key: str, text: str, default: Any) -> Any:
    """A value of the kind of its default; a text may be a list in some options, as of intervals."""
    if isinstance(default, str) and not text.startswith("["):
        return text
    try:
        value = ast.literal_eval(
            text.title() if text.lower() in ("true", "false", "none") else text
        )
    # MemoryError and RecursionError: of thousands of brackets.
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise ValueError(
            f"option {key}={text[:80]!r} is not a number, truth value or list"
        ) from None
    kind, wanted = next(
        ((kind, words) for like, kind, words in KINDS if isinstance(default, like)), (object, "")
    )
    if not isinstance(value, kind) or (isinstance(value, bool) and kind not in (bool, TRUTH)):
        raise ValueError(f"option {key} takes {wanted}, got {text[:80]!r}")
    if isinstance(value, int | float) and not abs(value) <= sys.float_info.max:
        raise ValueError(f"option {key} takes {wanted} that is finite, got {text[:80]!r}")
    return value


TRUTH = bool | None
# What an option takes whose default is like that; a bool is an int, and comes first.
KINDS: tuple[tuple[Any, Any, str], ...] = (
    (bool, bool, "true or false"),
    (int, int, "a whole number"),
    (float, int | float, "a number"),
    (type(None), TRUTH, "true, false or none"),
    (tuple, list, "a list in square brackets"),
    (str, list, "a text, or a list in square brackets"),
)
