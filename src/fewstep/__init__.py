"""fewstep: sampling diffusion models in few steps.

``import fewstep`` is light: names are loaded when they are first used. It is also all that loading
a saved diffusers pipeline with one of our schedulers needs, and it must come before
``from_pretrained``, since diffusers does not import what a pipeline's files name.
"""

from typing import TYPE_CHECKING

from fewstep.late import late

if TYPE_CHECKING:
    from fewstep.samplers import (
        DEFAULT_SPECS,
        SAMPLERS,
        Evaluation,
        Op,
        Plan,
        build_plan,
        parse_spec,
        sample,
    )
    from fewstep.samplers.adapter.schedulers import (
        DDIM,
        DEIS,
        IPNDM,
        DCSolver,
        DEISRungeKutta,
        DPMSolverPP,
        DPMSolverPPSinglestep,
        EDMStochastic,
        Euler,
        EulerAncestral,
        Heun,
        PlanScheduler,
        Restart,
        SASolver,
        UniPC,
    )
    from fewstep.samplers.adapter.shim import write_shim
    from fewstep.samplers.sampling.batched import BatchedPlan
    from fewstep.samplers.tuning.compensation_search import fit_compensation

__version__ = "0.1.0"

_SCHEDULERS = (
    "DDIM", "DEIS", "IPNDM", "DCSolver", "DEISRungeKutta", "DPMSolverPP", "DPMSolverPPSinglestep",
    "EDMStochastic", "Euler", "EulerAncestral", "Heun", "PlanScheduler", "Restart", "SASolver",
    "UniPC",
)  # fmt: skip
_SAMPLERS = (
    "DEFAULT_SPECS", "SAMPLERS", "Evaluation", "Op", "Plan", "build_plan", "parse_spec", "sample",
)  # fmt: skip
_HOMES = {
    "BatchedPlan": "fewstep.samplers.sampling.batched",
    "fit_compensation": "fewstep.samplers.tuning.compensation_search",
    "write_shim": "fewstep.samplers.adapter.shim",
} | dict.fromkeys(_SAMPLERS, "fewstep.samplers")
_HOMES |= dict.fromkeys(
    # diffusers asks the module of a class for the base class that knows how to load it.
    (*_SCHEDULERS, "SchedulerMixin"),
    "fewstep.samplers.adapter.schedulers",
)

__all__ = [
    "DDIM",
    "DEFAULT_SPECS",
    "DEIS",
    "IPNDM",
    "SAMPLERS",
    "BatchedPlan",
    "DCSolver",
    "DEISRungeKutta",
    "DPMSolverPP",
    "DPMSolverPPSinglestep",
    "EDMStochastic",
    "Euler",
    "EulerAncestral",
    "Evaluation",
    "Heun",
    "Op",
    "Plan",
    "PlanScheduler",
    "Restart",
    "SASolver",
    "UniPC",
    "build_plan",
    "fit_compensation",
    "parse_spec",
    "sample",
    "write_shim",
]


__getattr__, __dir__ = late(__name__, _HOMES)
