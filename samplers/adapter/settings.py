"""What every scheduler class of ours has in its config.

The grid of a scheduler is decided by the first of these that speaks:

1. ``set_timesteps(timesteps=...)`` or ``sigmas=``, except for a flow's even levels, by which
   pipelines say a number of steps (:mod:`fewstep.samplers.adapter.sent`);
2. ``grid=`` or ``timestep_spacing=`` given to the constructor or to ``from_config``;
3. opt-in switches in the config: ``use_karras_sigmas`` and its like;
4. ``timestep_spacing`` in a plain dictionary or in a config of ours, and "trailing" in one of a
   diffusers class: none has it by default, so somebody chose it; ``grid="auto"`` overrides it;
5. the automatic rule of the sampler.

Any other ``timestep_spacing``, and ``final_sigmas_type``, of a *diffusers* config are carried for
the way back but not obeyed: saved pipelines spell out every default, so they tell nothing of what
anyone chose. ``grid="diffusers"`` obeys them all. Whatever decides, ``shift_terminal`` places a
flow's last call. :mod:`fewstep.samplers.adapter.unheard` and :mod:`fewstep.samplers.adapter.said`
warn of the rest.
"""

import dataclasses
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from diffusers.configuration_utils import register_to_config

from fewstep.samplers.adapter.said import in_our_words, no_argument, warn_unread
from fewstep.schedules.diffusers.config import from_diffusers_config, is_continuous_edm, is_flow
from fewstep.schedules.diffusers.spacing import shift_from_config
from fewstep.schedules.process import NoiseProcess


@dataclass(frozen=True)
class Settings:
    """Process, grid and thresholding; the names are diffusers' own where it has one."""

    num_train_timesteps: int = 1000
    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: str = "linear"
    trained_betas: list[float] | None = None
    prediction_type: str = "epsilon"
    rescale_betas_zero_snr: bool = False
    sigma_min: float | None = None
    sigma_max: float | None = None
    sigma_data: float | None = None
    use_flow_sigmas: bool = False
    flow_shift: float | None = None
    use_dynamic_shifting: bool = False
    time_shift_type: str = "exponential"
    shift_terminal: float | None = None
    grid: str | None = None
    final: str | None = None
    timestep_spacing: str | None = None
    steps_offset: int = 0
    final_sigmas_type: str | None = None
    use_karras_sigmas: bool = False
    use_exponential_sigmas: bool = False
    use_beta_sigmas: bool = False
    use_lu_lambdas: bool = False
    thresholding: bool = False
    dynamic_thresholding_ratio: float = 0.995
    sample_max_value: float = 1.0
    inherited_from: str | None = None


FIELDS = {field.name: field.default for field in dataclasses.fields(Settings)}
# Spelled out in every config of ours: their defaults differ between classes of diffusers, and a
# config tells the next class nothing of values that are mere defaults.
EXPLICIT = {key: FIELDS[key] for key in (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type",
)}  # fmt: skip
LOADING_KWARGS = {"dtype", "torch_dtype", "subfolder", "local_files_only", "cache_dir"}
PROCESS_KEYS = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas",
    "prediction_type", "rescale_betas_zero_snr", "sigma_min", "sigma_max", "sigma_data",
    "use_flow_sigmas", "shift", "flow_shift", "use_dynamic_shifting", "time_shift_type",
    "beta_min", "beta_max", "sampling_eps", "snr_shift_scale", "timestep_type", "invert_sigmas",
)  # fmt: skip


