"""The guidance axis of a benchmark: written texts, whether they fit a problem, what a run costs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from fewstep.eval.problems import Problem
from fewstep.eval.problems.fine_solution import CountingDenoiser
from fewstep.guidance import Counters, Expression, GuidedDenoiser, parse_guidance
from fewstep.models.ode import level_at
from fewstep.schedules.breaks import within
from fewstep.types import Denoiser, RunFacts


@dataclass(frozen=True)
class WrittenGuidance:
    """Guidance and how it was written; no expression for ``none``."""

    text: str
    expression: Expression | None

    @property
    def has_reference(self) -> bool:
        """Whether there is one solution to compare samplers with."""
        return self.expression is None or self.expression.is_field


def split_guidance(values: str | Iterable[str]) -> list[str]:
    """Texts of repeated options, each once; one value may hold several, separated by ``;``."""
    values = [values] if isinstance(values, str) else values
    pieces = [piece.strip() for value in values for piece in value.split(";")]
    return [piece for piece in dict.fromkeys(pieces) if piece]


def read_guidance(text: str, problem: Problem) -> WrittenGuidance:
    """Guidance on a problem, with the models that the problem has for it.

    It is tried on two samples at the ends of the noise levels and wherever it changes.

    Raises:
        ValueError: in one line, if it cannot be read or does not fit.
        FileNotFoundError: if the weights of a model are missing.
    """
    found = parse_guidance(text, problem.models)
    if found is None:
        return WrittenGuidance("none", None)
    process = problem.process
    ends = (process.rho_max, process.rho_min)
    for rho in (*ends, *within(ends, found.breakpoints())):
        x = problem.initial_noise(2, dtype=problem.dtype)
        try:
            with torch.no_grad():
                found.wrap(problem.denoiser)(x, level_at(process, rho), problem.labels(2))
        except ValueError as error:
            lacking = "" if problem.num_classes else ", which has no classes"
            raise ValueError(
                f"guidance {text!r} does not fit problem {problem.name!r}{lacking}: {error}"
            ) from error
    return WrittenGuidance(text, found)


class Meter:
    """Guidance for one run, whose costs can be read afterwards; None guides nothing.

    Every network row of the run is counted, those of weak models too, which a counter around the
    problem's own denoiser would not see. Whoever made the plan has seen to the breakpoints and the
    checks.
    """

    def __init__(self, guidance: Expression | None) -> None:
        self.guidance = guidance
        self._made: CountingDenoiser | GuidedDenoiser | None = None

    def wrap(self, denoiser: Denoiser, seeds: Sequence[int] | None = None) -> Denoiser:
        """The denoiser of the run, guided or not."""
        guidance = self.guidance
        self._made = guidance.wrap(denoiser, seeds) if guidance else CountingDenoiser(denoiser)
        return self._made

    @property
    def counters(self) -> Counters:
        """Costs of the run so far."""
        return Counters() if self._made is None else self._made.counters

    def breakpoints(self) -> tuple[float, ...]:
        return ()

    def check(self, run: RunFacts) -> None:
        """Nothing is left to check."""
