"""Guidance away from a worse prediction: D = c + (w - 1) (c - r).

c is the prediction to be guided, r a worse one, w the scale of the papers (1 is off). As the
weights sum to one, it is the same rule for x0, epsilon and v.
"""

import math
import warnings
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fewstep.guidance.context import Context, check_range
from fewstep.guidance.driver import warn_of_training
from fewstep.guidance.expression import Source
from fewstep.guidance.rows import Direction, Row, Steps
from fewstep.types import Denoiser


def checked_scale(scale: float, who: str) -> None:
    """Raises ValueError for a scale below 0 or none at all; warns of one between 0 and 1."""
    if not math.isfinite(scale) or scale < 0:
        raise ValueError(f"the scale of {who} must be a finite number >= 0 (1 is off), got {scale}")
    if 0 < scale < 1:
        warnings.warn(
            f"a scale of {who} between 0 and 1 moves towards the worse prediction; 1 is off and "
            f"more guides, got {scale}",
            stacklevel=4,
        )


@dataclass(frozen=True)
class Contrast(Source):
    """A source of the form D = c + (w - 1) (c - r); one row more and no call more.

    Attributes:
        scale: w >= 0; 1 is off and asks for no row, 0 is the worse prediction alone.
    """

    scale: float

    def __post_init__(self) -> None:
        checked_scale(self.scale, type(self).__name__)

    @property
    def strength(self) -> float:
        """w - 1, the scale of papers that write c + s (c - r)."""
        return self.scale - 1

    def worse(self, ctx: Context) -> Row:
        """The row of r."""
        raise NotImplementedError

    def plan(self, ctx: Context) -> Steps:
        if self.strength == 0:
            return None
        base, worse = yield [ctx.base, self.worse(ctx)]
        return Direction(base - worse, self.strength)


@dataclass(frozen=True)
class CFG(Contrast):
    """Classifier-free guidance: the worse prediction knows no condition.

    Args:
        scale: w >= 0. Usual: 1.5 for classes, 7.5 for text.
        site: tells two of a kind apart.

    Raises:
        ValueError: for another scale, and while sampling for a model without a condition.

    Reference:
        Ho and Salimans 2022, arXiv:2207.12598, eq. 6, with w = 1 + w of the paper.
    """

    def worse(self, ctx: Context) -> Row:
        if ctx.cond is None:
            raise ValueError("CFG needs a condition to guide by: pass cond=, or leave CFG out")
        if ctx.first:
            count, labels = getattr(ctx.denoiser, "num_classes", None), ctx.cond
            if count and isinstance(labels, Tensor) and not labels.is_floating_point():
                check_range(labels, count, "CFG", null=True)
        null = getattr(ctx.denoiser, "null_cond", None)
        return Row("null", None if null is None else null(ctx.cond))


@dataclass(frozen=True)
class Autoguidance(Source):
    """The worse prediction is that of a second, weaker model under the same condition.

    Args:
        weak: a denoiser of the same noise process and sample shape: smaller, or trained less.
        scale: w >= 0. The paper's EDM2-S uses 2.1 with a guide of 1/16 of the training.
        site: tells two of a kind apart.

    Raises:
        ValueError: for another scale, and while sampling if the models do not match.

    Reference:
        Karras et al. 2024, arXiv:2406.02507, eq. 2.
    """

    weak: Denoiser
    scale: float

    def __post_init__(self) -> None:
        checked_scale(self.scale, "Autoguidance")

    def plan(self, ctx: Context) -> Steps:
        if self.scale == 1:
            return None
        base, worse = yield [ctx.base, weak_row(self.weak, ctx, ctx.cond, self.name)]
        return Direction(base - worse, self.scale - 1)


def weak_row(weak: Denoiser, ctx: Context, cond: Any, key: str) -> Row:
    """A row of a second model.

    Raises:
        ValueError: if its noise process is another.
    """
    if ctx.first:
        warn_of_training(weak)
    ours, theirs = ctx.denoiser.process.identity(), weak.process.identity()
    if ctx.first and ours != theirs:
        raise ValueError(
            f"the weak model was made for another noise process ({theirs.get('process')}) than "
            f"the guided one ({ours.get('process')}); load it with the same process"
        )
    return Row(key, cond, model=weak)


def checked_labels(ctx: Context, who: str) -> tuple[Tensor, int]:
    """The (n,) labels and the number K of classes.

    The range is checked once a run, since reading labels waits for the device.

    Raises:
        ValueError: if labels lie outside 0 .. K - 1, where K means none.
    """
    labels, count = ctx.labels(who), ctx.num_classes(who)
    if ctx.first:
        check_range(labels, count, who)
    return labels, count
