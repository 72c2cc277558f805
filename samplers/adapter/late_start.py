"""Where image-to-image starts: at a noise level, whatever grid the run is on.

Pipelines that start from an image say how strong the change shall be by an entry of ``timesteps``:
``strength`` 0.3 of 10 steps is entry 7. They mean the noise level that the grid of their own
scheduler has there. Our automatic grid has another one, so the level is taken from theirs, and our
rule places the calls that are left below it.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fewstep.samplers.adapter import settings
from fewstep.samplers.adapter.choose import ending_of
from fewstep.samplers.adapter.index import Position
from fewstep.samplers.adapter.trajectory import Asked, same_time
from fewstep.samplers.solvers.auto import auto_grid
from fewstep.samplers.solvers.registry import SAMPLERS
from fewstep.schedules.diffusers.peers import diffusers_grid
from fewstep.schedules.diffusers.spacing import (
    SWITCHES,
    finished_sigmas,
    shift_from_config,
    terminal_from_config,
)
from fewstep.schedules.grids import Grid, grid_from_sigmas, make_grid
from fewstep.schedules.process import NoiseProcess


def starting_entry(
    position: Position, times: Tensor, batch: int, moved_from: float | None
) -> int | None:
    """The entry that a run starts from, if noise at ``times`` makes its first sample.

    That is the entry of ``set_begin_index``; or, since some pipelines do not say it, the entry that
    a copied time is equal to, one for each sample, as ``timesteps[k:][:1].repeat(batch)`` is.

    Args:
        position: of a run before its first step.
        times: network times, of any device; they are read.
        batch: number of samples.
        moved_from: the time that the first entry had before its level moved, which whoever read it
            then may still pass.
    """
    begin = position.begin
    if begin is None and (times.shape != (batch,) or position.view(times) is not None):
        return None
    told = {float(time) for time in times.flatten().tolist()}
    if len(told) != 1:
        return None
    time = told.pop()
    if begin is None:
        # Whole numbers and half precision are times of training as well.
        own = position.values.tolist()
        return own.index(time) or None if time in own else None
    own = [float(position.values[begin]), *([] if moved_from is None else [moved_from])]
    return begin if any(same_time(time, times.dtype, value) for value in own) else None


def own_ratio(process: NoiseProcess, config: Mapping[str, Any], asked: Asked, entry: int) -> float:
    """sigma / alpha at an entry of the grid that the config's own class would walk.

    Args:
        process: the noise process of the config.
        config: of one of our schedulers, as it is now.
        asked: what ``set_timesteps`` was called with.
        entry: 0 .. asked.count - 1.
    """
    # The automatic grid is in use, so that a switch in the config was overruled.
    seen = {key: v for key, v in settings.view(config).items() if key not in SWITCHES}
    if asked.sigmas is not None:
        sigmas = finished_sigmas(seen, asked.sigmas, shift_from_config(seen, asked.mu))
        return float(grid_from_sigmas(process, sigmas.tolist()).rho[entry])
    try:
        return float(diffusers_grid(process, seen, asked.count, mu=asked.mu).rho[entry])
    except ValueError:  # more calls than whole times: equal gaps in time without rounding
        shift = shift_from_config(seen, asked.mu)
        return float(make_grid(process, asked.count, "linspace", shift=shift).rho[entry])


def grid_below(
    rho: float,
    calls: int,
    sampler: str,
    process: NoiseProcess,
    config: Mapping[str, Any],
    options: Mapping[str, Any],
    mu: float | None,
) -> Grid:
    """The automatic grid of a run that starts at a ratio.

    Args:
        rho: sigma / alpha of the first call.
        calls: network calls that are left, >= 1.
        sampler: a name of the registry.
        process: the noise process.
        config: of one of our schedulers, as it is now.
        options: of the solver.
        mu: of dynamic shifting.
    """
    final = ending_of(config, obeyed=config["inherited_from"] is None)
    # At the least level there is nothing left to do but to go on to 0.
    final = "zero" if rho <= process.rho_min else final
    steps = SAMPLERS[sampler].paid(calls, False, final == "zero", options)
    seen = settings.view(config)
    return auto_grid(
        sampler, process, steps, final=final, shift=shift_from_config(seen, mu),
        terminal=terminal_from_config(seen), start=rho,
    )  # fmt: skip
