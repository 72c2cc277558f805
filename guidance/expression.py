"""The language of guidance: sources, ``+`` of them, and modifiers behind ``|``.

``(ICG(1.4) | Interval(0.28, 2.9)) + TSG()`` adds two directions, of which the first is gated.
Python binds ``+`` tighter than ``|``, hence the brackets.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from fewstep.checks import Checked
from fewstep.guidance.context import Context
from fewstep.guidance.driver import GuidedDenoiser
from fewstep.guidance.rows import Direction, Steps, together
from fewstep.types import Denoiser, RunFacts


class Expression(Checked):
    """A source, a sum, or either with modifiers; what ``sample(guidance=)`` takes."""

    def plan(self, ctx: Context) -> Steps:
        """Yields the rows it needs, is sent their data predictions, returns a direction."""
        raise NotImplementedError

    def sources(self) -> Iterator["Source"]:
        """From left to right."""
        raise NotImplementedError

    def modifiers(self) -> Iterator["Modifier"]:
        """From left to right."""
        return iter(())

    def __add__(self, other: Any) -> "Expression":
        if not isinstance(other, Expression):
            raise TypeError(not_addable(other))
        return Sum((*_terms(self), *_terms(other)))

    def __or__(self, other: Any) -> "Expression":
        if not isinstance(other, Modifier):
            raise TypeError(
                f"behind | goes a modifier such as Interval(0.2, 2), got {_named(other)}; add "
                "sources with +, as in (ICG(1.4) | Interval(0.28, 2.9)) + TSG()"
            )
        if isinstance(self, Piped) and self.modifier.last and not other.last:
            return Piped(self.left | other, self.modifier)
        return Piped(self, other)

    def wrap(self, denoiser: Denoiser, seeds: Sequence[int] | None = None) -> GuidedDenoiser:
        """The guided denoiser of one run; ``seeds`` key its draws, one for each sample."""
        return GuidedDenoiser(denoiser, self, seeds)

    def breakpoints(self) -> tuple[float, ...]:
        """The ratios sigma / alpha where a part is switched on or off, falling."""
        edges = {edge for modifier in self.modifiers() for edge in modifier.edges()}
        return tuple(sorted(edges, reverse=True))

    @property
    def is_field(self) -> bool:
        """Whether predictions are a function of (x, level, cond): then they have a solution."""
        sources, modifiers = self.sources(), self.modifiers()
        return all(s.is_field for s in sources) and all(m.is_field for m in modifiers)

    def check(self, run: RunFacts) -> None:
        """Raises ValueError if a part does not fit the sampler, and warns if it fits badly."""
        for source in self.sources():
            source.check(run)
        for modifier in self.modifiers():
            modifier.check(run)


@dataclass(frozen=True, kw_only=True)
class Source(Expression):
    """Gives a direction.

    Attributes:
        site: tells two sources of one kind apart, in their draws and in what they remember.
    """

    site: str = ""

    @property
    def name(self) -> str:
        """The class's name and the site."""
        return f"{type(self).__name__}:{self.site}" if self.site else type(self).__name__

    @property
    def is_field(self) -> bool:
        """False for what draws, or goes by the steps of the solver."""
        return True

    def sources(self) -> Iterator["Source"]:
        yield self

    def check(self, run: RunFacts) -> None:
        """By default every sampler will do."""

    def __str__(self) -> str:
        """As it was made: its scale, and the settings that are not the usual ones."""
        shown = []
        for part in sorted(fields(self), key=lambda part: bool(part.kw_only)):
            value = getattr(self, part.name)
            if isinstance(value, int | float | str) and not (
                part.kw_only and value == part.default
            ):
                text = f"{value:g}" if isinstance(value, float) else repr(value)
                shown.append(f"{part.name}={text}" if part.kw_only else text)
        return f"{type(self).__name__}({', '.join(shown)})"

    def memory(self, ctx: Context) -> dict[str, Any]:
        """What this source keeps within a run."""
        kept: dict[str, Any] = ctx.memory.setdefault(self.name, {})
        return kept


