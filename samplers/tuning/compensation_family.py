"""DC-Solver's ratios as a family to tune: a multistep solver on its grid, n - 1 numbers.

The ratios of all calls are fitted together to the error at the end, where the search of the paper
(arXiv:2409.03755, algorithm 2;
:func:`fewstep.samplers.tuning.compensation_search.fit_compensation`) goes call by call. At ratios
of 1 the plan is that of the solver. The Lagrange weights of an output sum to 1, so every plan of
the family is exact for constant data and has a tied table.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fewstep.samplers.core.plan import Plan
from fewstep.samplers.solvers.compensation import compensate, multistep_plan
from fewstep.samplers.solvers.spec import Spec, parse_spec
from fewstep.samplers.tuning.numeric import Numbers
from fewstep.schedules.breaks import snap
from fewstep.schedules.process import Array, NoiseProcess


def compensation_numbers(
    spec: str,
    process: NoiseProcess,
    nfe: int,
    *,
    ratios: Sequence[float] | None = None,
    breakpoints: Sequence[float] = (),
) -> Numbers:
    """The ratios of calls 1 .. n - 1; that of the first call is 1.

    Args:
        spec: a multistep solver without noise, with grid options if any, as ``"unipc:grid=tan"``.
        process: the noise process.
        nfe: network calls, >= 1.
        ratios: ``nfe`` of them to start from, the first 1, as of ``Compensation.ratios``; None for
            ones.
        breakpoints: ratios sigma / alpha that nodes are moved onto, where history restarts.

    Raises:
        ValueError: for a solver of another kind, or ratios of another number.
    """
    parsed = parse_spec(spec)
    grid = snap(parsed.grid_of(process, nfe, parsed.name), breakpoints)
    solver = str(replace(parsed, grid={}))
    base = multistep_plan(grid, solver).renamed(_name(parsed, solver))
    start = np.ones(nfe) if ratios is None else np.array(ratios, dtype=float)
    compensate(base, start.tolist(), grid.breaks)  # checks them

    def plan(vector: Array) -> Plan:
        every = [1.0, *(float(ratio) for ratio in vector)]
        made = compensate(base, every, grid.breaks)
        return replace(made, provenance={**made.provenance, "compensation": every})

    return Numbers(start[1:], plan, np.full(nfe - 1, 1.0))


def _name(spec: Spec, solver: str) -> str:
    """Of the family, as a spec that takes the ratios besides."""
    inner = f"({solver})" if "," in solver else solver
    return str(Spec("dc", {"multistep": inner}, spec.grid))
