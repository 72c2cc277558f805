"""Which grid a scheduler uses; the order of precedence is in :mod:`.settings`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fewstep.checks import named, whole
from fewstep.samplers.adapter import settings
from fewstep.samplers.adapter.said import RANGED
from fewstep.samplers.adapter.sent import Between, Count, count_in, pair_in
from fewstep.samplers.adapter.trajectory import Asked
from fewstep.samplers.solvers.auto import chosen_grid
from fewstep.samplers.solvers.registry import SAMPLERS
from fewstep.schedules.breaks import mark, snap, warn_unsnapped
from fewstep.schedules.diffusers.peers import diffusers_grid, trailing_grid
from fewstep.schedules.diffusers.spacing import (
    SWITCHES,
    finished_sigmas,
    grid_rule_from_config,
    shift_from_config,
    switch_from_config,
    terminal_from_config,
)
from fewstep.schedules.discrete import ranged
from fewstep.schedules.grids import Grid, grid_from_sigmas, grid_from_times
from fewstep.schedules.limits import MAX_CALLS, at_most
from fewstep.schedules.process import DiscreteVP, Flow, NoiseProcess
from fewstep.schedules.published import PUBLISHED
from fewstep.schedules.told import told_grid


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
    ends: tuple[float, float] | None = None,
) -> Choice:
    """What ``set_timesteps`` asks for.

    A grid by count has nodes on the ``breakpoints``; levels that are given are left where they are.
    ``ends`` are the levels between which a flow's class was told to count.

    Raises:
        ValueError: for none of the three, for timesteps beside sigmas unless the process is a flow,
            for a count that is not that of the levels, a value out of its range, or fewer nodes
            than breakpoints.
    """
    if count is not None:
        count = whole(count, "num_inference_steps must be a whole number such as 8")
    for name, values in (("timesteps", timesteps), ("sigmas", sigmas)):
        if values is not None and not hasattr(values, "__len__"):
            raise TypeError(f"{name} must be a list of numbers, got {named(values)}")
    levels = timesteps if sigmas is None else sigmas
    if levels is None and count is None:
        raise ValueError("pass one of num_inference_steps, timesteps= and sigmas=")
    if levels is not None and count is not None and len(levels) not in (count, count + 1):
        raise ValueError(
            f"num_inference_steps={count} beside {len(levels)} levels: leave it out, or pass "
            "as many levels"
        )
    sent: Count | Between | None = count_in(process, timesteps, sigmas)
    if levels is None and ends:
        sent = Between(count or 0, *ends)
    if levels is None or sent is not None:
        choice = by_count(sampler, process, config, sent.n if sent else count or 0, mu, sent)
        return replace(choice, grid=snap(choice.grid, breakpoints))
    choice = by_values(sampler, process, config, timesteps, sigmas, mu)
    warn_unsnapped(f"the grid of {choice.reason}", choice.grid.rho.tolist(), breakpoints)
    return replace(choice, grid=mark(choice.grid, breakpoints))


def by_count(
    sampler: str,
    process: NoiseProcess,
    config: Mapping[str, Any],
    n: int,
    mu: float | None,
    sent: Count | Between | None = None,
) -> Choice:
    """The grid of ``set_timesteps(n)``, or of the levels by which a pipeline says n.

    Raises:
        ValueError: for n < 1, or grid settings that are unknown or contradict each other.
    """
    if n < 1:
        raise ValueError(f"num_inference_steps must be at least 1, got {n}")
    at_most("num_inference_steps", n, MAX_CALLS)
    if config["grid"] == "diffusers":
        entry = SAMPLERS[sampler]
        steps = entry.intervals(process, n, options=entry.taken(config))
        given = sent.even(steps) if sent else None
        grid = diffusers_grid(process, settings.view(config), steps, mu=mu, given=given)
        return Choice(grid, n, "grid='diffusers'")
    choice = _of_our_rules(sampler, process, config, n, mu)
    if sent is None:
        return choice
    asked = choice.asked and replace(choice.asked, sigmas=sent.even(n))
    return replace(choice, reason=f"{choice.reason}{sent}", asked=asked)


def _of_our_rules(
    sampler: str, process: NoiseProcess, config: Mapping[str, Any], n: int, mu: float | None
) -> Choice:
    """The grid that is named, that a switch or somebody's trailing times mean, or the automatic."""
    seen, entry = settings.view(config), SAMPLERS[sampler]
    name, inherited = config["grid"] or "auto", config["inherited_from"] is not None
    ending = ending_of(config, obeyed=not inherited)
    steps = entry.intervals(process, n, ending == "zero", entry.taken(config))
    power, reason, shift = 7.0, f"grid={name!r}", shift_from_config(seen, mu)
    if name == "auto":
        rule = grid_rule_from_config(seen, obey_spacing=not inherited, mu=mu)
        name, power, reason = rule.name, rule.power, rule.reason
    if name == "auto" and isinstance(process, DiscreteVP) and _chose_trailing(config):
        grid = trailing_grid(process, seen, steps, final=ending)
        return Choice(grid, n, "timestep_spacing is 'trailing' (grid='auto' is our rule)")
    if isinstance(process, DiscreteVP) and name in RANGED:
        process = ranged(process, config["sigma_min"], config["sigma_max"])
    terminal = None if name in PUBLISHED else terminal_from_config(seen)
    grid = chosen_grid(
        sampler, process, steps, name, final=ending, power=power, shift=shift, terminal=terminal
    )
    asked = None
    if name == "auto":
        reason, asked = f"{grid.name}, the automatic rule of {sampler}", Asked(n, None, mu)
    if terminal:
        reason += f", its last call at shift_terminal={terminal:g}"
    return Choice(grid, n, reason, asked)


