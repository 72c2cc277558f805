"""What is sampled: bundled problems, diffusers pipelines, and models by import path.

Read problem.py (a denoiser, and the solution that samplers are measured against), then registry.py
(the bundled ones), then loading.py (how a name is loaded), then fine_solution.py.
"""

from typing import TYPE_CHECKING

from fewstep.late import door

if TYPE_CHECKING:
    from fewstep.eval.problems.loading import load_problem as load_problem
    from fewstep.eval.problems.problem import Problem as Problem
    from fewstep.eval.problems.problem import rmse as rmse
    from fewstep.eval.problems.registry import FORMS as FORMS
    from fewstep.eval.problems.registry import PROBLEMS as PROBLEMS
    from fewstep.eval.problems.registry import ProblemDtype as ProblemDtype
else:
    __getattr__, __dir__, __all__ = door(__name__)
