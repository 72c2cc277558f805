"""What scripts assign to a scheduler: it is obeyed, or refused with what does it.

The classes of diffusers read their config, so that ``scheduler.use_karras_sigmas = True`` does
nothing there; a few attributes they do read. Of those, pipelines assign ``sigma_min`` and
``sigma_max`` of a flow, and the tensors of :mod:`fewstep.samplers.adapter.public`.
"""

import warnings
from typing import Any

from fewstep.samplers.adapter import settings
from fewstep.samplers.adapter.training import training_levels
from fewstep.schedules.diffusers.config import FLOW_CLASSES, class_name
from fewstep.schedules.process import Flow

SLOTS = {"_sigma_max", "_sigma_min"}  # where a scheduler keeps them
NO_EFFECT = (
    "scheduler.{}={:g} has no effect: it places the levels that a flow's class in diffusers "
    "counts, which grid='diffusers' walks; pass sigmas= to set_timesteps"
)


class FlowEnd:
    """A sigma between which and another a flow's class in diffusers counts n levels.

    Assigned, it is obeyed by ``grid="diffusers"`` from the next ``set_timesteps(n)`` on, as by the
    class; all our other grids start at sigma = 1 and end at 0. Like there it is no setting and is
    not saved. Reading it before gives the end of the training levels.

    Args:
        entry: of the training levels.
        always: the value that all our grids obey.
    """

    def __init__(self, entry: int, always: float) -> None:
        self.entry, self.always = entry, always

    def __set_name__(self, owner: type, name: str) -> None:
        self.name, self.slot = name, f"_{name}"

    def __get__(self, scheduler: Any, owner: type) -> Any:
        if scheduler is None:
            return self
        if not isinstance(scheduler.process, Flow):
            raise AttributeError(f"{self.name} of this process is an argument, in the config")
        if self.slot in vars(scheduler):
            return vars(scheduler)[self.slot]
        levels = training_levels(scheduler.process, settings.live(scheduler.config))
        return float(levels["sigmas"][self.entry])

    def __set__(self, scheduler: Any, value: float) -> None:
        if not isinstance(scheduler.process, Flow):
            raise refusal(self.name, value)
        if not 0 <= value <= 1:
            raise ValueError(f"{self.name} of a flow must lie in [0, 1], got {value}")
        if value != self.always and not counts_between(scheduler):
            warnings.warn(NO_EFFECT.format(self.name, value), stacklevel=3)
        vars(scheduler)[self.slot] = float(value)


def counts_between(scheduler: Any) -> bool:
    """Whether the scheduler walks the levels that a class of diffusers counts between two ends."""
    config = settings.live(scheduler.config)
    return config["grid"] == "diffusers" and class_name(settings.view(config)) in FLOW_CLASSES


def assigned_ends(scheduler: Any) -> tuple[float, float] | None:
    """(sigma_max, sigma_min) if one of them was assigned and the class of the config reads them.

    Raises:
        ValueError: if the levels between them do not fall.
    """
    if (
        not vars(scheduler).keys() & SLOTS
        or class_name(settings.view(settings.live(scheduler.config))) not in FLOW_CLASSES
    ):
        return None
    high, low = scheduler.sigma_max, scheduler.sigma_min
    if not low < high:
        raise ValueError(f"sigma_max must be above sigma_min of a flow, got {high} and {low}")
    return high, low


def assignable(cls: type, name: str) -> bool:
    """Whether an attribute of a class says itself what assigning to it does."""
    attribute = getattr(cls, name, None)
    return hasattr(attribute, "__set__") and getattr(attribute, "fset", cls) is not None


def refusal(name: str, value: Any) -> ValueError:
    """What an argument that was assigned as an attribute raises."""
    return ValueError(
        f"scheduler.{name} = {value!r} would change nothing: {name} is an argument, so write "
        f"scheduler = type(scheduler).from_config(scheduler.config, {name}=...)"
    )
