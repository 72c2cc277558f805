"""Every sampler by name, and the reading of specs such as ``dpmpp:order=3,grid=karras``."""

import ast
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewstep.samplers.auto import auto_grid
from fewstep.samplers.deis import deis, ipndm
from fewstep.samplers.heun import edm_stochastic, heun, heun_intervals
from fewstep.samplers.multistep import ddim, dpmpp, unipc
from fewstep.samplers.plan import Plan
from fewstep.schedules.grids import GRIDS, Grid, make_grid
from fewstep.schedules.process import NoiseProcess


def euler(grid: Grid) -> Plan:
    """Euler's method in sigma / alpha: DDIM without noise, written in the noise form."""
    return ipndm(grid, order=1).renamed("euler")


@dataclass(frozen=True)
class Sampler:
    """One entry of the registry.

    Attributes:
        build: the solver function, ``build(grid, **options) -> Plan``.
        scheduler: the name of its diffusers class.
        summary: one line for tables.
        paper: where it comes from.
        two_stage: the solver takes ``nfe=`` and a grid with fewer steps than calls.
    """

    build: Callable[..., Plan]
    scheduler: str
    summary: str
    paper: str
    two_stage: bool = False

    def options(self) -> dict[str, Any]:
        """Names and defaults of the solver's own options."""
        parameters = inspect.signature(self.build).parameters.values()
        return {
            p.name: p.default
            for p in parameters
            if p.kind is inspect.Parameter.KEYWORD_ONLY and p.name != "nfe"
        }

    def intervals(self, process: NoiseProcess, nfe: int, ends_at_zero: bool = True) -> int:
        """Steps of the grid that ``nfe`` calls walk."""
        if not self.two_stage:
            return nfe
        return heun_intervals(nfe, process.from_rho(process.rho_max)[0] == 0, ends_at_zero)

    def plan(self, grid: Grid, nfe: int, options: Mapping[str, Any]) -> Plan:
        return self.build(grid, **options, **({"nfe": nfe} if self.two_stage else {}))


SAMPLERS: dict[str, Sampler] = {
    "ddim": Sampler(ddim, "DDIM", "first order; eta adds noise", "arXiv:2010.02502"),
    "euler": Sampler(euler, "Euler", "first order in sigma / alpha", "arXiv:2206.00364"),
    "dpmpp": Sampler(dpmpp, "DPMSolverPP", "DPM-Solver++ 1M-3M and SDE", "arXiv:2211.01095"),
    "unipc": Sampler(unipc, "UniPC", "predictor-corrector, order p + 1", "arXiv:2302.04867"),
    "deis": Sampler(deis, "DEIS", "Adams-Bashforth in t, rho or ln rho", "arXiv:2204.13902"),
    "ipndm": Sampler(ipndm, "IPNDM", "fixed Adams-Bashforth weights", "arXiv:2204.13902"),
    "heun": Sampler(heun, "Heun", "two calls a step, second order", "arXiv:2206.00364", True),
    "edm": Sampler(edm_stochastic, "EDMStochastic", "Heun with churn", "arXiv:2206.00364", True),
}

# One per family; what `fewstep bench` runs unless told otherwise.
DEFAULT_SPECS = ("ddim", "dpmpp", "unipc", "deis", "ipndm", "heun")
GRID_OPTIONS = {"grid": "auto", "final": "zero", "power": 7.0, "shift": 1.0}


@dataclass(frozen=True)
class Spec:
    """A parsed spec: the sampler's name, its own options, and those of the grid."""

    name: str
    options: Mapping[str, Any]
    grid: Mapping[str, Any]

    @property
    def sampler(self) -> Sampler:
        return SAMPLERS[self.name]

    def build(self, process: NoiseProcess, nfe: int) -> Plan:
        """The plan for a process and a number of calls."""
        if nfe < 1:
            raise ValueError(f"a sampler needs at least 1 call, got nfe = {nfe}")
        chosen = {**GRID_OPTIONS, **self.grid}
        steps = self.sampler.intervals(process, nfe, chosen["final"] == "zero")
        name = chosen.pop("grid")
        if name not in ("auto", *GRIDS):
            raise ValueError(f"unknown grid {name!r}; known: auto, {', '.join(GRIDS)}")
        if name == "auto":
            grid = auto_grid(
                self.name, process, steps, final=chosen["final"], shift=chosen["shift"]
            )
        else:
            grid = make_grid(process, steps, name, **chosen)
        return self.sampler.plan(grid, nfe, self.options).renamed(str(self))

    def __str__(self) -> str:
        pairs = ",".join(f"{k}={v}" for k, v in {**self.options, **self.grid}.items())
        return self.name + (f":{pairs}" if pairs else "")


def parse_spec(text: str) -> Spec:
    """Reads ``name`` or ``name:option=value,...``; list values are written ``[0,1]``.

    Raises:
        ValueError: for an unknown sampler or option, or a malformed pair.
    """
    name, _, rest = text.strip().partition(":")
    if name not in SAMPLERS:
        raise ValueError(f"unknown sampler {name!r}; known: {', '.join(SAMPLERS)}")
    known = SAMPLERS[name].options()
    options: dict[str, Any] = {}
    grid: dict[str, Any] = {}
    for pair in re.split(r",(?![^\[]*\])", rest) if rest else ():
        key, equals, value = pair.partition("=")
        key = key.strip()
        if not equals or key not in {**known, **GRID_OPTIONS}:
            raise ValueError(
                f"unknown option {pair!r} of sampler {name!r}; known: "
                f"{', '.join(f'{k}=' for k in {**known, **GRID_OPTIONS})}"
            )
        default = GRID_OPTIONS.get(key, known.get(key))
        (grid if key in GRID_OPTIONS else options)[key] = _value(key, value.strip(), default)
    return Spec(name, options, grid)


def _value(key: str, text: str, default: Any) -> Any:
    if isinstance(default, str):
        return text
    try:
        value = ast.literal_eval(
            text.title() if text.lower() in ("true", "false", "none") else text
        )
    except (ValueError, SyntaxError):
        raise ValueError(f"option {key}={text!r} is not a number, truth value or list") from None
    wants_int = isinstance(default, int) and not isinstance(default, bool)
    if wants_int and (isinstance(value, bool) or not isinstance(value, int)):
        raise ValueError(f"option {key} takes a whole number, got {text!r}")
    if isinstance(default, float) and not isinstance(value, int | float):
        raise ValueError(f"option {key} takes a number, got {text!r}")
    return value


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
