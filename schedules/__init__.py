"""Noise processes, time grids, and the reading of diffusers configs."""

if __name__ != "fewstep.schedules":
    raise ImportError(f"import fewstep.schedules, not {__name__}")

from fewstep.schedules.diffusers.config import from_diffusers_config
from fewstep.schedules.diffusers.peers import diffusers_grid
from fewstep.schedules.diffusers.spacing import (
    GridChoice,
    dynamic_shift,
    grid_rule_from_config,
    shift_from_config,
    shift_sigmas,
)
from fewstep.schedules.grids import (
    GRIDS,
    NAMED_GRIDS,
    Grid,
    grid_from_rho,
    grid_from_sigmas,
    grid_from_times,
    make_grid,
)
from fewstep.schedules.process import (
    VE,
    ContinuousVP,
    DiscreteVP,
    Flow,
    NoiseProcess,
    discrete_vp,
)

__all__ = [
    "GRIDS",
    "NAMED_GRIDS",
    "VE",
    "ContinuousVP",
    "DiscreteVP",
    "Flow",
    "Grid",
    "GridChoice",
    "NoiseProcess",
    "diffusers_grid",
    "discrete_vp",
    "dynamic_shift",
    "from_diffusers_config",
    "grid_from_rho",
    "grid_from_sigmas",
    "grid_from_times",
    "grid_rule_from_config",
    "make_grid",
    "shift_from_config",
    "shift_sigmas",
]
