"""Samplers as tables: plans, the executor, the solvers, and their diffusers schedulers.

The tables are made with numpy alone; torch is imported when ``sample`` is asked for.
"""

from typing import TYPE_CHECKING

if __name__ != "fewstep.samplers":
    raise ImportError(f"import fewstep.samplers, not {__name__}")

from fewstep.late import late
from fewstep.samplers.core.ops import Evaluation, Op
from fewstep.samplers.core.plan import Plan
from fewstep.samplers.solvers.registry import DEFAULT_SPECS, build_plan
from fewstep.samplers.solvers.spec import SAMPLERS, parse_spec

if TYPE_CHECKING:
    from fewstep.samplers.sampling.loop import sample

__all__ = [
    "DEFAULT_SPECS",
    "SAMPLERS",
    "Evaluation",
    "Op",
    "Plan",
    "build_plan",
    "parse_spec",
    "sample",
]

__getattr__, __dir__ = late(__name__, {"sample": "fewstep.samplers.sampling.loop"})
