"""Guidance towards rare samples: by a classifier of rarity, or by the model itself."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fewstep.guidance.context import Context, differentiated
from fewstep.guidance.expression import Source
from fewstep.guidance.rows import Direction, Row, Steps, column
from fewstep.guidance.sizes import ratio, rows_of
from fewstep.guidance.sources.gradients import (
    GradientSource,
    checked_weight,
    log_probability,
    takes_level,
)
from fewstep.types import Level

Distance = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Minority(GradientSource):
    """Minority guidance: the gradient of log p(bin | x) of a classifier of ordinal rarity classes.

    The classes are quantiles of the minority score, the error of the one-shot reconstruction of a
    noised sample (:func:`fewstep.models.minority_score`, :func:`fewstep.models.ordinal_classes`);
    the classifier sees noisy samples. Judge the result with an off-support figure beside any
    measure of rarity: broken samples are rare too.

    Args:
        classifier: logits (n, L) from (x, level, cond), (x, level) or (x, t); for the bundled data
            :func:`fewstep.models.bundled_minority_classifier`.
        scale: w >= 0; the authors' LSUN setting is 3.5. 0 is off.
        bin: the class to guide to, 0 the commonest; negative ones count from the rarest.
        site: tells two of a kind apart.

    Raises:
        ValueError: for another scale, a classifier that takes no time or cannot be differentiated,
            or a bin that it does not have.

    Reference:
        Um et al. 2023, arXiv:2301.12334, algorithm 1.
    """

    classifier: Callable[..., Tensor]
    scale: float = 3.5
    bin: int = field(default=-1, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        takes_level(self.classifier, self.name, clean=False)
        count = getattr(self.classifier, "num_classes", None)
        if isinstance(count, int) and not -count <= self.bin < count:
            raise ValueError(
                f"bin {self.bin} is asked of a classifier of {count} ordinal classes; take one of "
                f"0 (commonest) .. {count - 1} (rarest)"
            )

    def value(self, x: Tensor, ctx: Context) -> Tensor:
        classify = takes_level(self.classifier, self.name, clean=False)
        return log_probability(classify(x, ctx.level, ctx.cond), self.bin, self.name)


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """(n,) mean squared difference of the elements of each sample."""
    return (a - b).square().flatten(1).mean(dim=1)


@dataclass(frozen=True)
class SelfMinority(Source):
    """Self-guided minority generation: towards what the model itself fails to reconstruct.

    x0 = D(x); noise it to a fixed level; x0' = D of that, taken as constant; climb the distance of
    the two by x, its gradient divided by its largest element for each sample. The step is that of
    the authors' variance-preserving ancestral sampler, sigma~^2 / sqrt(1 + sigma~^2) w g in x0 with
    sigma~ = sigma / alpha. The size does not fall with the gradient, so it wants many steps:
    the authors use 250 and guide every fifth, ``SelfMinority(0.4) | Every(5)``.

    Args:
        scale: w >= 0; .4 for CelebA, .2 for ImageNet-64. 0 is off.
        level: the network time to noise to, as a fraction of the training time, in (0, 1).
        distance: (n, ...), (n, ...) -> (n,), differentiable; None is the mean squared difference
            (the authors use LPIPS).
        site: tells two of a kind apart.

    Raises:
        ValueError: for values outside these.

    Reference:
        Um and Ye 2024, arXiv:2407.11555, algorithm 1.
    """

    scale: float = 0.4
    level: float = field(default=0.8, kw_only=True)
    distance: Distance = field(default=squared_distance, kw_only=True)
    is_field = False

    def __post_init__(self) -> None:
        checked_weight(self.scale, "SelfMinority")
        if not 0 < self.level < 1:
            raise ValueError(
                f"level of SelfMinority is a fraction of the training time between 0 and 1, got "
                f"{self.level}"
            )

    def plan(self, ctx: Context) -> Steps:
        rho = ctx.level.rho
        if self.scale == 0 or math.isinf(rho):  # without signal x says nothing of the data
            return None
        (first,) = yield [ctx.base_graph]
        level = self._noisy_level(ctx)
        noise = ctx.on_device(ctx.draws.normal(ctx.x.shape[1:], ctx.level.step, self.name))
        noised = level.alpha * first.detach() + level.sigma * noise.to(first.dtype)
        row = Row(self.name, ctx.cond, at=(noised.to(ctx.x.dtype), level))
        (again,) = yield [row]
        assert ctx.leaf is not None
        checked = ctx.first or ctx.x.device.type == "cpu"
        with torch.inference_mode(False), torch.enable_grad():
            # A clone, since inference tensors cannot take part in a backward pass.
            values = self.distance(first, again.detach().clone())
            found = differentiated(values, ctx.leaf, self.name, checked=checked, shared=True)
        ctx.counters.backward_rows += len(ctx.x)
        largest = rows_of(found).abs().amax(dim=1)
        # In coordinates of unit variance, so that it is the same for every process.
        unit = column(ratio(1.0, largest), first) * found.to(first.dtype)
        return Direction(rho**2 / math.sqrt(1 + rho**2) * unit, self.scale)

    def _noisy_level(self, ctx: Context) -> Level:
        process = ctx.denoiser.process
        start, end = (float(process.time(rho)) for rho in (process.rho_max, process.rho_min))
        time = end + self.level * (start - end)
        alpha, sigma = (float(value) for value in process.alpha_sigma(time))
        return Level(time, alpha, sigma, ctx.level.index, step=ctx.level.step)
