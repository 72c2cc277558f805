"""fewstep: sampling diffusion models in few steps. A sampler is a table of numbers.

Where to look, by what you want:

- here: the scheduler classes for diffusers pipelines, and :func:`sample` for any other loop;
- :mod:`fewstep.samplers`: tables (plans), what runs them, starts, files, and tuning;
- :mod:`fewstep.schedules`: noise processes and grids of noise levels;
- :mod:`fewstep.guidance`: what is added to a network's predictions, and what modifies that;
- :mod:`fewstep.models`: denoisers around networks, exact ones, and the bundled one;
- :mod:`fewstep.eval`: problems with known answers, benchmarks, metrics, and samples on disk.

``import fewstep`` is light: names are loaded when they are first used. It is also all that loading
a saved diffusers pipeline with one of our schedulers needs, and it must come before
``from_pretrained``, since diffusers does not import what a pipeline's files name.
"""

from typing import TYPE_CHECKING

from fewstep.late import door

if TYPE_CHECKING:
    from fewstep.samplers import DEFAULT_SPECS as DEFAULT_SPECS
    from fewstep.samplers import SAMPLERS as SAMPLERS
    from fewstep.samplers import BatchedPlan as BatchedPlan
    from fewstep.samplers import Evaluation as Evaluation
    from fewstep.samplers import Op as Op
    from fewstep.samplers import Plan as Plan
    from fewstep.samplers import build_plan as build_plan
    from fewstep.samplers import fit_compensation as fit_compensation
    from fewstep.samplers import parse_spec as parse_spec
    from fewstep.samplers import sample as sample
    from fewstep.samplers.adapter.schedulers import DDIM as DDIM
    from fewstep.samplers.adapter.schedulers import DEIS as DEIS
    from fewstep.samplers.adapter.schedulers import IPNDM as IPNDM
    from fewstep.samplers.adapter.schedulers import DCSolver as DCSolver
    from fewstep.samplers.adapter.schedulers import DEISRungeKutta as DEISRungeKutta
    from fewstep.samplers.adapter.schedulers import DPMSolverPP as DPMSolverPP
    from fewstep.samplers.adapter.schedulers import DPMSolverPPSinglestep as DPMSolverPPSinglestep
    from fewstep.samplers.adapter.schedulers import EDMStochastic as EDMStochastic
    from fewstep.samplers.adapter.schedulers import Euler as Euler
    from fewstep.samplers.adapter.schedulers import EulerAncestral as EulerAncestral
    from fewstep.samplers.adapter.schedulers import Heun as Heun
    from fewstep.samplers.adapter.schedulers import PlanScheduler as PlanScheduler
    from fewstep.samplers.adapter.schedulers import Restart as Restart
    from fewstep.samplers.adapter.schedulers import SASolver as SASolver
    from fewstep.samplers.adapter.schedulers import UniPC as UniPC
    from fewstep.samplers.adapter.shim import write_shim as write_shim
    from fewstep.types import Denoiser as Denoiser
    from fewstep.types import Guidance as Guidance
    from fewstep.types import Level as Level
    from fewstep.types import RunFacts as RunFacts
    from fewstep.types import RunHook as RunHook
else:
    # diffusers asks the module of a class for the base class that knows how to load it.
    _HIDDEN = {"SchedulerMixin": "fewstep.samplers.adapter.schedulers"}
    __getattr__, __dir__, __all__ = door(__name__, _HIDDEN)

__version__ = "0.1.0"
