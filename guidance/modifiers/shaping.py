"""Modifiers that reshape the guided prediction. Each names the space it works in."""

import math
import warnings
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fewstep.guidance.context import Context
from fewstep.guidance.expression import Expression, Modifier
from fewstep.guidance.modifiers.strength import only_contrast
from fewstep.guidance.rows import Direction, column
from fewstep.guidance.sizes import deviation, norm, ratio, root_mean_square, share
from fewstep.types import Level, RunFacts

Space = Literal["data", "noise", "velocity"]


def to_space(x0: Tensor, x: Tensor, level: Level, space: Space) -> Tensor:
    """A data prediction as x0, eps = (x - alpha x0) / sigma or the flow's v = eps - x0."""
    if space == "data":
        return x0
    eps = (x - level.alpha * x0) / level.sigma
    return eps if space == "noise" else eps - x0


def from_space(value: Tensor, x: Tensor, level: Level, space: Space) -> Tensor:
    """The inverse of :func:`to_space`; noise needs alpha > 0."""
    if space == "data":
        return value
    if space == "noise":
        return (x - level.sigma * value) / level.alpha
    return (x - level.sigma * value) / (level.alpha + level.sigma)


def grain(value: Tensor, x: Tensor, level: Level, space: Space) -> Tensor:
    """(n,) the rounding of a prediction in a space, as a root mean square.

    A constant that the network returned has passed through x0 and back, in the dtype of ``x``: it
    is constant up to some roundings of the terms that it was made of.
    """
    terms = root_mean_square(value)
    if space != "data":
        terms = terms + root_mean_square(x) / level.sigma
    return 2 * torch.finfo(x.dtype).eps * terms


@dataclass(frozen=True)
class Project(Modifier):
    """Adaptive projected guidance, in x0 space.

    delta <- delta + beta delta_prev; scale it down to norm r; split it into the parts parallel and
    orthogonal to c and keep eta of the parallel one. ``CFG(w) | Project()`` is the paper's rule
    with eta = 0. diffusers' guider adds w times the result to u by default, which is another rule,
    and works on the model's output. delta_prev is that of the last solver step.

    Args:
        eta: of the parallel part, in [0, 1]; 1 keeps all.
        r: largest norm of delta over a sample, > 0; None does not clip. (SDXL: 15.)
        beta: momentum, in (-1, 1). (SDXL: -.5.)

    Raises:
        ValueError: for values outside these.

    Reference:
        Sadat et al. 2024, arXiv:2410.02416, algorithm 1.
    """

    eta: float = 0.0
    r: float | None = None
    beta: float = 0.0
    remembers = True

    @property
    def is_field(self) -> bool:
        return not self.beta

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1 or not -1 < self.beta < 1:
            raise ValueError(
                f"Project takes eta in [0, 1] and beta in (-1, 1), got {self.eta} and {self.beta}"
            )
        if self.r is not None and not (math.isfinite(self.r) and self.r > 0):
            raise ValueError(f"r of Project must be > 0, or None for no clipping, got {self.r}")

    def shape(self, base: Tensor, direction: Direction, ctx: Context) -> Direction:
        delta = direction.delta
        if self.beta:
            delta = self._with_momentum(delta, ctx)
        if self.r is not None:
            delta = column(ratio(self.r, norm(delta)).clamp(max=1.0), delta) * delta
        # A zero base has no direction: whatever its share, nothing is taken away.
        delta = delta - (1 - self.eta) * column(share(delta, base), base) * base
        return Direction(delta, direction.strength)

    def _with_momentum(self, delta: Tensor, ctx: Context) -> Tensor:
        kept = ctx.memory.setdefault(f"{id(self)} Project", {"step": -1})
        if kept["step"] != ctx.level.step:
            kept.update(step=ctx.level.step, before=kept.get("now"))
        before = kept["before"]
        kept["now"] = delta if before is None else delta + self.beta * before
        now: Tensor = kept["now"]
        return now