def _chose_trailing(config: Mapping[str, Any]) -> bool:
    """Somebody did: no class of diffusers has it by default, and models were tuned for it.

    ``grid`` is None where nobody has said it; ``"auto"`` asks for our rule.
    """
    said = config["inherited_from"] is not None and config["timestep_spacing"] == "trailing"
    return said and config["grid"] is None


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
    """The grid of ``set_timesteps(timesteps=...)``, ``sigmas=``, or both of a flow.

    A flow's sigmas are finished as its class in diffusers does: shifted, stretched, and replaced by
    those of a switch between their ends. Times are what the network is told and stay.

    Raises:
        ValueError: for values outside the process, or that do not fall, or both of another process.
    """
    entry = SAMPLERS[sampler]
    options = entry.taken(config)
    pair = pair_in(process, timesteps, sigmas) if entry.steps else None
    if pair is not None:  # which says how many calls, and this solver makes several a step
        timesteps, sigmas = pair.even(entry.intervals(process, pair.n, options=options))
    obeyed = config["inherited_from"] is None or config["grid"] == "diffusers"
    least = process.rho_min if ending_of(config, obeyed) == "sigma_min" else 0.0
    reason = "timesteps=" if sigmas is None else "sigmas="
    if sigmas is None:
        times = [float(value) for value in timesteps]
        # A last call at the least level can only go on to 0.
        end = least if times and float(process.rho(times[-1])) > least else 0.0
        grid = grid_from_times(process, times, end)
    elif isinstance(process, Flow):
        values, how = _finished(process, config, [float(value) for value in sigmas], mu)
        grid, reason = grid_from_sigmas(process, values, least), reason + how
        if timesteps is not None:
            told = np.asarray([float(value) for value in timesteps])
            grid, reason = told_grid(process, grid.rho[:-1], told), f"timesteps= and {reason}"
    elif timesteps is not None:
        raise ValueError(
            "pass one of num_inference_steps, timesteps= and sigmas=: only a flow's network is "
            "told times apart from its levels"
        )
    else:
        values = [float(value) for value in sigmas]
        if least and len(values) > 1 and math.isclose(values[-1], least, rel_tol=1e-6):
            values = values[:-1]  # given as the end, as 0 may be
        grid = grid_from_sigmas(process, values, least)
    return Choice(grid, pair.n if pair else entry.calls(grid, options), reason)


def _finished(
    process: Flow, config: Mapping[str, Any], sigmas: list[float], mu: float | None
) -> tuple[list[float], str]:
    """Given levels as the config wants them, and what it does beyond its shift."""
    if len(sigmas) > 1 and sigmas[-1] == 0:  # the end, which is not called
        sigmas = sigmas[:-1]
    grid_from_sigmas(process, sigmas)  # levels that are none are refused as they were given
    seen = settings.view(config)
    if config["grid"] not in (None, "auto", "diffusers"):  # it was named over the other switches
        seen |= {k: bool(seen.get(k)) and v == config["grid"] for k, v in SWITCHES.items()}
    switch = switch_from_config(seen)
    done = finished_sigmas(seen, sigmas, shift_from_config(seen, mu)).tolist()
    terminal = terminal_from_config(seen)
    how = f", stretched to shift_terminal={terminal:g}" if terminal else ""
    return done, how + (f", placed anew between their ends: {switch[1]} is set" if switch else "")
