"""Schedulers whose plans may start at a landing, where a Gaussian's flow takes the noise.

A pipeline makes its own start noise and knows nothing of a jump, so the user makes the jump::

    latents = scheduler.start(noise)
    image = pipe(prompt, latents=latents, num_inference_steps=n).images[0]

What the Gaussian predicts above the landing is worked out there, and the first ``step`` of the run
finds it: steps do no more than those of any plan.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from fewstep.samplers.adapter import settings
from fewstep.samplers.adapter.base import PlanSchedulerMixin
from fewstep.samplers.adapter.trajectory import Trajectory
from fewstep.samplers.core.plan import Plan
from fewstep.samplers.gaussian.class_gaussians import (
    START,
    ClassGaussians,
    load_start,
    save_gaussian,
)
from fewstep.samplers.gaussian.gaussian import GaussianFit
from fewstep.samplers.gaussian.warm import WarmTeleport
from fewstep.schedules.prediction import Prediction


@dataclass(frozen=True)
class _Begun:
    """What ``start`` leaves for the first step: of which plan and size, and the history."""

    plan: Plan
    elements: int
    answers: list[Tensor]

    def fits(self, sample: Tensor) -> bool:
        """Without a history pipelines may pack the latents."""
        same = all(answer.shape == sample.shape for answer in self.answers)
        return same and sample.numel() == self.elements


class GaussianStartMixin(PlanSchedulerMixin):
    """A scheduler of stored plans and the Gaussian that belongs to them.

    Attributes:
        gaussian: which ``from_pretrained`` finds beside the config and ``save_pretrained`` writes
            there; a config alone has none.
    """

    gaussian: GaussianFit | ClassGaussians | None = None
    _begun: _Begun | None = None

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As in diffusers, from a folder, a file or the hub; a folder may hold a Gaussian too."""
        loaded: Any = super().from_pretrained(*args, **kwargs)
        folder = Path(args[0] if args else kwargs["pretrained_model_name_or_path"])
        inner = folder / (kwargs.get("subfolder") or "")
        scheduler = loaded[0] if kwargs.get("return_unused_kwargs") else loaded
        if scheduler.config.get("kind") == "fewstep.plan":
            raise ValueError(
                f"{folder} is a plan alone: use {cls.__name__}.from_config(pipe.scheduler.config, "
                "plans=[Plan.load(path)])"
            )
        # diffusers falls back to the folder itself in the same way.
        scheduler.gaussian = load_start(inner if (inner / START).exists() else folder)
        return loaded

    def save_config(self, save_directory: Any, push_to_hub: bool = False, **kwargs: Any) -> None:
        """Writes the config, and the Gaussian if there is one, which goes first."""
        if self.gaussian is not None:
            Path(save_directory).mkdir(parents=True, exist_ok=True)
            save_gaussian(self.gaussian, Path(save_directory) / START)
        super().save_config(save_directory, push_to_hub, **kwargs)

    def clone(self) -> Self:
        other = super().clone()
        other.gaussian = self.gaussian
        return other

    def _held(self) -> Mapping[int, Plan]:
        """The stored plans by their numbers of calls."""
        raise NotImplementedError

    @property
    def init_noise_sigma(self) -> float:
        """1 for a plan that starts from latents of :meth:`start`, which need no scaling."""
        if self._begun is not None or (self.plan is not None and _lands(self.plan)):
            return 1.0
        return super().init_noise_sigma

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Starts the trajectory at an entry of ``timesteps`` (image-to-image).

        Raises:
            ValueError: if there is no such entry, or the plan starts from a Gaussian.
        """
        if begin_index and self.plan is not None and _lands(self.plan):
            raise ValueError(_LATE.format(self.plan.name))
        super().set_begin_index(begin_index)

    def start(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """The latents of one run of a plan that starts from a Gaussian, to hand to a pipeline.

        Args:
            noise: (n, ...) unit noise, of the shape and dtype of the pipeline's latents.
            labels: (n,) classes, for a Gaussian by class.

        Returns:
            (n, ...) the state at the landing, for ``latents=``.

        Raises:
            ValueError: for a plan that starts as usual, without the Gaussian, with several plans
                before ``set_timesteps(n)`` has chosen one, or under thresholding if the history is
                of noise.
        """
        plan = self._to_start()
        if not _lands(plan):
            raise ValueError(
                f"the plan {plan.name!r} starts from plain noise: leave the latents to the pipeline"
            )
        if self.gaussian is None:
            raise ValueError(
                f"the plan {plan.name!r} starts from a Gaussian, which no config holds: use "
                f"from_pretrained(folder) on a local folder with {START}, or set "
                "scheduler.gaussian to load_gaussian(path)"
            )
        forms = {row.form for row in plan.evaluations[: plan.history]}
        if "noise" in forms and settings.live(self.config)["thresholding"]:
            raise ValueError(
                f"the plan {plan.name!r} keeps a history of noise from its Gaussian, which "
                "thresholding would cut: set thresholding=False"
            )
        jump = WarmTeleport(plan, self.process, self.gaussian, labels=labels)
        latents = jump.latents(noise)
        self._begun = _Begun(plan, latents.numel(), jump.answers(latents))
        return latents

    def _to_start(self) -> Plan:
        held = self._held()
        if self.plan is None and len(held) == 1:
            return next(iter(held.values()))
        if self.plan is None:
            numbers = ", ".join(map(str, sorted(held))) or "no"
            raise ValueError(
                f"start() needs one plan and this scheduler holds plans of {numbers} calls: call "
                "set_timesteps(n) first"
            )
        return self.plan

    def _begin(self, run: Trajectory, entry: int, sample: Tensor) -> None:
        """Fills the history of a plan that starts from a Gaussian.

        Raises:
            ValueError: if ``sample`` is not what :meth:`start` made for this run, or a plan without
                a start is run on latents of one with it.
        """
        plan, begun = run.planned.plan, self._begun
        self._begun, refusal = None, ""
        if not _lands(plan):
            refusal = _NO_JUMP if begun is not None else ""
        elif entry:
            refusal = _LATE
        elif begun is None or begun.plan != plan or not begun.fits(sample):
            refusal = _NO_START
        if refusal:
            raise ValueError(refusal.format(plan.name))
        super()._begin(run, entry, sample)
        if begun is not None:
            self._fill(run, begun.answers, sample)

    def _fill(self, run: Trajectory, answers: list[Tensor], sample: Tensor) -> None:
        kind = settings.live(self.config)["prediction_type"]
        prediction = Prediction(kind, self._sigma_data)
        x = sample.to(torch.promote_types(sample.dtype, torch.float32))
        for i, (row, answer) in enumerate(zip(run.planned.plan.evaluations, answers, strict=False)):
            # As the network's output that means this data prediction.
            p, q = prediction.coefficients(row.alpha, row.sigma, "data")
            # A copy to a device that the user's noise was not on must not wait for it.
            data = answer.to(x.device, x.dtype, non_blocking=x.is_cuda)
            run.executor.step(i, (data - p * x) / q, x, torch.zeros_like)


_NO_JUMP = (
    "the plan {!r} starts from plain noise, and scheduler.start() was called for another plan: "
    "call set_timesteps(n) before start()"
)
_NO_START = (
    "the plan {!r} starts from a Gaussian, so that each run of it starts from latents = "
    "scheduler.start(noise): hand them to the pipeline as latents="
)
_LATE = (
    "the plan {!r} starts from a Gaussian at its first level and cannot be entered later: use a "
    "plan without one for image-to-image"
)


def _lands(plan: Plan) -> bool:
    return "landing" in plan.provenance
