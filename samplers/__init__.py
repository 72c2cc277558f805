"""Samplers as tables: what makes a table, what runs it, and what fits one to a model.

Read core/plan.py (what a table is), then core/execute.py (what runs it), then solvers/ddim.py (the
shortest function that makes one); adapter/base.py and sampling/loop.py use them. The rooms, in the
order in which they build on each other:

- core: the table (a plan), its file, its program of passes over memory, and the executor.
- solvers: from a grid to the table of each method; registry.py has their names.
- gaussian: starts in closed form, where a Gaussian stands in for the model.
- adapter: the scheduler classes for diffusers, which are in :mod:`fewstep` itself.
- sampling: :func:`sample`, the loop without diffusers.
- tuning: tables whose numbers are fitted to a model.

Tables are made with numpy alone; torch is imported with the first name that needs it.
"""

from typing import TYPE_CHECKING

if __name__ != "fewstep.samplers":
    raise ImportError(f"import fewstep.samplers, not {__name__}")

from fewstep.late import door

if TYPE_CHECKING:
    from fewstep.noise import seeded_noise as seeded_noise
    from fewstep.samplers.adapter.files import save_tuned as save_tuned
    from fewstep.samplers.adapter.process_config import scheduler_config as scheduler_config
    from fewstep.samplers.core.execute import Executor as Executor
    from fewstep.samplers.core.ops import Evaluation as Evaluation
    from fewstep.samplers.core.ops import Op as Op
    from fewstep.samplers.core.ops import history_entries as history_entries
    from fewstep.samplers.core.plan import Plan as Plan
    from fewstep.samplers.core.plan import load_plan as load_plan
    from fewstep.samplers.core.plan import load_plans as load_plans
    from fewstep.samplers.core.run import levels as levels
    from fewstep.samplers.core.run import start_scale as start_scale
    from fewstep.samplers.gaussian.class_gaussians import ClassGaussians as ClassGaussians
    from fewstep.samplers.gaussian.class_gaussians import load_gaussian as load_gaussian
    from fewstep.samplers.gaussian.class_gaussians import load_start as load_start
    from fewstep.samplers.gaussian.class_gaussians import save_gaussian as save_gaussian
    from fewstep.samplers.gaussian.fit import fit_channels as fit_channels
    from fewstep.samplers.gaussian.fit import fit_classes as fit_classes
    from fewstep.samplers.gaussian.fit import fit_gaussian as fit_gaussian
    from fewstep.samplers.gaussian.fit import fit_shared as fit_shared
    from fewstep.samplers.gaussian.gaussian import Gaussian as Gaussian
    from fewstep.samplers.gaussian.gaussian import GaussianFit as GaussianFit
    from fewstep.samplers.gaussian.landing import explained_level as explained_level
    from fewstep.samplers.gaussian.landing import unexplained as unexplained
    from fewstep.samplers.gaussian.teleport import Teleport as Teleport
    from fewstep.samplers.gaussian.teleport import teleported_plan as teleported_plan
    from fewstep.samplers.gaussian.warm import WarmTeleport as WarmTeleport
    from fewstep.samplers.gaussian.warm import start_hooks as start_hooks
    from fewstep.samplers.gaussian.warm import warm_plan as warm_plan
    from fewstep.samplers.sampling.batched import BatchedPlan as BatchedPlan
    from fewstep.samplers.sampling.diverged import NotFiniteWarning as NotFiniteWarning
    from fewstep.samplers.sampling.loop import sample as sample
    from fewstep.samplers.solvers.registry import DEFAULT_SPECS as DEFAULT_SPECS
    from fewstep.samplers.solvers.registry import build_plan as build_plan
    from fewstep.samplers.solvers.spec import SAMPLERS as SAMPLERS
    from fewstep.samplers.solvers.spec import Sampler as Sampler
    from fewstep.samplers.solvers.spec import Spec as Spec
    from fewstep.samplers.solvers.spec import parse_spec as parse_spec
    from fewstep.samplers.tuning.compensation_search import fit_compensation as fit_compensation
    from fewstep.samplers.tuning.flatten import flatten as flatten
    from fewstep.samplers.tuning.least_squares import least_squares as least_squares
    from fewstep.samplers.tuning.optimise import Settings as Settings
    from fewstep.samplers.tuning.pairs import Pairs as Pairs
    from fewstep.samplers.tuning.rollout import run_table as run_table
    from fewstep.samplers.tuning.scan import Landings as Landings
    from fewstep.samplers.tuning.scan import scan as scan
    from fewstep.samplers.tuning.teacher import Teacher as Teacher
    from fewstep.samplers.tuning.teacher import teach as teach
    from fewstep.samplers.tuning.teacher import teacher_error as teacher_error
    from fewstep.samplers.tuning.tied import Tied as Tied
else:
    __getattr__, __dir__, __all__ = door(__name__)
