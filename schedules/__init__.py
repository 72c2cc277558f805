"""Noise processes, grids of noise levels, and the reading of diffusers configs.

Everywhere ``x = alpha x0 + sigma noise`` and ``rho = sigma / alpha``. Read process.py (what a noise
process is), then grids.py (the levels of a run); the rest follows:

- base, process, discrete: variance preserving (VP), variance exploding (VE) and flow processes.
- rules, published, grids: where the levels of a run lie, by name.
- breaks: grids whose nodes are moved to where guidance is switched on or off.
- levels, prediction: what the network is told at each call, and what it answers with.
- diffusers: the same from the configs of diffusers' schedulers.

numpy is all that this needs.
"""

from typing import TYPE_CHECKING

if __name__ != "fewstep.schedules":
    raise ImportError(f"import fewstep.schedules, not {__name__}")

from fewstep.late import door

if TYPE_CHECKING:
    from fewstep.schedules.base import NoiseProcess as NoiseProcess
    from fewstep.schedules.breaks import snap as snap
    from fewstep.schedules.diffusers.config import from_diffusers_config as from_diffusers_config
    from fewstep.schedules.diffusers.peers import diffusers_grid as diffusers_grid
    from fewstep.schedules.diffusers.spacing import GridChoice as GridChoice
    from fewstep.schedules.diffusers.spacing import dynamic_shift as dynamic_shift
    from fewstep.schedules.diffusers.spacing import grid_rule_from_config as grid_rule_from_config
    from fewstep.schedules.diffusers.spacing import shift_from_config as shift_from_config
    from fewstep.schedules.diffusers.spacing import shift_sigmas as shift_sigmas
    from fewstep.schedules.discrete import DiscreteVP as DiscreteVP
    from fewstep.schedules.discrete import discrete_vp as discrete_vp
    from fewstep.schedules.grids import NAMED_GRIDS as NAMED_GRIDS
    from fewstep.schedules.grids import Grid as Grid
    from fewstep.schedules.grids import grid_from_rho as grid_from_rho
    from fewstep.schedules.grids import grid_from_sigmas as grid_from_sigmas
    from fewstep.schedules.grids import grid_from_times as grid_from_times
    from fewstep.schedules.grids import make_grid as make_grid
    from fewstep.schedules.prediction import Prediction as Prediction
    from fewstep.schedules.process import VE as VE
    from fewstep.schedules.process import ContinuousVP as ContinuousVP
    from fewstep.schedules.process import Flow as Flow
    from fewstep.schedules.rules import GRIDS as GRIDS
else:
    __getattr__, __dir__, __all__ = door(__name__)
