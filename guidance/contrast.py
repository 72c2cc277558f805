"""Guidance away from a worse prediction: D = c + (w - 1) (c - r).

c is the prediction to be guided, r a worse one, w the scale of the papers (1 is off). As the
weights sum to one, it is the same rule for x0, epsilon and v.
"""

import math
import warnings
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from fewstep.guidance.context import Context, check_range
from fewstep.guidance.driver import warn_of_training
from fewstep.guidance.expression import Source
from fewstep.guidance.rows import Direction, Row, Steps, TimeNoise
from fewstep.types import Denoiser, RunFacts

ICGMode = Literal["class", "gaussian", "text"]
# What a dictionary condition calls its text embeddings; sizes and masks stay as they are.
EMBEDDINGS = ("encoder_hidden_states", "text_embeds", "pooled_projections")


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

    def __str__(self) -> str:
        return f"{self.name}({self.scale:g})"


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
class ICG(Contrast):
    """Independent-condition guidance: the worse prediction is told a random condition.

    It needs no unconditional model. The condition is drawn anew for each sample at each solver
    step, independent of the sample. Note that the mean of the random predictions is *not* the
    unconditional one unless the noise is high: on an exact model ICG overshoots where CFG does not.

    Args:
        scale: w >= 0. The paper has 1.4 for DiT's classes and 3 for Stable Diffusion's text.
        mode: ``"class"``, a uniform class (it may be the sample's own); ``"gaussian"``, unit noise
            times the standard deviation of the sample's own embedding; ``"text"``, random tokens
            through the text encoder (in pipelines).
        site: tells two of a kind apart.

    Raises:
        ValueError: for another mode or scale, and while sampling for a condition that does not fit
            the mode.

    Reference:
        Sadat et al. 2024, arXiv:2407.02687, section 4.1 (ours takes deviations per sample, the
        paper's pseudo-code over the batch).
    """

    mode: ICGMode = "class"
    is_field = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in ("class", "gaussian", "text"):
            raise ValueError(f"mode of ICG must be class, gaussian or text, got {self.mode!r}")

    def check(self, run: RunFacts) -> None:
        warn_of_extrapolation(self.name, run)

    def worse(self, ctx: Context) -> Row:
        if ctx.cond is None:
            raise ValueError("ICG needs a condition to replace: pass cond=, or use TSG()")
        return Row(self.name, getattr(self, f"_{self.mode}")(ctx))

    def _class(self, ctx: Context) -> Any:
        own, count = checked_labels(ctx, "ICG in class mode")
        drawn = ctx.draws.integers(count, (), ctx.level.step, self.name)
        return ctx.relabelled(ctx.on_device(drawn).to(own.dtype))

    def _gaussian(self, ctx: Context) -> Any:
        if isinstance(ctx.cond, Tensor):
            return self._noisy(ctx.cond, ctx, "")
        found: dict[str, Any] = {
            key: self._noisy(ctx.cond[key], ctx, key) for key in EMBEDDINGS if key in ctx.cond
        }
        if not found:
            raise ValueError(
                f"ICG in gaussian mode found none of {', '.join(EMBEDDINGS)} in the condition"
            )
        added = ctx.cond.get("added_cond_kwargs", {})  # SDXL's pooled text
        if "text_embeds" in added:
            noisy = self._noisy(added["text_embeds"], ctx, "text_embeds")
            found["added_cond_kwargs"] = {**added, "text_embeds": noisy}
        return {**ctx.cond, **found}

    def _noisy(self, embedding: Tensor, ctx: Context, key: str) -> Tensor:
        if not embedding.is_floating_point():
            raise ValueError("ICG in gaussian mode needs an embedding; for labels use mode='class'")
        noise = ctx.draws.normal(embedding.shape[1:], ctx.level.step, self.name + key)
        spread = embedding.float().flatten(1).std(dim=1)
        column = spread.view(-1, *[1] * (embedding.ndim - 1))
        return (column * noise.to(embedding.device, non_blocking=True)).to(embedding.dtype)

    def _text(self, ctx: Context) -> Any:
        encode = getattr(ctx.denoiser, "random_text", None)
        if encode is None:
            raise ValueError(
                "ICG in text mode needs a text encoder: attach it to a pipeline that has one, or "
                "use mode='gaussian' on the embeddings"
            )

        def tokens(high: int, length: int) -> Tensor:
            return ctx.draws.integers(high, (length,), ctx.level.step, self.name)

        return encode(ctx.cond, tokens)


@dataclass(frozen=True)
class TSG(Contrast):
    """Time-step guidance: the worse prediction has a noisy time embedding.

    t_emb is replaced by t_emb + s t^a std(t_emb) n, with n unit noise drawn anew for each sample at
    each solver step and shared by all embedders of the network; t is the network time as a fraction
    of its range (the paper's tables count in thousandths, its text in [0, 1]; this is our reading).
    Its gain is an empirical property of networks: to first order the effect on an exact model is
    zero-mean noise that averages out over the steps, and it cannot improve one. The network must
    not be compiled (the embedding is reached by hooks).

    Args:
        scale: w >= 0. The paper has 2.5 for conditional DiT, 5 (s = 1, power 0, t between .2 and
            .8) for unconditional.
        s: noise in units of the embedding's deviation, > 0.
        power: a >= 0; 0 is the constant schedule.
        module: dotted name of the time embedding in the network; None looks for the usual ones.
        site: tells two of a kind apart.

    Raises:
        ValueError: for values outside these, and while sampling if no time embedding is found.

    Reference:
        Sadat et al. 2024, arXiv:2407.02687, section 4.2.
    """

    scale: float = 2.5
    s: float = 2.0
    power: float = 1.0
    module: str | None = None
    is_field = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (math.isfinite(self.s) and self.s > 0):
            raise ValueError(f"s of TSG must be a finite number > 0, got {self.s}; leave TSG out")
        if not (math.isfinite(self.power) and self.power >= 0):
            raise ValueError(f"power of TSG must be a finite number >= 0, got {self.power}")

    def check(self, run: RunFacts) -> None:
        warn_of_extrapolation(self.name, run)

    def worse(self, ctx: Context) -> Row:
        scale = self.s * ctx.time_fraction**self.power
        return Row(self.name, ctx.cond, time_noise=TimeNoise(self.name, scale, self.module))


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

    def __str__(self) -> str:
        return f"{self.name}({self.scale:g})"


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


def warn_of_extrapolation(who: str, run: RunFacts) -> None:
    """Warns if independent draws of successive steps are extrapolated from."""
    if run.reads > 2:
        warnings.warn(
            f"{who} draws anew at each step, and a solver that extrapolates from {run.reads} steps "
            "amplifies that noise; use order 1 or 2",
            stacklevel=4,
        )
