"""Samples that are not finite: which call made them so, and whether it was the network.

The loop reads nothing from the device. Where its samples are not finite in the end, the run is made
once more, and looked at in each call.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from fewstep.types import Denoiser, Guidance, Level, RunFacts

Rerun = Callable[[Denoiser, Guidance | None], Tensor]


class NotFiniteWarning(UserWarning, ValueError):  # noqa: N818
    """Samples are inf or nan. Where warnings are made errors, it is a ValueError."""


@contextmanager
def refused() -> Iterator[None]:
    """Within, samples that are not finite are an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotFiniteWarning)
        yield


class Watch:
    """A denoiser whose calls are looked at; in all else it is the inner one.

    Attributes:
        calls: of each call its level, and whether its input and its output were finite.
    """

    def __init__(self, inner: Denoiser) -> None:
        self.inner = inner
        self.calls: list[tuple[Level, bool, bool]] = []

    @property
    def process(self) -> Any:
        return self.inner.process

    @property
    def network(self) -> Any:
        """The module with the weights; the denoiser itself, where that is one."""
        inner = self.inner
        return inner if isinstance(inner, nn.Module) else getattr(inner, "network", None)

    def __call__(self, x: Tensor, level: Level, cond: Any = None) -> Tensor:
        made = self.inner(x, level, cond)
        self.calls.append((level, all_finite(x), all_finite(made)))
        return made

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class WatchedGuidance:
    """Guidance whose predictions are looked at; in all else it is the inner one."""

    def __init__(self, guidance: Guidance) -> None:
        self.guidance = guidance
        self.watch: Watch | None = None

    def wrap(self, denoiser: Denoiser, seeds: Sequence[int] | None = None) -> Denoiser:
        self.watch = Watch(self.guidance.wrap(denoiser, seeds))
        return self.watch

    def breakpoints(self) -> tuple[float, ...]:
        return self.guidance.breakpoints()

    def check(self, run: RunFacts) -> None:
        """It was checked when the run was made first."""

    def __getattr__(self, name: str) -> Any:  # as whether calls may be made twice
        return getattr(self.guidance, name)


def all_finite(x: Tensor) -> bool:
    """Whether every element is; reads the device."""
    return bool(x.detach().isfinite().all())


def cause(denoiser: Denoiser, guidance: Guidance | None, calls: int, rerun: Rerun) -> str:
    """Where a run became inf or nan, found by making it again.

    Args:
        denoiser, guidance: of the run.
        calls: how many it makes.
        rerun: makes it with the denoiser and the guidance that it is given.
    """
    network = Watch(denoiser)
    guided = None if guidance is None else WatchedGuidance(guidance)
    end = rerun(network, guided)
    predicted = network if guided is None or guided.watch is None else guided.watch
    states = [*(good for _, good, _ in predicted.calls[1:]), all_finite(end)]
    for (level, before, after), state in zip(predicted.calls, states, strict=True):
        where = f"call {level.index + 1} of {calls}, at sigma/alpha = {level.rho:.4g}"
        if not before:
            return f"the state that the run starts from was not: look at noise and hooks ({where})"
        if not after:
            return f"{_who(network, level)} in {where}"
        if not state:
            return (
                f"the network's outputs were finite, and the step behind {where}, made the state "
                "too large: use more calls, another sampler, or a wider dtype"
            )
    return "made again it was finite, so the model or a hook is not the same each time"


def _who(network: Watch, level: Level) -> str:
    inside = [good for at, _, good in network.calls if at.index == level.index]
    if all(inside):
        return (
            "the network's own outputs were finite, and guidance made the prediction not finite "
            "(lower its scale)"
        )
    return (
        "the network's own output was not finite (look at its weights, its dtype, its condition "
        "and the levels it was trained at)"
    )
