"""The diffusers schedulers, which saved pipelines call ``["fewstep", "UniPC"]`` and so on.

Each class takes the settings of ``fewstep.samplers.adapter.settings.Settings`` and the options of
its solver function, which its docstring names. They say that they live in ``fewstep``, where
diffusers looks for them: ``import fewstep`` before ``from_pretrained`` is then enough, and this
file may move. diffusers needs ``SchedulerMixin`` in the namespace of a scheduler's module, and that
module not to lie in a folder that is named like a pipeline of its own.
"""

import json
import warnings
from typing import Any

from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from fewstep.samplers.adapter import settings
from fewstep.samplers.adapter.base import PlanSchedulerMixin
from fewstep.samplers.adapter.sent import count_in
from fewstep.samplers.adapter.settings import with_settings
from fewstep.samplers.adapter.starts import GaussianStartMixin
from fewstep.samplers.adapter.trajectory import Planned, Trajectory
from fewstep.samplers.core.plan import Plan, read_plans
from fewstep.samplers.core.sense import check_levels
from fewstep.samplers.solvers.compensation import multistep_plan
from fewstep.samplers.solvers.registry import SAMPLERS, check_process
from fewstep.samplers.solvers.restart_recipes import recipe
from fewstep.schedules.breaks import warn_unsnapped
from fewstep.schedules.grids import Grid

__all__ = [
    "DDIM", "DEIS", "IPNDM", "DCSolver", "DEISRungeKutta", "DPMSolverPP", "DPMSolverPPSinglestep",
    "EDMStochastic", "Euler", "EulerAncestral", "Heun", "PlanScheduler", "Restart", "SASolver",
    "SchedulerMixin", "UniPC",
]  # fmt: skip

CLIMBS = "{} climbs back in noise, which would undo the image that this run starts from: {}"


class ClimbingMixin(PlanSchedulerMixin):
    """A scheduler whose solver adds noise to go back up.

    With the noise goes what an image-to-image run has kept of its image, whatever its strength. On
    the automatic grid such a run does not climb, and on a grid that was named it does; either is
    said in a warning.
    """

    def _calm(self, options: dict[str, Any]) -> dict[str, Any]:
        """The solver's options without climbs."""
        raise NotImplementedError

    def _late_options(self) -> dict[str, Any]:
        if self.plan is not None and self.plan.draws:
            warnings.warn(CLIMBS.format(self.sampler, "it does not here"), stacklevel=5)
        return self._calm(super()._late_options())

    def _begin(self, run: Trajectory, entry: int, sample: Tensor) -> None:
        super()._begin(run, entry, sample)
        if entry and run.noised and run.executor.plan.draws:
            remedy = "leave the grid automatic, or take a solver that does not"
            warnings.warn(CLIMBS.format(self.sampler, remedy), stacklevel=4)


@with_settings(SAMPLERS["ddim"].options())
class DDIM(PlanSchedulerMixin):
    """DDIM (arXiv:2010.02502); options of :func:`~.ddim.ddim`."""

    sampler = "ddim"


@with_settings(SAMPLERS["euler"].options())
class Euler(PlanSchedulerMixin):
    """Euler's method in sigma / alpha: DDIM without noise."""

    sampler = "euler"


@with_settings(SAMPLERS["euler_a"].options())
class EulerAncestral(PlanSchedulerMixin):
    """Euler with ancestral noise; option of :func:`~.ddim.euler_ancestral`."""

    sampler = "euler_a"


@with_settings(SAMPLERS["dpmpp"].options())
class DPMSolverPP(PlanSchedulerMixin):
    """DPM-Solver++ (arXiv:2211.01095); options of :func:`~.dpmpp.dpmpp`."""

    sampler = "dpmpp"


@with_settings(SAMPLERS["singlestep"].options())
class DPMSolverPPSinglestep(PlanSchedulerMixin):
    """DPM-Solver++ 2S and 3S (arXiv:2211.01095); options of
    :func:`fewstep.samplers.solvers.singlestep.singlestep`."""

    sampler = "singlestep"


@with_settings(SAMPLERS["unipc"].options())
class UniPC(PlanSchedulerMixin):
    """UniPC (arXiv:2302.04867); options of :func:`~.unipc.unipc`."""

    sampler = "unipc"


@with_settings(SAMPLERS["deis"].options())
class DEIS(PlanSchedulerMixin):
    """DEIS (arXiv:2204.13902); options of :func:`~.deis.deis`."""

    sampler = "deis"


@with_settings(SAMPLERS["rho_rk"].options())
class DEISRungeKutta(PlanSchedulerMixin):
    """DEIS' rhoRK (arXiv:2204.13902); options of :func:`~.singlestep.rho_rk`."""

    sampler = "rho_rk"


@with_settings(SAMPLERS["ipndm"].options())
class IPNDM(PlanSchedulerMixin):
    """iPNDM (arXiv:2204.13902); options of :func:`~.deis.ipndm`."""

    sampler = "ipndm"


