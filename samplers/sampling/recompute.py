"""Differentiable sampling: network calls whose activations the backward pass makes anew."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fewstep.types import Denoiser, Guidance, Level

Evaluate = Callable[[Tensor, Level, Any], Tensor]


def recomputed(denoiser: Denoiser, guidance: Guidance | None) -> Evaluate:
    """Calls of a denoiser that keep their inputs alone, for one forward call more each.

    Its result and gradients are those of a plain call. What is recomputed must be the same the
    second time, and the calls come back last to first, so it may neither remember nor draw.

    Args:
        denoiser: of the run, wrapped in its guidance.
        guidance: that it is wrapped in, or None.

    Raises:
        ValueError: for guidance that does not say it is a function of (x, level, cond), by an
            attribute ``is_field``; in a call, for guidance that reads a classifier or takes
            gradients of its own, through which none are passed on.

    Reference:
        Chen et al. 2016, arXiv:1604.06174, with a segment for each call.
    """
    if guidance is not None and not getattr(guidance, "is_field", False):
        raise ValueError(
            f"differentiable=True makes each call twice, and {guidance} may not be the same the "
            "second time: use differentiable=False, which keeps activations, or guidance without "
            "memory and draws (is_field)"
        )

    def call(x: Tensor, level: Level, cond: Any) -> Tensor:
        made: Tensor = checkpoint(denoiser, x, level, cond, use_reentrant=False)
        if getattr(getattr(denoiser, "counters", None), "classifier_rows", 0):
            raise ValueError(
                f"{guidance} takes gradients of its own or reads a classifier, which counts as a "
                "constant to autograd: leave it out of differentiable sampling"
            )
        return made

    return call
