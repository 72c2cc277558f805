"""Samplers as tables: plans, the executor, the solvers, and their diffusers schedulers."""

if __name__ != "fewstep.samplers":
    raise ImportError(f"import fewstep.samplers, not {__name__}")

from fewstep.samplers.loop import sample
from fewstep.samplers.plan import Evaluation, Op, Plan
from fewstep.samplers.registry import DEFAULT_SPECS, build_plan
from fewstep.samplers.spec import SAMPLERS, parse_spec

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
