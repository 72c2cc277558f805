"""What is sampled: bundled problems, diffusers pipelines, and models by import path."""

from fewstep.eval.problems.problem import Problem, rmse
from fewstep.eval.problems.registry import PROBLEMS, ProblemDtype, load_problem

__all__ = ["PROBLEMS", "Problem", "ProblemDtype", "load_problem", "rmse"]
