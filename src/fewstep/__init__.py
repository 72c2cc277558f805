"""fewstep: sampling diffusion models in few steps.

``import fewstep`` is light: names are loaded when they are first used. It is also all that loading
a saved diffusers pipeline with one of our schedulers needs, and it must come before
``from_pretrained``, since diffusers does not import what a pipeline's files name.
"""

import importlib
from typing import TYPE_CHECKING, Any

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
    from fewstep.samplers.schedulers import (
        DDIM,
        DEIS,
        IPNDM,
        DPMSolverPP,
        EDMStochastic,
        Euler,
        Heun,
        UniPC,
    )

__version__ = "0.1.0"

_SCHEDULERS = ("DDIM", "DEIS", "IPNDM", "DPMSolverPP", "EDMStochastic", "Euler", "Heun", "UniPC")
_SAMPLERS = (
    "DEFAULT_SPECS", "SAMPLERS", "Evaluation", "Op", "Plan", "build_plan", "parse_spec", "sample",
)  # fmt: skip
_HOMES = dict.fromkeys(_SAMPLERS, "fewstep.samplers") | dict.fromkeys(
    # diffusers asks the module of a class for the base class that knows how to load it.
    (*_SCHEDULERS, "SchedulerMixin"),
    "fewstep.samplers.schedulers",
)

__all__ = [
    "DDIM",
    "DEFAULT_SPECS",
    "DEIS",
    "IPNDM",
    "SAMPLERS",
    "DPMSolverPP",
    "EDMStochastic",
    "Euler",
    "Evaluation",
    "Heun",
    "Op",
    "Plan",
    "UniPC",
    "build_plan",
    "parse_spec",
    "sample",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fewstep' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
