"""What is sampled: bundled problems, diffusers pipelines, and models by import path.

Read problem.py (a denoiser, and the solution that samplers are measured against), then registry.py
(the bundled ones, and how a name is loaded), then fine_solution.py.
"""

from typing import TYPE_CHECKING

from fewstep.eval.problems.registry import FORMS, PROBLEMS, ProblemDtype
from fewstep.late import late

if TYPE_CHECKING:
    from fewstep.eval.problems.loading import load_problem
    from fewstep.eval.problems.problem import Problem, rmse

__all__ = ["FORMS", "PROBLEMS", "Problem", "ProblemDtype", "load_problem", "rmse"]

_HOMES = dict.fromkeys(("Problem", "rmse"), "fewstep.eval.problems.problem") | {
    "load_problem": "fewstep.eval.problems.loading"
}
__getattr__, __dir__ = late(__name__, _HOMES)
