r"""Guidance by a gradient: D <- D + (sigma^2 / alpha) w grad_x log p(.|x).

The score of noisy data is (alpha D - x) / sigma^2, so adding w grad log p to it is this. Samplers
of ADM's kind shift the mean of an ancestral step by its variance times the gradient instead, which
agrees up to the square root of that step's alpha.
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.checks import named
from fewstep.guidance.context import Context, check_range, differentiated, gradient
from fewstep.guidance.expression import Source
from fewstep.guidance.rows import Direction, Steps
from fewstep.types import Level

Noisy = Callable[[Tensor, Level, Any], Tensor]  # (x, level, cond) -> (n, ...)


def takes_level(fn: Callable[..., Any], who: str, *, clean: bool) -> Noisy:
    """A classifier or energy as a function of (x, level, cond), whatever it takes.

    It may take ``(x, level, cond)`` or ``(x, level)``, where its second parameter is called
    ``level``; ``(x, t)`` with t the (n,) network times, as ADM's classifiers do; or, declared
    ``clean``, ``(x0)`` alone.

    Raises:
        ValueError: if it takes no time and is not declared to be for clean samples.
    """
    if not callable(fn):
        raise TypeError(f"{who} takes a function or a module, got {named(fn)}")
    if clean:
        return lambda x, level, cond: fn(x)
    plain = fn.forward if isinstance(fn, nn.Module) else fn
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = inspect.signature(plain).parameters.values()
    names = [p.name for p in parameters if p.kind in kinds]
    if len(names) > 1 and names[1] == "level":
        if len(names) > 2:
            return lambda x, level, cond: fn(x, level, cond)
        return lambda x, level, cond: fn(x, level)
    if len(names) > 1 or any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters):
        return lambda x, level, cond: fn(x, torch.full((len(x),), level.time, device=x.device))
    raise ValueError(
        f"the function given to {who} takes no time, so it cannot know how noisy x is: pass "
        "clean=True if it judges clean samples, or one that takes (x, t) or (x, level, cond)"
    )


class GradientSource(Source):
    """A source of the form D + (sigma^2 / alpha) w grad_x f(x); f is :meth:`value`.

    Attributes:
        scale: w >= 0; 0 is off.
    """

    scale: float

    def __post_init__(self) -> None:
        checked_weight(self.scale, type(self).__name__)

    def value(self, x: Tensor, ctx: Context) -> Tensor:
        """(n,) the function to climb, of the noisy state or, ``through_network``, of x0."""
        raise NotImplementedError

    @property
    def through_network(self) -> bool:
        """Whether the function is of the data prediction, which is then differentiated as well."""
        return False

    def plan(self, ctx: Context) -> Steps:
        if self.scale == 0 or ctx.level.alpha == 0:  # without signal x says nothing of the data
            return None
        # Reading it waits for an accelerator, so later steps are checked on the CPU only.
        checked = ctx.first or ctx.x.device.type == "cpu"
        if self.through_network:
            (prediction,) = yield [ctx.base_graph]
            assert ctx.leaf is not None
            with torch.inference_mode(False), torch.enable_grad():
                values = self.value(prediction.to(ctx.x.dtype), ctx)
                found = differentiated(values, ctx.leaf, self.name, checked=checked, shared=True)
            ctx.counters.backward_rows += len(ctx.x)
        else:
            yield [ctx.base]
            found = gradient(lambda x: self.value(x, ctx), ctx.x, self.name, checked=checked)
        ctx.counters.classifier_rows += len(ctx.x)
        unit = ctx.level.sigma**2 / ctx.level.alpha
        return Direction(unit * found.to(ctx.prediction.dtype), self.scale)


def checked_weight(scale: float, who: str) -> None:
    """Raises ValueError for a scale below 0 or none at all."""
    if not math.isfinite(scale) or scale < 0:
        raise ValueError(f"the scale of {who} must be a finite number >= 0 (0 is off), got {scale}")


@dataclass(frozen=True)
class ClassifierGuidance(GradientSource):
    """Guidance by the gradient of a classifier's log p(y | x).

    Args:
        classifier: logits (n, K) from (x, level, cond), (x, level) or (x, t) at the noise level of
            x; with ``clean`` from data predictions (x0), through which the network is
            differentiated too.
        scale: w >= 0; ADM has .5 to 10. 0 is off.
        target: class to guide to; None means the labels of the condition.
        clean: whether the classifier judges clean samples.
        site: tells two of a kind apart.

    Raises:
        ValueError: for another scale, a classifier that takes no time and is not declared
            ``clean``, and while sampling for one that cannot be differentiated.

    Reference:
        Dhariwal and Nichol 2021, arXiv:2105.05233, algorithm 2.
    """

    classifier: Callable[..., Tensor]
    scale: float
    target: int | None = field(default=None, kw_only=True)
    clean: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        takes_level(self.classifier, self.name, clean=self.clean)

    @property
    def through_network(self) -> bool:
        return self.clean

    def value(self, x: Tensor, ctx: Context) -> Tensor:
        classify = takes_level(self.classifier, self.name, clean=self.clean)
        logits = classify(x, ctx.level, ctx.cond)
        if self.target is not None:
            return log_probability(logits, self.target, self.name)
        labels = ctx.labels(self.name)
        if ctx.first and logits.ndim == 2:
            check_range(labels, logits.shape[1], self.name)
        return log_probability(logits, labels, self.name)


@dataclass(frozen=True)
class EnergyGuidance(GradientSource):
    """Guidance down the gradient of an energy: p is weighed by exp(-w E).

    Exact if E is the energy of noisy states, exp(-w E_t(x)) = E[exp(-w E_0(x0)) | x], which
    contrastive energy prediction trains (Lu et al. 2023, arXiv:2304.12824); with ``clean`` E is
    asked of the data prediction instead, the usual approximation.

    Args:
        energy: (n,) energies from (x, level, cond), (x, level) or (x, t) of noisy states; with
            ``clean`` from data predictions (x0), through which the network is differentiated too.
        scale: w >= 0; 0 is off.
        clean: whether the energy is of clean samples.
        site: tells two of a kind apart.

    Raises:
        ValueError: as :class:`ClassifierGuidance`.
    """

    energy: Callable[..., Tensor]
    scale: float
    clean: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        takes_level(self.energy, self.name, clean=self.clean)

    @property
    def through_network(self) -> bool:
        return self.clean

    def value(self, x: Tensor, ctx: Context) -> Tensor:
        energy = takes_level(self.energy, self.name, clean=self.clean)
        values = energy(x, ctx.level, ctx.cond)
        if values.shape != x.shape[:1]:
            raise ValueError(
                f"{self.name} needs one energy for each sample, ({len(x)},), got "
                f"{tuple(values.shape)}: sum over the elements of a sample, never over the batch"
            )
        return -values


def log_probability(logits: Tensor, target: Tensor | int, who: str) -> Tensor:
    """(n,) log softmax of logits (n, K) at the target classes.

    Raises:
        ValueError: if the logits have another shape, or a target given as a number is not below K.
    """
    if logits.ndim != 2:
        raise ValueError(f"{who} needs logits (n, K), got shape {tuple(logits.shape)}")
    if isinstance(target, int):
        if not -logits.shape[1] <= target < logits.shape[1]:
            raise ValueError(
                f"class {target} is asked of a classifier with {logits.shape[1]} classes; "
                f"{who} can have 0 .. {logits.shape[1] - 1}"
            )
        return logits.log_softmax(dim=1)[:, target]
    index = target.to(logits.device).long()[:, None]
    return logits.log_softmax(dim=1).gather(1, index)[:, 0]