def with_settings(options: Mapping[str, Any]) -> Callable[[type], type]:
    """Gives a scheduler class the constructor that takes ``Settings`` and a solver's options.

    The signature is composed, so that no class lists its arguments by hand and a mistyped one is
    refused; diffusers reads it to decide what belongs into a config.
    """
    kind = inspect.Parameter.KEYWORD_ONLY
    first = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    # JSON has no tuples: a config must be equal to itself after a round trip.
    own = {name: list(v) if isinstance(v, tuple) else v for name, v in options.items()}
    defaults = {**FIELDS, **own}
    if clash := FIELDS.keys() & options.keys():
        raise TypeError(f"solver options {sorted(clash)} are settings of every scheduler")
    parameters = [inspect.Parameter(name, kind, default=value) for name, value in defaults.items()]
    signature = inspect.Signature([first, *parameters])

    def decorate(cls: type) -> type:
        def __init__(self: Any, **kwargs: Any) -> None:  # noqa: N807
            self._setup()

        __init__.__signature__ = signature  # type: ignore[attr-defined]
        registered = register_to_config(__init__)

        def checked(self: Any, **kwargs: Any) -> None:
            kwargs = in_our_words(kwargs, defaults)
            unknown = [key for key in kwargs if key not in defaults and not key.startswith("_")]
            if unknown:
                raise no_argument(cls.__name__, unknown[0], defaults)
            registered(self, **{**EXPLICIT, **kwargs})
            config = live(self.config)
            self.register_to_config(**shift_names(config))
            warn_unread(cls.__name__, kwargs, config, self.process)

        checked.__signature__ = signature  # type: ignore[attr-defined]
        cls.__init__ = checked  # type: ignore[misc]
        return cls

    return decorate


def live(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config as it is now: ``scheduler.config.x = y`` changes the attribute, not the entry."""
    now = {key: getattr(config, key, value) for key, value in config.items()}
    changed = [key for key in ("shift", "flow_shift") if now.get(key) != config.get(key)]
    if changed == ["shift"] and "flow_shift" in now:
        now["flow_shift"] = now["shift"]  # one setting of two names, of which this was changed
    return now


def shift_names(config: Mapping[str, Any]) -> dict[str, float]:
    """A flow's fixed shift as both ``flow_shift``, our name, and ``shift``; nothing for others."""
    seen = view(config)
    if not is_flow(seen):
        return {}
    shift = shift_from_config({**seen, "use_dynamic_shifting": False})
    return {"shift": shift, "flow_shift": shift}


def without_none(text: str) -> str:
    """A saved config without None, which diffusers' classes stumble over."""
    # inherited_from marks a config as one of ours.
    kept = {k: v for k, v in json.loads(text).items() if v is not None or k == "inherited_from"}
    return json.dumps(kept, indent=2, sort_keys=True) + "\n"


def view(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config of ours as :mod:`fewstep.schedules.diffusers` reads it: under its first class."""
    seen = {key: value for key, value in config.items() if not key.startswith("_")}
    origin = seen.pop("inherited_from", None)
    if origin is None and seen.get("sigma_max") is not None:
        origin = "EDMEulerScheduler" if seen.get("sigma_data") else "ScoreSdeVeScheduler"
    if seen.get("flow_shift") is not None:
        seen["shift"] = seen["flow_shift"]  # ours, of which the other may be a stale copy
    return {**seen, "_class_name": origin} if origin else seen


def identity_of(config: Mapping[str, Any]) -> str:
    """Equal for live configs of the same noise process and shift."""
    seen = view(config)
    keys = {key: seen.get(key) for key in ("_class_name", *PROCESS_KEYS) if key in seen}
    return json.dumps(keys, default=list)


def process_of(config: Mapping[str, Any]) -> NoiseProcess:
    """The noise process of a live config; equal settings share one object."""
    return _process(identity_of(config))


@lru_cache(maxsize=64)
def _process(keys: str) -> NoiseProcess:
    return from_diffusers_config(json.loads(keys))


def sigma_data_of(config: Mapping[str, Any]) -> float | None:
    """EDM's data deviation if the network's raw output and input are preconditioned here."""
    seen = view(config)
    if seen.get("sigma_data") is not None:
        return float(seen["sigma_data"])
    return 1.0 if is_continuous_edm(seen) else None
