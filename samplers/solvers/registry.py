"""Every sampler by name."""

import os
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from fewstep.checks import named
from fewstep.samplers.core.plan import Plan, load_plan
from fewstep.samplers.core.sense import check_levels
from fewstep.samplers.solvers.asked import call_count, check_sampler
from fewstep.samplers.solvers.compensation import dc
from fewstep.samplers.solvers.ddim import ddim, euler, euler_ancestral
from fewstep.samplers.solvers.deis import deis, ipndm
from fewstep.samplers.solvers.dpmpp import dpmpp
from fewstep.samplers.solvers.heun import edm_stochastic, heun, heun_intervals
from fewstep.samplers.solvers.restart import restart, restart_steps
from fewstep.samplers.solvers.sa import sa, sa_steps
from fewstep.samplers.solvers.singlestep import rho_rk, singlestep
from fewstep.samplers.solvers.spec import SAMPLERS, Sampler, parse_spec
from fewstep.samplers.solvers.unipc import unipc
from fewstep.schedules.breaks import warn_unsnapped
from fewstep.schedules.process import NoiseProcess

__all__ = ["DEFAULT_SPECS", "SAMPLERS", "build_plan", "check_process", "names_file"]


SAMPLERS |= {
    "ddim": Sampler(ddim, "DDIM", "first order; eta adds noise", "arXiv:2010.02502"),
    "euler": Sampler(euler, "Euler", "first order in sigma / alpha", "arXiv:2206.00364"),
    "euler_a": Sampler(
        euler_ancestral, "EulerAncestral", "Euler with ancestral noise", "arXiv:2010.02502"
    ),
    "dpmpp": Sampler(dpmpp, "DPMSolverPP", "DPM-Solver++ 1M-3M and SDE", "arXiv:2211.01095"),
    "singlestep": Sampler(
        singlestep, "DPMSolverPPSinglestep", "DPM-Solver++ 2S, 3S and SDE", "arXiv:2211.01095"
    ),
    "unipc": Sampler(unipc, "UniPC", "predictor-corrector, order p + 1", "arXiv:2302.04867"),
    "deis": Sampler(deis, "DEIS", "Adams-Bashforth in t, rho or ln rho", "arXiv:2204.13902"),
    "rho_rk": Sampler(
        rho_rk, "DEISRungeKutta", "Runge-Kutta in rho, 2 to 4 calls a step", "arXiv:2204.13902"
    ),
    "ipndm": Sampler(ipndm, "IPNDM", "fixed Adams-Bashforth weights", "arXiv:2204.13902"),
    "heun": Sampler(
        heun, "Heun", "two calls a step, second order", "arXiv:2206.00364", heun_intervals
    ),
    "edm": Sampler(
        edm_stochastic, "EDMStochastic", "Heun with churn", "arXiv:2206.00364", heun_intervals
    ),
    "sa": Sampler(sa, "SASolver", "stochastic predictor-corrector", "arXiv:2309.05019", sa_steps),
    "restart": Sampler(
        restart,
        "Restart",
        "climbs back in noise, around any solver",
        "arXiv:2306.14878",
        restart_steps,
    ),
    "dc": Sampler(dc, "DCSolver", "multistep with fitted compensation", "arXiv:2409.03755"),
}

# One per family; what `fewstep bench` runs unless told otherwise.
DEFAULT_SPECS = ("ddim", "dpmpp", "unipc", "deis", "ipndm", "heun")


def names_file(sampler: str | Path) -> bool:
    """Whether a sampler is given as a file or folder; a folder called as a solver needs ``./``."""
    text = str(sampler)
    if text.endswith(".json"):
        return True
    return text.partition(":")[0] not in SAMPLERS and os.path.isdir(text)


def build_plan(
    sampler: str | Path | Plan,
    process: NoiseProcess,
    nfe: int | None = None,
    breakpoints: Sequence[float] = (),
) -> Plan:
    """A plan from a spec, the path of a saved plan, or a plan.

    Args:
        sampler: the spec, path or plan. A file or folder may hold several plans
            (:mod:`fewstep.samplers.adapter.files`), of which the one of ``nfe`` calls is taken.
        process: the noise process of the model.
        nfe: network calls; None takes the number of a plan, which a spec does not have.
        breakpoints: ratios sigma / alpha where the denoiser may jump, as guidance that is switched
            on there. Nodes of a spec's grid are moved onto them, and no step looks back across
            one. A plan is taken as it is, with a warning if it has no level there.

    Raises:
        TypeError: for a sampler, or a number of calls, of another kind.
        ValueError: if a given plan has another number of calls or another process, a file several
            plans and no number tells which, a spec has no number, or its grid too few nodes for
            the breakpoints.
        FileNotFoundError: if a path ends in .json and is not there.
    """
    file = None
    check_sampler(sampler)
    if not isinstance(process, NoiseProcess):
        raise TypeError(
            f"process must be a noise process of fewstep.schedules, got {named(process)}; a model "
            "has it as .process"
        )
    nfe = call_count(nfe)
    if not isinstance(sampler, Plan):
        if not names_file(sampler):
            if nfe is None:
                raise ValueError(f"the spec {sampler!r} needs nfe, a number of calls such as 8")
            return parse_spec(str(sampler)).build(process, nfe, breakpoints)
        file, sampler = sampler, load_plan(sampler, nfe)
    if nfe not in (None, sampler.calls):
        raise ValueError(
            f"the plan {sampler.name!r} makes {sampler.calls} calls, not {nfe}: leave nfe "
            f"out, or make it {sampler.calls}"
        )
    check_process(sampler, process, file)
    if file is not None:
        check_levels(sampler, process, str(file))
    called = sampler.sigmas(native=False)[sampler.history :]
    warn_unsnapped(f"the plan {sampler.name!r}", called, breakpoints)
    return sampler


def check_process(
    plan: Plan, process: NoiseProcess, file: str | PathLike[str] | None = None
) -> None:
    """Raises ValueError, with the file's name, if the plan was made for another noise process."""
    if dict(plan.process) != process.identity():
        at = "" if file is None else f"{file}: "
        raise ValueError(
            f"{at}the plan {plan.name!r} was made for another noise process "
            f"({plan.process.get('process')}); build one for this model's"
        )
