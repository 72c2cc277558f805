"""Analytical teleportation: the first part of a run in closed form, and plans for the rest.

Far above the data's scale a model is all but that of Gaussian data, whose probability flow is
known (:mod:`fewstep.samplers.gaussian.gaussian`). A teleported run jumps from the start noise to a
landing level with no call of the network, and spends all its calls below::

    fit = fit_gaussian(images)
    rho = explained_level(fit, denoiser, images[:256])
    plan = teleported_plan("ipndm", denoiser.process, 5, rho)
    x = sample(denoiser, plan, 5, noise=noise, hooks=[Teleport(fit, denoiser.process, rho)])

With a spec in place of the plan the hook saves calls instead: those that the whole plan makes above
the landing level are not made.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fewstep.samplers.core.plan import Plan
from fewstep.samplers.gaussian.gaussian import Gaussian, level_of
from fewstep.samplers.solvers.effects import check_options
from fewstep.samplers.solvers.spec import Spec, parse_spec
from fewstep.schedules.base import Array
from fewstep.schedules.breaks import snap
from fewstep.schedules.grids import Grid
from fewstep.schedules.limits import check_calls
from fewstep.schedules.process import NoiseProcess
from fewstep.types import Level, RunFacts


class Teleport:
    """A run hook that starts at ``landing``, where the Gaussian's flow has taken the noise.

    Args:
        fit: one Gaussian, or one for each class.
        process: the noise process of the model; the jump starts at its ``rho_max``.
        landing: sigma / alpha where the sampler takes over, between the ends of the process.
        labels: (n,) classes of the samples, for fits by class.

    Raises:
        ValueError: for a landing outside these; when sampling, for samples of another shape.
    """

    def __init__(
        self,
        fit: Gaussian,
        process: NoiseProcess,
        landing: float,
        *,
        labels: Tensor | None = None,
    ) -> None:
        _check(landing, process)
        self.fit, self.process, self.labels = fit, process, labels
        self._landing = float(landing)

    @property
    def start_rho(self) -> float:
        return self._landing

    def check(self, run: RunFacts) -> None:
        """Every sampler goes on from a landing."""

    def start(self, noise: Tensor, x: Tensor, level: Level) -> Tensor:
        """The state (n, ...) at ``level`` from unit noise (n, ...), in the dtype of ``x``."""
        first = level_of(self.process, self.process.rho_max)
        # Noise of a half-precision VE run is scaled before it is rounded again.
        wide = noise.to(torch.promote_types(noise.dtype, torch.float32))
        return self.fit.jump(wide * self.process.start_scale, first, level, self.labels).to(x.dtype)

    def latents(self, noise: Tensor) -> Tensor:
        """The state at the landing level, to hand to a pipeline that runs a teleported plan."""
        return self.start(noise, noise, level_of(self.process, self._landing))

    def after_step(
        self, x: Tensor, x0: Tensor, level: Level, seeds: Sequence[int]
    ) -> Tensor | None:
        return None


def teleported_plan(
    spec: str,
    process: NoiseProcess,
    nfe: int,
    landing: float,
    breakpoints: Sequence[float] = (),
) -> Plan:
    """The plan of ``spec`` whose ``nfe`` calls all lie at or below a landing level.

    Its grid is the spec's own rule on the range that is left. Rules that divide sigma of a flow
    divide sigma / alpha here, which is finite. Its ``provenance`` has the landing.

    Args:
        spec: as ``"ipndm"`` or ``"dpmpp:order=3,grid=karras"``.
        process: the noise process.
        nfe: network calls, >= 1.
        landing: sigma / alpha of the first call, between the ends of the process.
        breakpoints: ratios that nodes are moved onto, as in ``Spec.build``.

    Raises:
        ValueError: for a landing outside these, or what ``Spec.build`` refuses.
    """
    _check(landing, process)
    check_calls(nfe)
    parsed = parse_spec(spec)
    check_options(parsed, process, nfe)
    late = _Late(process, landing)
    ends_at_zero = parsed.grid.get("final", "zero") == "zero"
    steps = parsed.sampler.intervals(late, nfe, ends_at_zero, parsed.options)
    grid = snap(_grid(parsed, late, steps), breakpoints)
    plan = parsed.sampler.plan(grid, nfe, parsed.options).renamed(str(parsed))
    return replace(plan, provenance={**plan.provenance, "landing": float(landing)})


def _grid(spec: Spec, late: "_Late", steps: int) -> Grid:
    """The spec's grid from the landing on, its shift applied as on the whole range."""
    shift = float(spec.grid.get("shift", 1.0))
    if not shift > 0:
        raise ValueError(f"shift must be > 0, got {shift:g}")
    plain = Spec(spec.name, spec.options, {**spec.grid, "shift": 1.0})
    rho = shift * plain.grid_of(_Late(late.whole, late.landing / shift), steps, spec.name).rho
    rho[0] = late.landing
    return Grid(late.whole, rho, late.whole.time(rho), str(spec.grid.get("grid", "auto")))


def _check(landing: float, process: NoiseProcess) -> None:
    low, high = process.rho_min, process.rho_max
    if not (math.isfinite(landing) and low < landing < high):
        raise ValueError(
            f"a landing is a ratio sigma / alpha between {low:g} and {high:g}, the ends of the "
            f"process, got {landing}"
        )


@dataclass(frozen=True)
class _Late(NoiseProcess):
    """A process that starts at the landing level, for the rules of grids."""

    whole: NoiseProcess
    landing: float

    @property
    def rho_max(self) -> float:
        return self.landing

    @property
    def rho_min(self) -> float:
        return self.whole.rho_min

    def from_rho(self, rho: ArrayLike) -> tuple[Array, Array]:
        return self.whole.from_rho(rho)

    def time(self, rho: ArrayLike) -> Array:
        return self.whole.time(rho)

    def rho(self, time: ArrayLike) -> Array:
        return self.whole.rho(time)

    def identity(self) -> dict[str, Any]:
        return self.whole.identity()
