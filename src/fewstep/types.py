"""The protocols that the folders share; no logic lives here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # torch takes seconds to import, and tables of samplers are made without it
    from torch import Tensor

    from fewstep.schedules import NoiseProcess


@dataclass(frozen=True, slots=True)
class Level:
    """Where a network is called: x = alpha x0 + sigma noise.

    Attributes:
        time: what the network is told, in the units of its process.
        alpha: signal coefficient, >= 0.
        sigma: noise coefficient, > 0.
        index: number of the evaluation in the run, from 0.
        next_sigma: sigma of the next evaluation, or of the end point.
        next_alpha: alpha there.
        step: number of the solver step in the run, from 0; the calls of one step share it.
        step_rho: sigma / alpha where that step began; None means here.
    """

    time: float
    alpha: float
    sigma: float
    index: int = 0
    next_sigma: float = 0.0
    next_alpha: float = 1.0
    step: int = 0
    step_rho: float | None = None

    @property
    def rho(self) -> float:
        """sigma / alpha; inf without signal."""
        return self.sigma / self.alpha if self.alpha else math.inf

    @property
    def next_rho(self) -> float:
        """sigma / alpha of the next evaluation, or of the end point."""
        return self.next_sigma / self.next_alpha if self.next_alpha else math.inf

    @property
    def gate_rho(self) -> float:
        """sigma / alpha of the solver step, by which guidance is switched on and off."""
        return self.rho if self.step_rho is None else self.step_rho


class Denoiser(Protocol):
    """A data prediction E[x0 | x] for one noise process.

    ``cond`` is whatever the model conditions on (class labels of shape (n,), embeddings, a
    dictionary), or None for the unconditional prediction. The result has the shape of ``x``.
    """

    @property
    def process(self) -> "NoiseProcess": ...

    def __call__(self, x: "Tensor", level: Level, cond: Any = None) -> "Tensor": ...


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What guidance may know of the sampler that it runs in.

    Attributes:
        levels: every evaluation of the run.
        reads: most network outputs that any step reads; 1 for a method of first order.
        noisy: whether any step adds noise.
    """

    levels: Sequence[Level]
    reads: int
    noisy: bool


class Guidance(Protocol):
    """Turns a denoiser into a guided one."""

    def wrap(self, denoiser: Denoiser, seeds: Sequence[int] | None = None) -> Denoiser:
        """The guided denoiser of one run; ``seeds`` key its draws, one for each sample."""
        ...

    def breakpoints(self) -> tuple[float, ...]:
        """The ratios sigma / alpha where it is switched on or off."""
        ...

    def check(self, run: RunFacts) -> None:
        """Raises ValueError if it does not fit the sampler."""
        ...


class RunHook(Protocol):
    """Acts on a whole run: on its start, and on which samples go on after a step.

    ``start_rho`` is the ratio sigma / alpha from which the run starts; None means its usual start.
    """

    @property
    def start_rho(self) -> float | None: ...

    def check(self, run: RunFacts) -> None:
        """Raises ValueError if it does not fit the sampler."""
        ...

    def start(self, noise: "Tensor", x: "Tensor", level: Level) -> "Tensor":
        """The state at the first level from unit noise (n, ...); ``x`` is the usual state."""
        ...

    def after_step(
        self, x: "Tensor", x0: "Tensor", level: Level, seeds: Sequence[int]
    ) -> "Tensor | None":
        """(n,) indices of the samples that go on in each slot, or None for all as they are.

        Args:
            x: the next state. x0: the data prediction at ``level``. seeds: one for each slot.
        """
        ...
