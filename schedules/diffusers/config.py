"""The noise process that a diffusers scheduler config describes.

A diffusers config mixes three things: the process the model was trained with, the grid the class
would use, and the solver's settings. This module reads the first; ``spacing.py`` reads the second.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fewstep.schedules.discrete import rescaled_to_zero_snr
from fewstep.schedules.limits import check_train_times
from fewstep.schedules.process import (
    VE,
    ContinuousVP,
    DiscreteVP,
    Flow,
    NoiseProcess,
    discrete_vp,
)

Config = Mapping[str, Any]

# Classes whose process is a table of betas: name -> defaults of (beta_start, beta_end, schedule),
# for configs that were saved without them.
_DDPM = (1e-4, 0.02, "linear")
_LATENT = (0.00085, 0.012, "scaled_linear")
_KARRAS = (0.00085, 0.012, "linear")
TABLE_CLASSES: dict[str, tuple[float, float, str]] = {
    "CogVideoXDDIMScheduler": _LATENT,
    "CogVideoXDPMScheduler": _LATENT,
    "DDIMInverseScheduler": _DDPM,
    "DDIMParallelScheduler": _DDPM,
    "DDIMScheduler": _DDPM,
    "DDPMParallelScheduler": _DDPM,
    "DDPMScheduler": _DDPM,
    "DEISMultistepScheduler": _DDPM,
    "DPMSolverMultistepInverseScheduler": _DDPM,
    "DPMSolverMultistepScheduler": _DDPM,
    "DPMSolverSDEScheduler": _KARRAS,
    "DPMSolverSinglestepScheduler": _DDPM,
    "EulerAncestralDiscreteScheduler": _DDPM,
    "EulerDiscreteScheduler": _DDPM,
    "HeunDiscreteScheduler": _KARRAS,
    "KDPM2AncestralDiscreteScheduler": _KARRAS,
    "KDPM2DiscreteScheduler": _KARRAS,
    "LCMScheduler": _LATENT,
    "LMSDiscreteScheduler": _DDPM,
    "PNDMScheduler": _DDPM,
    "RePaintScheduler": _DDPM,
    "SASolverScheduler": _DDPM,
    "TCDScheduler": _LATENT,
    "UnCLIPScheduler": (1e-4, 0.02, "squaredcos_cap_v2"),
    "UniPCMultistepScheduler": _DDPM,
}
FLOW_CLASSES = (
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "FlowMatchLCMScheduler",
    "LTXEulerAncestralRFScheduler",
)
# Variance exploding: name -> (sigma_min, sigma_max, what the network is told).
VE_CLASSES: dict[str, tuple[float, float, Any]] = {
    "CosineDPMSolverMultistepScheduler": (0.3, 500.0, "atan"),
    "EDMDPMSolverMultistepScheduler": (0.002, 80.0, "log"),
    "EDMEulerScheduler": (0.002, 80.0, "log"),
    "ScoreSdeVeScheduler": (0.01, 1348.0, "sigma"),
}
_DISCRETE = "its states are discrete tokens, not noisy images; keep that scheduler"
_OWN = "pass process= to a fewstep solver only if your denoiser hides that"
REFUSED: dict[str, str] = {
    "AmusedScheduler": _DISCRETE,
    "BlockRefinementScheduler": _DISCRETE,
    "DiscreteDDIMScheduler": _DISCRETE,
    "EntropyBoundScheduler": _DISCRETE,
    "VQDiffusionScheduler": _DISCRETE,
    "CMStochasticIterativeScheduler": "its network is a consistency model, which an ODE solver "
    "does not apply to, told 250 ln(sigma); keep that scheduler",
    "ConsistencyDecoderScheduler": "its network is a consistency decoder, which an ODE solver "
    "does not apply to; keep that scheduler",
    "DDPMWuerstchenScheduler": "its network is told a time in [0, 1] of a clamped cosine that no "
    f"fewstep process has; keep that scheduler, or {_OWN}",
    "FlowMapEulerDiscreteScheduler": "its network predicts the mean velocity between two times, "
    "not the velocity at one; keep that scheduler",
    "HeliosDMDScheduler": "it changes resolution between its stages; keep that scheduler",
    "HeliosScheduler": "it changes resolution between its stages; keep that scheduler",
    "IPNDMScheduler": "its network is told a time in [0, 1] of alpha = cos(pi t / 2), which no "
    "fewstep process has; use the config of the model's training scheduler",
    "KarrasVeScheduler": "its pipeline tells the network sigma / 2 and maps the input to [0, 1]; "
    "keep that scheduler, or pass VE(sigma_min, sigma_max) with a denoiser that hides that",
    "MiniMaxH3Scheduler": "its network is told 1 - sigma and predicts the opposite velocity; "
    f"keep that scheduler, or {_OWN}",
    "PiflowScheduler": "its network predicts a policy, not one velocity; keep that scheduler",
    "RFD4ProteinaScheduler": "its network is told 1 - sigma and its two modalities need one "
    "process each; keep that scheduler",
    "SCMScheduler": "its network is a TrigFlow consistency model, which an ODE solver does not "
    "apply to; keep that scheduler",
}


# A scheduler built by its constructor has no ``_class_name`` in its config. These keys name the
# class then, where the other keys would mislead.
_TELLTALES = {
    "clip_denoised": "CMStochasticIterativeScheduler",
    "n_grid": "PiflowScheduler",
    "s_churn": "KarrasVeScheduler",
    "snr_shift_scale": "CogVideoXDDIMScheduler",
    "stages": "HeliosScheduler",
}


def class_name(config: Config) -> str:
    """The scheduler class of a config, as far as it can be told; "" if not."""
    if config.get("_class_name"):
        return str(config["_class_name"])
    for key, name in _TELLTALES.items():
        if key in config:
            return name
    if "sigma_data" in config and "solver_order" in config and "thresholding" not in config:
        return "CosineDPMSolverMultistepScheduler"
    return ""


def from_diffusers_config(config: Config) -> NoiseProcess:
    """The noise process of a diffusers scheduler config, of 0.35 to 0.42.

    The class in ``_class_name`` decides, then the keys: ``use_flow_sigmas`` or a
    ``prediction_type`` "flow_prediction" make any class a flow, and a config of an unknown class
    is read by the keys it has. Zero terminal SNR is exact: alpha = 0 at the last time, where
    diffusers puts 2^-12.

    Args:
        config: ``scheduler.config``, or the dictionary of a ``scheduler_config.json``.

    Returns:
        The process; a flow's shift is no part of it (see ``grid_rule_from_config``).

    Raises:
        TypeError: if ``config`` is no mapping.
        ValueError: if the class or its settings cannot be represented, with the reason.
    """
    if not isinstance(config, Mapping):
        raise TypeError(f"expected a scheduler config (a mapping), got {type(config).__name__}")
    name = class_name(config)
    if name in REFUSED:
        raise ValueError(f"{name} has no fewstep noise process: {REFUSED[name]}")
    if is_flow(config):
        return _flow(config)
    if name in VE_CLASSES:
        return _exploding(config, *VE_CLASSES[name])
    if name == "ScoreSdeVpScheduler":
        return _continuous_vp(config)
    if name in TABLE_CLASSES:
        return _table_or_edm(config)
    return _by_keys(config)


def is_flow(config: Config) -> bool:
    """Whether the config describes a rectified flow."""
    name = class_name(config)
    return (
        name in FLOW_CLASSES
        or bool(config.get("use_flow_sigmas"))
        or config.get("prediction_type") == "flow_prediction"
        or (name == "" and "base_shift" in config)
    )


def table_from_config(config: Config) -> DiscreteVP:
    """The table of training noise levels that the betas of a config make."""
    name = class_name(config)
    start, end, schedule = TABLE_CLASSES.get(name, _DDPM)
    table = discrete_vp(
        config.get("beta_schedule") or schedule,
        num_train_timesteps=_times(config),
        beta_start=_value(config, "beta_start", start),
        beta_end=_value(config, "beta_end", end),
        trained_betas=config.get("trained_betas"),
    )
    squares = np.asarray(table.alphas_cumprod)
    # CogVideoX divides the signal-to-noise ratio: rho^2 is multiplied (SD3, arXiv:2403.03206,
    # eq. 23), before the ends are made exact.
    shift = _value(config, "snr_shift_scale", 3.0 if name.startswith("CogVideoX") else 1.0)
    squares = squares / (shift + (1 - shift) * squares)
    if config.get("rescale_betas_zero_snr"):
        squares = rescaled_to_zero_snr(squares)
    return DiscreteVP(tuple(squares.tolist()))


def _times(config: Config) -> Any:
    """Training times as they are said; 0 is a mistake, and None says nothing."""
    value = config.get("num_train_timesteps")
    return 1000 if value is None else value


def _value(config: Config, key: str, default: float) -> float:
    value = config.get(key)
    return default if value is None else float(value)


def _table_or_edm(config: Config) -> NoiseProcess:
    table = table_from_config(config)
    if is_continuous_edm(config):
        return _exploding(config, table.rho_min, table.rho_max, "log")
    return table


def is_continuous_edm(config: Config) -> bool:
    """Whether this is Stable Video Diffusion's use of Euler: an EDM model told ln(sigma) / 4.

    Its sigma_data is 1: the input is scaled by 1 / sqrt(1 + sigma^2).
    """
    return (
        config.get("timestep_type") == "continuous"
        and config.get("prediction_type") == "v_prediction"
    )


def _flow(config: Config) -> Flow:
    if config.get("invert_sigmas"):
        raise ValueError(
            "invert_sigmas=True has no fewstep noise process: the network is told 1 - sigma and "
            f"predicts the opposite velocity; keep that scheduler, or {_OWN}"
        )
    if config.get("sigma_data") is not None:
        raise ValueError(
            "sigma_data of a flow has no fewstep noise process: Cosmos 2 sends rising levels and "
            "runs its flow class as a sampler of sigma up to 80; keep that scheduler"
        )
    n = check_train_times(_times(config), 1)
    # One training time: the network is told sigma itself (Stable Audio 3, ACE-Step).
    return Flow(n, sigma_min=1 / n if n > 1 else 1e-3)


def _exploding(config: Config, low: float, high: float, time_is: Any) -> VE:
    return VE(_value(config, "sigma_min", low), _value(config, "sigma_max", high), time_is)


def _continuous_vp(config: Config) -> ContinuousVP:
    return ContinuousVP(
        _value(config, "beta_min", 0.1),
        _value(config, "beta_max", 20.0),
        t_min=_value(config, "sampling_eps", 1e-3),
    )


def _by_keys(config: Config) -> NoiseProcess:
    if any(config.get(key) is not None for key in ("beta_schedule", "trained_betas", "beta_start")):
        return _table_or_edm(config)
    if config.get("beta_min") is not None and config.get("beta_max") is not None:
        return _continuous_vp(config)
    if config.get("sigma_min") is not None and config.get("sigma_max") is not None:
        edm = config.get("sigma_data") is not None
        return _exploding(config, 0.002, 80.0, "log" if edm else "sigma")
    if "shift" in config and "num_train_timesteps" in config:
        return _flow(config)
    named = class_name(config) or "this config"
    raise ValueError(
        f"cannot tell the noise process of {named} from its keys {sorted(map(str, config))}: give "
        "it beta_schedule, use_flow_sigmas, or sigma_min and sigma_max"
    )
