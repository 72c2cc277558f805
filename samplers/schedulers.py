"""The diffusers schedulers, which saved pipelines call ``["fewstep", "UniPC"]`` and so on.

Each class takes the settings of ``fewstep.samplers.settings.Settings`` and the options of its
solver function, which its docstring names. They say that they live in ``fewstep``, where diffusers
looks for them: ``import fewstep`` before ``from_pretrained`` is then enough, and this file may
move. diffusers needs ``SchedulerMixin`` in the namespace of a scheduler's module, and that module
not to lie in a folder that is named like a pipeline of its own.
"""

from diffusers.schedulers.scheduling_utils import SchedulerMixin

from fewstep.samplers.adapter import PlanSchedulerMixin
from fewstep.samplers.registry import SAMPLERS
from fewstep.samplers.settings import with_settings

__all__ = [
    "DDIM", "DEIS", "IPNDM", "DPMSolverPP", "EDMStochastic", "Euler", "Heun", "SchedulerMixin",
    "UniPC",
]  # fmt: skip


@with_settings(SAMPLERS["ddim"].options())
class DDIM(PlanSchedulerMixin):
    """DDIM (arXiv:2010.02502); options of :func:`fewstep.samplers.multistep.ddim`."""

    sampler = "ddim"


@with_settings(SAMPLERS["euler"].options())
class Euler(PlanSchedulerMixin):
    """Euler's method in sigma / alpha: DDIM without noise."""

    sampler = "euler"


@with_settings(SAMPLERS["dpmpp"].options())
class DPMSolverPP(PlanSchedulerMixin):
    """DPM-Solver++ (arXiv:2211.01095); options of :func:`fewstep.samplers.multistep.dpmpp`."""

    sampler = "dpmpp"


@with_settings(SAMPLERS["unipc"].options())
class UniPC(PlanSchedulerMixin):
    """UniPC (arXiv:2302.04867); options of :func:`fewstep.samplers.multistep.unipc`."""

    sampler = "unipc"


@with_settings(SAMPLERS["deis"].options())
class DEIS(PlanSchedulerMixin):
    """DEIS (arXiv:2204.13902); options of :func:`fewstep.samplers.deis.deis`."""

    sampler = "deis"


@with_settings(SAMPLERS["ipndm"].options())
class IPNDM(PlanSchedulerMixin):
    """iPNDM (arXiv:2204.13902); options of :func:`fewstep.samplers.deis.ipndm`."""

    sampler = "ipndm"


@with_settings(SAMPLERS["heun"].options())
class Heun(PlanSchedulerMixin):
    """Heun's method; n calls, not n steps (see :func:`fewstep.samplers.heun.heun`)."""

    sampler = "heun"


@with_settings(SAMPLERS["edm"].options())
class EDMStochastic(PlanSchedulerMixin):
    """EDM's churn (arXiv:2206.00364); options of :func:`fewstep.samplers.heun.edm_stochastic`."""

    sampler = "edm"


for _cls in (DDIM, DEIS, IPNDM, DPMSolverPP, EDMStochastic, Euler, Heun, UniPC):
    _cls.__module__ = "fewstep"