@dataclass(frozen=True)
class Rescale(Modifier):
    """Rescales the guided prediction to the deviation of the unguided one, blended by phi.

    A sample of which either is constant, and so has no deviation, is left as it is.

    Args:
        phi: in [0, 1]; 0 does nothing.
        space: the model's own output, in which deviations are taken: ``"noise"``, ``"velocity"`` of
            a flow, or ``"data"``.

    Raises:
        ValueError: for values outside these.

    Reference:
        Lin et al. 2023, arXiv:2305.08891, eq. 14-16 (phi = .7).
    """

    phi: float = 0.7
    space: Space = "noise"

    def __post_init__(self) -> None:
        if not 0 <= self.phi <= 1:
            raise ValueError(f"phi of Rescale must lie in [0, 1], got {self.phi}")
        if self.space not in ("data", "noise", "velocity"):
            raise ValueError(f"space of Rescale is data, noise or velocity, got {self.space!r}")

    def shape(self, base: Tensor, direction: Direction, ctx: Context) -> Direction:
        if self.space == "noise" and ctx.level.alpha == 0:
            return direction  # noise says nothing of the data there
        x = ctx.x.to(base.dtype)
        plain = to_space(base, x, ctx.level, self.space)
        guided = to_space(base + direction.total, x, ctx.level, self.space)
        factor = ratio(
            deviation(plain), deviation(guided), grain(plain, ctx.x, ctx.level, self.space)
        )
        scaled = column(self.phi * factor + (1 - self.phi), guided) * guided
        return Direction(from_space(scaled, x, ctx.level, self.space) - base, 1.0)


@dataclass(frozen=True)
class ZeroStar(Modifier):
    """CFG-Zero*, in velocity space, for flow models.

    With a = <c, u> / |u|^2 for each sample (1 where u is 0) the guided velocity is
    a u + w (c - a u), and the first solver steps have velocity zero.

    Args:
        zero_steps: how many, >= 0; about 4 % of the run.

    Raises:
        ValueError: for a negative count, behind anything but one contrast, and while sampling for a
            process that is not a flow.

    Reference:
        Fan et al. 2025, arXiv:2503.18886, eq. 8-10.
    """

    zero_steps: int = 1

    @property
    def is_field(self) -> bool:
        return not self.zero_steps

    def __post_init__(self) -> None:
        if self.zero_steps < 0:
            raise ValueError(f"zero_steps of ZeroStar must be >= 0, got {self.zero_steps}")

    def fits(self, left: Expression) -> None:
        only_contrast(left, "ZeroStar")

    def check(self, run: RunFacts) -> None:
        if self.zero_steps and run.reads > 1:
            warnings.warn(
                f"the zero velocities of ZeroStar stay in the history of a solver that reads "
                f"{run.reads} outputs; use a solver of first order, or ZeroStar(0)",
                stacklevel=4,
            )

    def shape(self, base: Tensor, direction: Direction, ctx: Context) -> Direction:
        kind = ctx.denoiser.process.identity().get("process")
        if kind != "flow":
            raise ValueError(
                f"ZeroStar works on the velocity of flow models, and this process is {kind}: use "
                "Project() or Rescale() instead"
            )
        x, level = ctx.x.to(base.dtype), ctx.level
        if level.step < self.zero_steps:
            # eps - x0 = 0 at x = alpha x0 + sigma eps.
            return Direction(x / (level.alpha + level.sigma) - base, 1.0)
        c = to_space(base, x, level, "velocity")
        u = to_space(base - direction.delta, x, level, "velocity")
        count = u[:1].numel() ** 0.5  # from a root mean square to a norm
        a = column(share(c, u, count * grain(u, ctx.x, level, "velocity")), u)
        # x0 falls by sigma / (alpha + sigma) for each unit of velocity.
        unit = -level.sigma / (level.alpha + level.sigma)
        return Direction(unit * (c - a * u), direction.strength)


@dataclass(frozen=True)
class DynamicThreshold(Modifier):
    """Imagen's dynamic thresholding of the guided x0, for models of pixels in [-1, 1].

    s is the quantile of a sample's absolute values, at least 1; x0 is clamped to [-s, s] and
    divided by s. It acts after all other modifiers, wherever it is written, and only on guided
    steps.

    Args:
        quantile: in (0, 1].

    Raises:
        ValueError: for another quantile, and while sampling for a denoiser of latents.

    Reference:
        Saharia et al. 2022, arXiv:2205.11487, section 2.3.
    """

    quantile: float = 0.995
    last = True

    def __post_init__(self) -> None:
        if not 0 < self.quantile <= 1:
            raise ValueError(
                f"quantile of DynamicThreshold must lie in (0, 1], got {self.quantile}"
            )

    def shape(self, base: Tensor, direction: Direction, ctx: Context) -> Direction:
        if getattr(ctx.denoiser, "latent", False):
            raise ValueError(
                "DynamicThreshold is for pixels in [-1, 1], and this model's samples are latents: "
                "use Rescale() or Project()"
            )
        guided = base + direction.total
        bound = torch.quantile(guided.flatten(1).abs(), self.quantile, dim=1).clamp_min(1.0)
        limit = column(bound, guided)
        return Direction(torch.minimum(torch.maximum(guided, -limit), limit) / limit - base, 1.0)
