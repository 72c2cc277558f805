"""Gradient-free classifier guidance: the worse prediction is that of a class it may be taken for.

A *reconstruction*. Of the paper (arXiv:2411.15393) only the abstract and a summary could be had:
no gradients; a classifier in inference mode picks a reference class and a scale at each step; the
scale depends on how confused the model is; a conditional prediction is the reference; it joins
Autoguidance at no cost. The formula of the scale, what the classifier is shown, and every constant
here are ours. Read the paper before claiming to reproduce it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fewstep.guidance.context import Context
from fewstep.guidance.expression import Source
from fewstep.guidance.rows import Direction, Row, Steps, taken
from fewstep.guidance.sources.contrast import checked_labels, weak_row
from fewstep.types import Denoiser

NEGLIGIBLE = 1e-3  # strengths below it are not worth a row


@dataclass(frozen=True)
class GFCG(Source):
    """Gradient-free classifier guidance (reconstruction, see the module).

    At each evaluation, with c the conditional prediction of x0 and p = softmax(classifier(c)):
    the reference class is the likeliest one other than the sample's own y, the scale is
    w = 1 + (w_max - 1) (1 - p_y)^power for each sample, and D = c + (w - 1) (c - r) with
    r = D(x; reference class). Samples with w - 1 < 1e-3 are left alone, and cost no row on the
    CPU. No autograd graph is built.

    Args:
        classifier: clean images (n, ...) -> logits (n, K), in evaluation mode. For latent models
            one of latents, or one that decodes first.
        w_max: scale at full confusion, >= 1.
        power: > 0; how fast the scale falls with confidence.
        weak: a weaker denoiser that makes r: Autoguidance towards the reference class at its cost.
        lagged: shows the classifier the c of the last evaluation instead, so that everything fits
            into one call; the first evaluation is unguided.
        site: tells two of a kind apart.

    Raises:
        ValueError: for values outside these, and while sampling if the classifier's width is not
            the model's number of classes.
    """

    classifier: Callable[[Tensor], Tensor]
    w_max: float = 2.0
    power: float = field(default=1.0, kw_only=True)
    weak: Denoiser | None = field(default=None, kw_only=True)
    lagged: bool = field(default=False, kw_only=True)

    @property
    def is_field(self) -> bool:
        return not self.lagged

    def __post_init__(self) -> None:
        if not (math.isfinite(self.w_max) and self.w_max >= 1):
            raise ValueError(
                f"w_max of GFCG must be a finite number >= 1 (1 is off), got {self.w_max}"
            )
        if not (math.isfinite(self.power) and self.power > 0):
            raise ValueError(f"power of GFCG must be a finite number > 0, got {self.power}")

    def plan(self, ctx: Context) -> Steps:
        if self.w_max == 1:
            return None
        labels, count = checked_labels(ctx, "GFCG")
        memory = self.memory(ctx)
        if self.lagged:
            shown = memory.get("shown")
            if shown is None:
                (memory["shown"],) = yield [ctx.base]
                return None
        else:
            (shown,) = yield [ctx.base]
        reference, strength = self._choose(shown, labels, count, ctx)
        needed = self._needed(strength)
        if needed is not None and not len(needed):
            if self.lagged:
                (memory["shown"],) = yield [ctx.base]
            return None
        base, worse = yield [ctx.base, self._row(ctx, reference, needed)]
        delta = base - worse if needed is None else torch.zeros_like(base)
        if needed is not None:
            delta[needed] = base[needed] - worse
        if self.lagged:
            memory["shown"] = base
        return Direction(delta, strength)

    @torch.no_grad()
    def _choose(
        self, shown: Tensor, labels: Tensor, count: int, ctx: Context
    ) -> tuple[Tensor, Tensor]:
        """(n,) the reference class and w - 1 of each sample."""
        logits = self.classifier(shown.to(ctx.x.dtype))
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        ctx.counters.classifier_rows += len(shown)
        if logits.ndim != 2 or logits.shape[1] != count or count < 2:
            raise ValueError(
                f"GFCG needs a classifier of the model's {count} classes (2 at least), got logits "
                f"of shape {tuple(logits.shape)}"
            )
        own = labels.to(logits.device).long()[:, None]
        confusion = 1 - logits.softmax(dim=1).gather(1, own)[:, 0]
        strength = (self.w_max - 1) * confusion**self.power
        strength = torch.where(strength < NEGLIGIBLE, 0.0, strength)
        return logits.scatter(1, own, -math.inf).argmax(dim=1), strength

    def _needed(self, strength: Tensor) -> Tensor | None:
        """The samples to guide where that is known without waiting for a device, else None: all."""
        if strength.device.type != "cpu" or bool((strength > 0).all()):
            return None
        return strength.nonzero()[:, 0]

    def _row(self, ctx: Context, reference: Tensor, needed: Tensor | None) -> Row:
        reference = reference.to(ctx.labels("GFCG").dtype)
        cond = ctx.relabelled(reference)
        if needed is not None:
            cond = taken(cond, needed)
        if self.weak is None:
            return Row(self.name, cond, subset=needed)
        row = weak_row(self.weak, ctx, cond, self.name)
        return Row(row.key, row.cond, model=row.model, subset=needed)