@with_settings(SAMPLERS["heun"].options())
class Heun(PlanSchedulerMixin):
    """Heun's method; n calls, not n steps (see :func:`fewstep.samplers.solvers.heun.heun`)."""

    sampler = "heun"


@with_settings(SAMPLERS["edm"].options())
class EDMStochastic(ClimbingMixin):
    """EDM's churn (arXiv:2206.00364); options of :func:`~.heun.edm_stochastic`.

    See :class:`ClimbingMixin` for runs from an image.
    """

    sampler = "edm"

    def _calm(self, options: dict[str, Any]) -> dict[str, Any]:
        return {**options, "churn": 0.0}


@with_settings(SAMPLERS["sa"].options())
class SASolver(PlanSchedulerMixin):
    """SA-Solver (arXiv:2309.05019); options of :func:`~.sa.sa`."""

    sampler = "sa"


@with_settings(SAMPLERS["restart"].options())
class Restart(ClimbingMixin):
    """Restart (arXiv:2306.14878); options of :func:`~.restart.restart`.

    See :class:`ClimbingMixin` for runs from an image.
    """

    sampler = "restart"

    def _calm(self, options: dict[str, Any]) -> dict[str, Any]:
        made = recipe(**options)
        return {"intervals": [], "solver": made.solver, "noise_scale": made.noise_scale}


@with_settings(SAMPLERS["dc"].options())
class DCSolver(PlanSchedulerMixin):
    """DC-Solver (arXiv:2409.03755); options of :func:`~.compensation.dc`.

    Ratios belong to whole runs: image-to-image, which enters in the middle, is not compensated.
    """

    sampler = "dc"

    def _late_options(self) -> dict[str, Any]:
        return {**super()._late_options(), "compensation": "none"}

    def _rebuild(self, grid: Grid, nfe: int) -> Plan:
        return multistep_plan(grid, settings.live(self.config)["multistep"])


@with_settings({**SAMPLERS["ipndm"].options(), "plans": None})
class PlanScheduler(GaussianStartMixin):
    """Runs stored plans; without any it is :class:`IPNDM`.

    ``plans`` are the tables of plans (``Plan.table()``) of different numbers of calls, for the
    noise process of this config; ``set_timesteps(n)`` takes the one that makes n calls. A plan that
    starts from a Gaussian runs on ``latents = scheduler.start(noise)``.
    """

    sampler = "ipndm"

    def _setup(self) -> None:
        tables = [plan.table() if isinstance(plan, Plan) else plan for plan in self._stored()]
        register: Any = self.register_to_config
        register(plans=tables or None)  # JSON only, so that it can be saved
        super()._setup()

    def __repr__(self) -> str:
        shown = json.loads(self.to_json_string())
        if shown.get("plans"):  # whole tables would fill pages
            shown["plans"] = [f"{p.name}: {p.calls} calls" for p in self._held().values()]
        config = json.dumps(shown, indent=2, sort_keys=True)
        return f"{type(self).__name__} {config}\ngrid: {self.grid_reason}"

    def _stored(self) -> list[Any]:
        return list(settings.live(self.config)["plans"] or ())

    def _held(self) -> dict[int, Plan]:
        return {plan.calls: plan for plan in read_plans(self._stored(), "this PlanScheduler")}

    def _planned(self, count: int | None, timesteps: Any, sigmas: Any, mu: float | None) -> Planned:
        """The stored plan of that many calls; it has its own levels, which ``mu`` does not move.

        Raises:
            ValueError: if no stored plan makes that many calls, it belongs to another noise process
                or prediction type, or levels are given beside it.
        """
        plans = self._held()
        if not plans:
            return super()._planned(count, timesteps, sigmas, mu)
        if sent := count_in(self.process, timesteps, sigmas):
            count, sigmas = sent.n, None
        if timesteps is not None or sigmas is not None or count not in plans:
            raise ValueError(
                f"this PlanScheduler holds plans of {', '.join(map(str, sorted(plans)))} calls, "
                "with levels of their own: call set_timesteps with one of these numbers, and "
                "without timesteps= and sigmas="
            )
        plan = plans[count]
        check_process(plan, self.process)
        check_levels(plan, self.process)
        _check_prediction(plan, settings.live(self.config)["prediction_type"])
        what = f"the stored plan {plan.name!r}"
        warn_unsnapped(what, plan.sigmas(native=False)[plan.history :], self.breakpoints)
        return Planned(plan, None, what)


for _name in __all__:
    if _name != "SchedulerMixin":
        globals()[_name].__module__ = "fewstep"


def _check_prediction(plan: Plan, prediction_type: str) -> None:
    """Raises ValueError if a plan was tuned for a network that predicts something else."""
    wanted = plan.provenance.get("tuned", {}).get("prediction_type")
    if wanted is not None and wanted != prediction_type:
        raise ValueError(
            f"the plan {plan.name!r} was tuned for prediction_type {wanted!r}, this scheduler has "
            f"{prediction_type!r}: tune one for this model"
        )
