"""Every sampler by name."""

from pathlib import Path

from fewstep.samplers.deis import deis, ipndm
from fewstep.samplers.heun import edm_stochastic, heun, heun_intervals
from fewstep.samplers.multistep import ddim, dpmpp, unipc
from fewstep.samplers.plan import Plan
from fewstep.samplers.spec import SAMPLERS, Sampler, parse_spec
from fewstep.schedules.grids import Grid
from fewstep.schedules.process import NoiseProcess

__all__ = ["DEFAULT_SPECS", "SAMPLERS", "build_plan"]


def euler(grid: Grid) -> Plan:
    """Euler's method in sigma / alpha: DDIM without noise, written in the noise form."""
    return ipndm(grid, order=1).renamed("euler")


SAMPLERS |= {
    "ddim": Sampler(ddim, "DDIM", "first order; eta adds noise", "arXiv:2010.02502"),
    "euler": Sampler(euler, "Euler", "first order in sigma / alpha", "arXiv:2206.00364"),
    "dpmpp": Sampler(dpmpp, "DPMSolverPP", "DPM-Solver++ 1M-3M and SDE", "arXiv:2211.01095"),
    "unipc": Sampler(unipc, "UniPC", "predictor-corrector, order p + 1", "arXiv:2302.04867"),
    "deis": Sampler(deis, "DEIS", "Adams-Bashforth in t, rho or ln rho", "arXiv:2204.13902"),
    "ipndm": Sampler(ipndm, "IPNDM", "fixed Adams-Bashforth weights", "arXiv:2204.13902"),
    "heun": Sampler(
        heun, "Heun", "two calls a step, second order", "arXiv:2206.00364", heun_intervals
    ),
    "edm": Sampler(
        edm_stochastic, "EDMStochastic", "Heun with churn", "arXiv:2206.00364", heun_intervals
    ),
}

# One per family; what `fewstep bench` runs unless told otherwise.
DEFAULT_SPECS = ("ddim", "dpmpp", "unipc", "deis", "ipndm", "heun")


def build_plan(sampler: str | Path | Plan, process: NoiseProcess, nfe: int) -> Plan:
    """A plan from a spec, the path of a saved plan, or a plan.

    Raises:
        ValueError: if a given plan has another number of calls or another process.
        FileNotFoundError: if a path ends in .json and is not there.
    """
    if isinstance(sampler, str | Path) and str(sampler).endswith(".json"):
        if not Path(sampler).exists():
            raise FileNotFoundError(f"no plan at {sampler}; `fewstep plan SPEC --save` writes one")
        sampler = Plan.load(sampler)
    if not isinstance(sampler, Plan):
        return parse_spec(str(sampler)).build(process, nfe)
    if sampler.nfe != nfe:
        raise ValueError(f"the plan {sampler.name!r} makes {sampler.nfe} calls, not {nfe}")
    if dict(sampler.process) != process.identity():
        raise ValueError(
            f"the plan {sampler.name!r} was made for another noise process "
            f"({sampler.process.get('process')}); build one for this model's"
        )
    return sampler
