"""Which grid a scheduler uses; the order of precedence is in :mod:`fewstep.samplers.settings`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fewstep.samplers import settings
from fewstep.samplers.auto import chosen_grid
from fewstep.samplers.registry import SAMPLERS
from fewstep.samplers.trajectory import Asked
from fewstep.schedules.breaks import mark, snap, warn_unsnapped
from fewstep.schedules.grids import Grid, grid_from_sigmas, grid_from_times
from fewstep.schedules.peers import diffusers_grid
from fewstep.schedules.process import Flow, NoiseProcess
from fewstep.schedules.spacing import grid_rule_from_config, shift_from_config, shift_sigmas


@dataclass(frozen=True)
class Choice:
    """A grid, the network calls to spend on it, and the rule that chose it.

    Attributes:
        asked: what was asked for, where the automatic rule answered.
    """

    grid: Grid
    nfe: int
    reason: str
    asked: Asked | None = None


def choose(
    sampler: str,
    process: NoiseProcess,
    config: Mapping[str, Any],
    count: int | None,
    timesteps: Any,
    sigmas: Any,
    breakpoints: Sequence[float] = (),
    *,
    mu: float | None,
) -> Choice:
    """What ``set_timesteps`` asks for.

    A grid by count has nodes on the ``breakpoints``; levels that are given are left where they are.

    Raises:
        ValueError: for none of the three, for timesteps beside sigmas, for a count that is not that
            of the levels, a value out of its range, or fewer nodes than breakpoints.
    """
    levels = timesteps if sigmas is None else sigmas
    both = timesteps is not None and sigmas is not None
    if levels is not None and not both:
        if count is not None and len(levels) not in (count, count + 1):
            raise ValueError(
                f"num_inference_steps={count} beside {len(levels)} levels: leave it out, or pass "
                "as many levels"
            )
        choice = by_values(sampler, process, config, timesteps, sigmas, mu)
        warn_unsnapped(f"the grid of {choice.reason}", choice.grid.rho.tolist(), breakpoints)
        return replace(choice, grid=mark(choice.grid, breakpoints))
    if count is None or both:
        raise ValueError("pass one of num_inference_steps, timesteps= and sigmas=")
    choice = by_count(sampler, process, config, count, mu)
    return replace(choice, grid=snap(choice.grid, breakpoints))


def by_count(
    sampler: str, process: NoiseProcess, config: Mapping[str, Any], n: int, mu: float | None
) -> Choice:
    """The grid of ``set_timesteps(n)``.

    Raises:
        ValueError: for n < 1, or grid settings that are unknown or contradict each other.
    """
    if n < 1:
        raise ValueError(f"num_inference_steps must be at least 1, got {n}")
    seen, entry = settings.view(config), SAMPLERS[sampler]
    name, inherited = config["grid"], config["inherited_from"] is not None
    options = entry.taken(config)
    if name == "diffusers":
        steps = entry.intervals(process, n, options=options)
        return Choice(diffusers_grid(process, seen, steps, mu=mu), n, "grid='diffusers'")
    power, reason, shift = 7.0, f"grid={name!r}", shift_from_config(seen, mu)
    if name == "auto":
        rule = grid_rule_from_config(seen, obey_spacing=not inherited, mu=mu)
        name, power, reason = rule.name, rule.power, rule.reason
    ending = ending_of(config, obeyed=not inherited)
    steps = entry.intervals(process, n, ending == "zero", options)
    grid = chosen_grid(sampler, process, steps, name, final=ending, power=power, shift=shift)
    if name != "auto":
        return Choice(grid, n, reason)
    return Choice(grid, n, f"{grid.name}, the automatic rule of {sampler}", Asked(n, None, mu))


def made_up(process: NoiseProcess, config: Mapping[str, Any], sigmas: Any) -> bool:
    """Whether sigmas are not a wish but what a flow pipeline makes of ``num_inference_steps=n``.

    Flux, Qwen-Image, LTX and others always send numpy's linspace(1, 1/n, n); lists that a user
    passes reach us as lists.
    """
    if not isinstance(process, Flow) or not isinstance(sigmas, np.ndarray) or not sigmas.size:
        return False
    obeyed = config["grid"] == "diffusers"
    n = sigmas.size
    return not obeyed and np.array_equal(sigmas, np.linspace(1.0, 1 / n, n))


def ending_of(config: Mapping[str, Any], obeyed: bool) -> str:
    """Where a grid ends; ``final_sigmas_type`` counts only where it is obeyed."""
    return config["final"] or (config["final_sigmas_type"] if obeyed else None) or "zero"


def by_values(
    sampler: str,
    process: NoiseProcess,
    config: Mapping[str, Any],
    timesteps: Any,
    sigmas: Any,
    mu: float | None,
) -> Choice:
    """The grid of ``set_timesteps(timesteps=...)`` or ``sigmas=``; a flow's sigmas are shifted.

    Raises:
        ValueError: for values outside the process, or that do not fall.
    """
    obeyed = config["inherited_from"] is None or config["grid"] == "diffusers"
    least = process.rho_min if ending_of(config, obeyed) == "sigma_min" else 0.0
    if sigmas is None:
        times = [float(value) for value in timesteps]
        # A last call at the least level can only go on to 0.
        end = least if times and float(process.rho(times[-1])) > least else 0.0
        grid = grid_from_times(process, times, end)
    else:
        values = [float(value) for value in sigmas]
        if isinstance(process, Flow):
            values = shift_sigmas(values, shift_from_config(settings.view(config), mu)).tolist()
        elif least and len(values) > 1 and math.isclose(values[-1], least, rel_tol=1e-6):
            values = values[:-1]  # given as the end, as 0 may be
        grid = grid_from_sigmas(process, values, least)
    entry = SAMPLERS[sampler]
    calls = entry.calls(grid, entry.taken(config))
    return Choice(grid, calls, "timesteps=" if sigmas is None else "sigmas=")
