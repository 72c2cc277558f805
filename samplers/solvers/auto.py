"""The grid of a sampler for which none was chosen.

One rule for every process and number of calls: ``softlog`` (equal gaps in ln rho between two
ratios, see :func:`fewstep.schedules.rules.softlog_levels`), with the two ratios chosen for each
family; ``docs/defaults.md`` says how, and has the table of what they reach and the command that
prints it. Ratios are in units of data whose standard deviation is near 1.
"""

from typing import cast

import numpy as np

from fewstep.schedules.grids import (
    NAMED_GRIDS,
    Final,
    Grid,
    check_settings,
    grid_from_rho,
    make_grid,
)
from fewstep.schedules.limits import check_calls
from fewstep.schedules.process import NoiseProcess
from fewstep.schedules.rules import softlog_levels

FEW = 13.3
MULTISTEP = (0.1, 16.0)  # (low, high) of every family that is not named below
BANDS: dict[str, tuple[float, float]] = {
    "ddim": (0.2, 8.0),
    "euler": (0.2, 8.0),
    "euler_a": (0.2, 8.0),
    "rho_rk": (0.4, 40.0),
    "dpmpp": (0.1, 40.0),
    "heun": (0.1, 100.0),
    "edm": (0.1, 100.0),
}


def auto_grid(
    sampler: str,
    process: NoiseProcess,
    steps: int,
    *,
    final: str = "zero",
    shift: float = 1.0,
    terminal: float | None = None,
    start: float | None = None,
) -> Grid:
    """The default grid of ``sampler``.

    Args:
        sampler: a name of the registry.
        process: the noise process.
        steps: of the grid, >= 1.
        final: end at ``"zero"`` noise or at ``"sigma_min"`` of the process.
        shift: of a flow; scales the ratios.
        terminal: sigma of a flow's last node, if it was trained for one; in (0, 1).
        start: the first ratio; None means ``rho_max``, from pure noise.

    Raises:
        ValueError: for settings out of their range.
    """
    check_calls(steps)
    check_settings(process, final, 7.0, shift)
    low, high = BANDS.get(sampler, MULTISTEP)
    # With many steps even the linear part near zero is resolved; let it shrink.
    low *= min(1.0, FEW / steps)
    end = process.rho_min if final == "sigma_min" else 0.0
    last = None if terminal is None else terminal / (1 - terminal) / shift
    first = process.rho_max if start is None else start
    rho = shift * softlog_levels(process, steps, low, high, end, first / shift, last)
    rho[0], rho[-1] = first, shift * end
    return grid_from_rho(process, np.asarray(rho), "softlog")


def chosen_grid(
    sampler: str,
    process: NoiseProcess,
    steps: int,
    name: str,
    *,
    final: str = "zero",
    power: float = 7.0,
    shift: float = 1.0,
    terminal: float | None = None,
) -> Grid:
    """The grid called ``name``: the automatic one of ``sampler``, or one of ``NAMED_GRIDS``.

    Raises:
        ValueError: for an unknown name, or settings that do not fit.
    """
    if name == "auto":
        return auto_grid(sampler, process, steps, final=final, shift=shift, terminal=terminal)
    if name not in NAMED_GRIDS:
        known = ", ".join(NAMED_GRIDS)
        raise ValueError(
            f"unknown grid {name!r}; known: auto, {known}, and in a scheduler diffusers"
        )
    ending = cast(Final, final)  # make_grid checks it
    return make_grid(
        process, steps, name, final=ending, power=power, shift=shift, terminal=terminal
    )