class Modifier(Checked):
    """Gates or reshapes the direction on its left.

    Attributes:
        last: whether it acts after all others (thresholding).
        remembers: whether it keeps something from step to step.
    """

    last = False
    remembers = False

    @property
    def is_field(self) -> bool:
        """False for what goes by the steps of the solver, see ``Expression.is_field``."""
        return True

    def gate(self, ctx: Context) -> bool:
        """Whether the direction is wanted; asked before any row is."""
        return True

    def shape(self, base: Tensor, direction: Direction, ctx: Context) -> Direction:
        """Another direction for the base prediction."""
        return direction

    def edges(self) -> tuple[float, ...]:
        """The ratios sigma / alpha where the gate opens or closes."""
        return ()

    def fits(self, left: Expression) -> None:
        """Raises ValueError for an expression that it cannot modify."""

    def check(self, run: RunFacts) -> None:
        """Raises ValueError for a sampler that it does not fit."""

    def __add__(self, other: Any) -> Any:
        raise TypeError(
            f"{_named(self)} is not a source, and + binds tighter than |: write "
            f"(source | {type(self).__name__}(...)) + other"
        )


@dataclass(frozen=True)
class Sum(Expression):
    """Directions added up."""

    terms: tuple[Expression, ...]

    def __post_init__(self) -> None:
        names = [source.name for source in self.sources()]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(
                f"{min(twice)} is there twice and would draw and remember the same; give one of "
                "them another site=, as in ICG(1.4, site='second')"
            )
        kept = [id(m) for m in self.modifiers() if m.remembers]
        if len(kept) > len(set(kept)):
            raise ValueError("a modifier with momentum cannot stand in two places; make a second")
        for term in self.terms:
            if any(modifier.last for modifier in term.modifiers()):
                raise ValueError(
                    "thresholding acts on the whole result: write (A + B) | DynamicThreshold()"
                )

    def plan(self, ctx: Context) -> Steps:
        found = [d for d in (yield from together([t.plan(ctx) for t in self.terms])) if d]
        if len(found) < 2:
            return found[0] if found else None
        return Direction(sum((d.total for d in found[1:]), found[0].total), 1.0)

    def sources(self) -> Iterator[Source]:
        for term in self.terms:
            yield from term.sources()

    def modifiers(self) -> Iterator[Modifier]:
        for term in self.terms:
            yield from term.modifiers()

    def __str__(self) -> str:
        return " + ".join(f"({t})" if isinstance(t, Piped) else str(t) for t in self.terms)


@dataclass(frozen=True)
class Piped(Expression):
    """A modified expression."""

    left: Expression
    modifier: Modifier

    def __post_init__(self) -> None:
        self.modifier.fits(self.left)

    def plan(self, ctx: Context) -> Steps:
        if not self.modifier.gate(ctx):
            return None
        direction = yield from self.left.plan(ctx)
        return direction and self.modifier.shape(ctx.prediction, direction, ctx)

    def sources(self) -> Iterator[Source]:
        return self.left.sources()

    def modifiers(self) -> Iterator[Modifier]:
        yield from self.left.modifiers()
        yield self.modifier

    def __str__(self) -> str:
        left = f"({self.left})" if isinstance(self.left, Sum) else str(self.left)
        return f"{left} | {self.modifier}"


def _terms(expression: Expression) -> tuple[Expression, ...]:
    return expression.terms if isinstance(expression, Sum) else (expression,)


def _named(part: Any) -> str:
    return type(part).__name__ if not isinstance(part, type) else f"the class {part.__name__}"


def not_addable(part: Any) -> str:
    """Why something is no guidance, and where it belongs."""
    if isinstance(part, Modifier):
        return f"{_named(part)} modifies a source: write source | {type(part).__name__}(...)"
    if hasattr(part, "after_step"):
        return f"{_named(part)} acts on a whole run: pass it to sample(hooks=[...])"
    return f"guidance is made of sources such as CFG(3), got {_named(part)}"
