"""Guidance away from what the same network says with part of its input made random.

Independent-condition and time-step guidance (Sadat et al. 2024, arXiv:2407.02687): CFG for networks
that were never trained without a condition, and for those that have none.
"""

import math
import warnings
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from fewstep.guidance.context import Context
from fewstep.guidance.rows import Row, TimeNoise, column
from fewstep.guidance.sizes import deviation
from fewstep.guidance.sources.contrast import Contrast, checked_labels
from fewstep.types import RunFacts

ICGMode = Literal["class", "gaussian", "text"]
# What a dictionary condition calls its text embeddings; sizes and masks stay as they are.
EMBEDDINGS = ("encoder_hidden_states", "text_embeds", "pooled_projections")


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

    mode: ICGMode = field(default="class", kw_only=True)
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
        noise = noise.to(embedding.device, non_blocking=True)
        return (column(deviation(embedding), noise) * noise).to(embedding.dtype)

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
    s: float = field(default=2.0, kw_only=True)
    power: float = field(default=1.0, kw_only=True)
    module: str | None = field(default=None, kw_only=True)
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


def warn_of_extrapolation(who: str, run: RunFacts) -> None:
    """Warns if independent draws of successive steps are extrapolated from."""
    if run.reads > 2:
        warnings.warn(
            f"{who} draws anew at each step, and a solver that extrapolates from {run.reads} steps "
            "amplifies that noise; use order 1 or 2",
            stacklevel=4,
        )
