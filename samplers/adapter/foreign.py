"""How a scheduler takes over the config of another class, and keyword arguments beside it."""

import inspect
import warnings
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import diffusers
from diffusers.configuration_utils import FrozenDict

from fewstep.samplers.adapter import settings
from fewstep.samplers.adapter.said import in_our_words
from fewstep.samplers.adapter.settings import PROCESS_KEYS, live, shift_names
from fewstep.samplers.adapter.unheard import warn_unheard
from fewstep.schedules.diffusers.config import (
    FLOW_CLASSES,
    REFUSED,
    TABLE_CLASSES,
    VE_CLASSES,
    from_diffusers_config,
)
from fewstep.schedules.diffusers.distilled import why_no_ode
from fewstep.schedules.diffusers.spacing import shift_from_config, switch_from_config
from fewstep.schedules.process import Flow

SOLVER_TYPES = (("midpoint", "heun"), ("bh1", "bh2"))


def spelled_out(overrides: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments in our words, those that choose a grid so that they win over the config.

    Raises:
        ValueError: if two of diffusers' sigma switches are on, or two names of one argument differ.
    """
    result = in_our_words(overrides, known)
    switch = switch_from_config(overrides)
    if switch and "grid" not in result:
        result["grid"] = switch[0]
    elif result.get("timestep_spacing"):
        result.setdefault("grid", result["timestep_spacing"])
    if result.get("final_sigmas_type"):
        result.setdefault("final", result["final_sigmas_type"])
    return result


def carry(scheduler: Any, carried: Mapping[str, Any]) -> None:
    """Puts what :func:`split` carries into a scheduler's config, and what of it is mere default.

    A flow's shift is carried under both of its names, so that the next class finds it.
    """
    carried = {**carried, **shift_names({**carried, **settings.live(scheduler.config)})}
    defaults = {*carried.get("_use_default_values", ())} & carried.keys()
    defaults |= {*scheduler.config.get("_use_default_values", ())}
    scheduler.register_to_config(**{**carried, "_use_default_values": sorted(defaults)})


def adopt(config: Mapping[str, Any]) -> dict[str, Any]:
    """A foreign scheduler's config as one of ours.

    Values that name the process are taken even where they are the foreign class's defaults, since
    defaults differ between classes. A function (SA-Solver's ``tau_func``) is left behind with a
    warning, since no config with one can be saved.

    Raises:
        ValueError: if its noise process cannot be represented, or its network is none that a solver
            applies to, with the reason.
    """
    origin = config.get("_class_name") or origin_of(config)
    taken = {**_storable(live(config)), "_class_name": origin}
    if refusal := why_no_ode(taken):
        raise ValueError(refusal)
    process = from_diffusers_config(taken)
    # All its classes have the same default end, so that one may travel; spacings differ.
    kept = {*PROCESS_KEYS, "final_sigmas_type"}
    silent = _mere_defaults(taken, _init_defaults(origin))
    taken["_use_default_values"] = [key for key in silent if key not in kept]
    taken["inherited_from"] = taken["_class_name"]
    if isinstance(process, Flow):
        taken["prediction_type"] = taken.get("prediction_type") or "flow_prediction"
        taken["flow_shift"] = shift_from_config({**taken, "use_dynamic_shifting": False})
        # Pipelines that see it drop the sigmas= of their callers; diffusers' multistep classes need
        # it to know what the process is, and say it themselves.
        taken["use_flow_sigmas"] = bool(config.get("use_flow_sigmas"))
    # There True means "below 15 calls", which is our default.
    if taken.get("lower_order_final"):
        del taken["lower_order_final"]
    return taken


def _mere_defaults(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """Keys that nobody has said: a value that was changed later is said, whatever the list has."""
    listed = config.get("_use_default_values", ())
    return [key for key in listed if config.get(key) == defaults.get(key, config.get(key))]


def _warn_of_two_shifts(config: Mapping[str, Any]) -> None:
    names = [config.get("flow_shift"), config.get("shift")]
    if "inherited_from" in config and None not in names and names[0] != names[1]:
        warnings.warn(
            f"flow_shift={names[0]:g} of this config counts and shift={names[1]:g} does not, which "
            "are one setting: change flow_shift",
            stacklevel=4,
        )


def _storable(config: Mapping[str, Any]) -> dict[str, Any]:
    functions = [key for key, value in config.items() if callable(value)]
    for key in functions:
        warnings.warn(
            f"{key} of the scheduler's config is a function, which no config can keep, and is left "
            "out: say it in numbers, as tau=, tau_min= and tau_max= of SASolver",
            stacklevel=2,
        )
    return {key: value for key, value in config.items() if key not in functions}


def split(
    config: Mapping[str, Any], arguments: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A config of any class as (what a scheduler of ours is made from, what it only carries).

    Keys of other classes ride along for the way back. An argument is left at its default where the
    config says nothing: a value that was a mere default, None, or a ``solver_type`` of another
    family (diffusers' classes replace those of each other as well).

    Args:
        config: of a diffusers class, one of ours, or a plain dictionary.
        arguments: names and defaults of the constructor.
    """
    if is_foreign(config):
        config = adopt(config)
    else:
        config = live(config)
        config["_use_default_values"] = _mere_defaults(config, arguments)
        _warn_of_two_shifts(config)
    config |= {} if config.get("flow_shift") is not None else shift_names(config)
    silent = config["_use_default_values"]
    own = {
        key: value
        for key, value in config.items()
        if key in arguments and key not in silent and value is not None
    }
    known = next((names for names in SOLVER_TYPES if arguments.get("solver_type") in names), ())
    if own.get("solver_type") not in known:
        own.pop("solver_type", None)
    return own, {key: value for key, value in config.items() if key not in arguments}


def listen(name: str, config: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Warns of what a config says that the scheduler made from it, of class ``name``, ignores."""
    if is_foreign(config):
        origin = str(ours["inherited_from"])
        warn_unheard(name, origin, live(config), _init_defaults(origin), ours)
    elif refusal := why_no_ode({**config, "_class_name": config.get("inherited_from")}):
        warnings.warn(f"this config was made from that of {refusal}", stacklevel=3)


def is_foreign(config: Mapping[str, Any]) -> bool:
    """Whether a config comes from a diffusers class, not from ours or from a plain dictionary.

    A saved one names its class; the live ``scheduler.config`` does not, but is a ``FrozenDict``,
    and a dictionary made from one still lists its defaults.
    """
    made = isinstance(config, FrozenDict) or "_use_default_values" in config
    named = config.get("_class_name") is not None or made
    return named and "inherited_from" not in config


def origin_of(config: Mapping[str, Any]) -> str:
    """The diffusers class of a live config: the one with most arguments, all of them in it."""
    keys = {key for key in config if not key.startswith("_")}
    known = {
        name: _init_keys(name) for name in (*TABLE_CLASSES, *FLOW_CLASSES, *VE_CLASSES, *REFUSED)
    }
    matching = [name for name, own in known.items() if own and own <= keys]

    def rank(name: str) -> tuple[int, bool, int]:
        # Among classes with the same arguments, of one family, the shorter name is the plain one.
        return len(known[name]), name not in REFUSED, -len(name)

    return max(matching, key=rank, default="")


def _init_keys(name: str) -> frozenset[str]:
    """The constructor arguments of a diffusers class; empty if this diffusers lacks it."""
    return frozenset(_init_defaults(name))


@lru_cache(maxsize=128)
def _init_defaults(name: str) -> Mapping[str, Any]:
    """Those arguments with their defaults."""
    try:
        cls = getattr(diffusers, name)
    except (AttributeError, ImportError, RuntimeError):
        return {}
    parameters = inspect.signature(cls.__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.name not in ("self", "kwargs")}
