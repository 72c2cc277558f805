"""The grid diffusers itself would use, in float64, for ``grid="diffusers"``.

Levels are diffusers' levels; what is not a grid there is repaired:

- node times are not rounded or cut to integers where they come from noise levels (cut times repeat
  and disagree with the level by up to a step);
- a last call that would change nothing (the level repeated at the end by DEIS, SA-Solver and by
  ``final_sigmas_type="sigma_min"`` after Karras, exponential, beta or flow sigmas) ends at 0, and
  so does every flow;
- Karras, exponential and beta sigmas of a flow lie between the flow's own ends, as
  FlowMatchEuler puts them, where the DPM family takes sigmas up to 157 from an unused table of
  betas (UniPC's Karras levels, which it maps back, are kept);
- UniPC counts a flow's levels from 1, as it does since diffusers 0.36, and from 1 - 1/N before;
- zero terminal SNR starts at alpha = 0 exactly; levels below it are placed as diffusers places
  them, from alpha = 2^-12;
- n calls are always n, where "trailing" of diffusers sometimes makes one more or fewer, and where
  Heun, KDPM2 and PNDM make more.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from fewstep.schedules.diffusers.config import (
    FLOW_CLASSES,
    Config,
    class_name,
    is_continuous_edm,
    table_from_config,
)
from fewstep.schedules.diffusers.spacing import (
    final_from_config,
    finished_sigmas,
    levels_between,
    one_of,
    shift_from_config,
    shift_sigmas,
    switch_from_config,
)
from fewstep.schedules.grids import Grid
from fewstep.schedules.process import VE, Array, ContinuousVP, DiscreteVP, Flow, NoiseProcess

# Their n points include time 0, unlike the n + 1 points without the last of the DPM family;
# k-diffusion's descendants keep fractions of a time, DDIM's round them.
_KDIFFUSION = (
    "DPMSolverSDEScheduler", "EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler",
    "HeunDiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
)  # fmt: skip
_DDIM = (
    "CogVideoXDDIMScheduler", "CogVideoXDPMScheduler", "DDIMInverseScheduler",
    "DDIMParallelScheduler", "DDIMScheduler", "DDPMParallelScheduler", "DDPMScheduler",
    "LCMScheduler", "PNDMScheduler", "RePaintScheduler", "TCDScheduler", "UnCLIPScheduler",
)  # fmt: skip
# Where diffusers puts the last level of a schedule with zero terminal SNR: alpha^2 = 2^-24.
_NUDGED_RHO = math.sqrt(2**24 - 1)


def diffusers_grid(
    process: NoiseProcess,
    config: Config,
    n: int,
    *,
    mu: float | None = None,
    given: ArrayLike | None = None,
) -> Grid:
    """The grid of the class in ``config["_class_name"]``; DPMSolverMultistep's if it is not known.

    Args:
        process: ``from_diffusers_config(config)``.
        config: of a diffusers or fewstep class.
        n: number of network calls, >= 1.
        mu: of dynamic shifting.
        given: the n levels of a flow before its shift, in place of the even ones of the class.

    Returns:
        A grid named "diffusers". Its first node need not be ``rho_max``: the DPM family starts a
        flow at sigma = 1 - 1/N, and k-diffusion's and DDIM's "linspace" puts a single call at
        time 0.

    Raises:
        ValueError: for n < 1, unknown settings, a grid whose levels repeat (too many calls for
            whole times), or dynamic shifting without ``mu``.
    """
    if n < 1:
        raise ValueError(f"a sampler needs at least 1 call, got nfe = {n}")
    times: Array | None = None
    rho: Array
    if isinstance(process, Flow):
        rho = _flow_nodes(process, config, n, shift_from_config(config, mu), given)
    elif isinstance(process, ContinuousVP):
        times = np.linspace(1.0, process.t_min, n) * process.time_scale
        rho = process.rho(times)
    elif isinstance(process, VE) and not is_continuous_edm(config):
        rho = _exploding_nodes(process, config, n)
    else:
        table = process if isinstance(process, DiscreteVP) else table_from_config(config)
        times, rho = _table_nodes(table, config, n)
        times = None if isinstance(process, VE) else times
    end = _end(process, config, float(rho[-1]))
    rho = np.append(rho, end)
    times = process.time(rho) if times is None else np.append(times, process.time(end))
    return Grid(process, rho, times, "diffusers")


def _end(process: NoiseProcess, config: Config, last: float) -> float:
    """The ratio that the last call, at ratio ``last``, ends at."""
    if final_from_config(config) == "zero" or isinstance(process, Flow):
        return 0.0
    # Room for a level that was raised to a power and back.
    return process.rho_min if last > process.rho_min * (1 + 1e-9) else 0.0


def _spaced_times(table: DiscreteVP, config: Config, n: int) -> Array:
    """Network times of ``timestep_spacing``, falling (arXiv:2305.08891, table 2)."""
    name = class_name(config)
    whole = name not in _KDIFFUSION
    # DDIM's relatives and k-diffusion's count the end among the n points.
    points = n if name in _KDIFFUSION + _DDIM else n + 1
    default = "leading" if name in _DDIM else "linspace"
    given = {"timestep_spacing": config.get("timestep_spacing") or default}
    spacing = one_of(given, "timestep_spacing", ("linspace", "leading", "trailing"))
    last = table.num_train_timesteps - _clipped(table, config)
    if spacing == "linspace":
        even = np.linspace(0, last - 1, points)[::-1][:n]
        return np.asarray(np.round(even) if whole else even, np.float64)
    if spacing == "leading":
        multiples = np.arange(points)[::-1][:n] * (last // points)
        times = np.asarray(multiples + (config.get("steps_offset") or 0), np.float64)
    else:
        # arange, not k * (last / n): halves must round as they do there.
        times = np.asarray(np.round(np.arange(last, 0, -last / n)[:n]) - 1, np.float64)
    return np.clip(times, 0, table.num_train_timesteps - 1)


def trailing_grid(process: DiscreteVP, config: Config, n: int, *, final: str = "zero") -> Grid:
    """The whole times of ``timestep_spacing="trailing"``, for any solver.

    Args:
        process: the table.
        config: of a diffusers class; its own spacing does not count.
        n: number of network calls, >= 1.
        final: end at ``"zero"`` noise or at ``"sigma_min"`` of the process.
    """
    times = _spaced_times(process, {**config, "timestep_spacing": "trailing"}, n)
    rho = process.rho(times)
    end = process.rho_min if final == "sigma_min" and rho[-1] > process.rho_min else 0.0
    return Grid(process, np.append(rho, end), np.append(times, process.time(end)), "trailing")


def _clipped(table: DiscreteVP, config: Config) -> int:
    """How many of the noisiest training times ``lambda_min_clipped`` leaves out."""
    bound = config.get("lambda_min_clipped")
    if bound is None or not np.isfinite(float(bound)):
        return 0
    with np.errstate(divide="ignore"):
        lam = -np.log(table.rho(np.arange(table.num_train_timesteps)))
    return int(np.sum(lam < float(bound)))


def _table_nodes(table: DiscreteVP, config: Config, n: int) -> tuple[Array | None, Array]:
    """(times, levels) of a class with betas; no times where the levels came first."""
    all_rho = table.rho(np.arange(table.num_train_timesteps))
    exact_start = np.isinf(all_rho[-1])
    all_rho = np.minimum(all_rho, _NUDGED_RHO) if exact_start else all_rho
    times = _spaced_times(table, config, n)
    rho = np.interp(times, np.arange(len(all_rho)), all_rho)
    switch = switch_from_config(config)
    if switch or config.get("interpolation_type") == "log_linear":
        high, low = all_rho[-1], all_rho[0]
        if class_name(config) in _KDIFFUSION and switch:
            high, low = rho[0], rho[-1]
        high = float(high if config.get("sigma_max") is None else config["sigma_max"])
        low = float(low if config.get("sigma_min") is None else config["sigma_min"])
        # Euler's log_linear has one level more, which is left out here.
        levels = (
            levels_between(switch[0], high, low, n)
            if switch
            else levels_between("", high, low, n + 1)[:n]
        )
        return None, _without_signal(levels, exact_start)
    return times, _without_signal(rho, exact_start)


def _without_signal(rho: Array, exact_start: bool) -> Array:
    return np.where(exact_start & (rho >= _NUDGED_RHO * (1 - 1e-9)), np.inf, rho)


def _exploding_nodes(process: VE, config: Config, n: int) -> Array:
    if class_name(config) == "ScoreSdeVeScheduler":
        part = np.linspace(1.0, config.get("sampling_eps") or 1e-5, n)
        return np.asarray(process.sigma_min * (process.sigma_max / process.sigma_min) ** part)
    default = "exponential" if process.time_is == "atan" else "karras"
    given = {"sigma_schedule": config.get("sigma_schedule") or default}
    name = one_of(given, "sigma_schedule", ("karras", "exponential"))
    power = float(config.get("rho") or 7.0)
    return levels_between(name, process.sigma_max, process.sigma_min, n, power)


def _flow_nodes(
    process: Flow, config: Config, n: int, shift: float, given: ArrayLike | None
) -> Array:
    """Levels of a flow, as ratios; each family counts its own way from 1 to 1/N."""
    switch = switch_from_config(config)
    own = given is None and class_name(config) == "UniPCMultistepScheduler"
    if own and switch and switch[0] == "karras":
        table = table_from_config(config)
        return levels_between("karras", min(table.rho_max, _NUDGED_RHO), table.rho_min, n)
    base = _even_sigmas(process, config, n, shift) if given is None else given
    sigma = finished_sigmas(config, base, shift)
    return process.rho(np.minimum(sigma, 1.0) * process.num_train_timesteps)


def _even_sigmas(process: Flow, config: Config, n: int, shift: float) -> Array:
    """The n levels of a flow before its shift."""
    least, name = process.sigma_min, class_name(config)
    if name in FLOW_CLASSES:
        # Its fixed shift is applied to the last level twice.
        dynamic = bool(config.get("use_dynamic_shifting"))
        return np.linspace(1, least if dynamic else float(shift_sigmas(least, shift)), n)
    if name == "UniPCMultistepScheduler":
        return np.linspace(1, least, n + 1)[:-1]
    return (1 - np.linspace(1, least, n + 1))[::-1][:-1]
