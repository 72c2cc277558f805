"""The fixed solvers that tuning starts from, and where a jump may take their start."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from fewstep.samplers.gaussian.class_gaussians import ClassGaussians
from fewstep.samplers.gaussian.gaussian import Gaussian
from fewstep.samplers.gaussian.warm import warm_plan
from fewstep.samplers.solvers.spec import parse_spec
from fewstep.samplers.tuning.family import Rebuild
from fewstep.samplers.tuning.flatten import flatten
from fewstep.samplers.tuning.objective import Objective
from fewstep.samplers.tuning.pairs import Pairs
from fewstep.samplers.tuning.rollout import Calls
from fewstep.samplers.tuning.teacher import Teacher
from fewstep.samplers.tuning.tied import Tied
from fewstep.schedules.breaks import mark
from fewstep.schedules.grids import grid_from_rho
from fewstep.schedules.process import NoiseProcess

SOLVERS = ("unipc", "unipc:solver_type=bh1", "dpmpp:order=2", "dpmpp:order=3", "ipndm", "deis")
GRIDS = ("softlog", "karras", "logsnr", "linspace", "quadratic", "tan", "beta")
ENDS = ("zero", "sigma_min")
SCALES = (32.0, 16.0, 8.0, 4.0, 2.0)  # landings, in standard deviations of the data
HISTORIES = (3,)  # rows above a landing
LANDED = 4  # best fixed solvers that are tried from each landing


@dataclass(frozen=True)
class Start:
    """A fixed solver as a table, with its root mean square error."""

    spec: str
    table: Tied
    error: float


@dataclass(frozen=True)
class Landings:
    """A jump by a Gaussian, and where it may land.

    Attributes:
        fit: one Gaussian, or one for each class; then the conditions are class labels.
        rho: ratios sigma / alpha to try; those outside the process are left out.
        history: how many rows above a landing to try.
    """

    fit: Gaussian
    rho: tuple[float, ...]
    history: tuple[int, ...] = HISTORIES

    @classmethod
    def of(cls, fit: Gaussian) -> "Landings":
        """At ``SCALES`` of its standard deviation."""
        return cls(fit, tuple(scale * fit.std for scale in SCALES))

    def labels(self, teacher: Teacher) -> Tensor | None:
        return teacher.cond if isinstance(self.fit, ClassGaussians) else None

    def pairs(self, table: Tied, teacher: Teacher) -> Pairs:
        """The teacher's ends, from where the jump takes its starts."""
        return Pairs.landed(teacher, self.fit, table.rho[0], table.history, self.labels(teacher))


def pairs_from(table: Tied, teacher: Teacher, landings: Landings | None) -> Pairs:
    """The teacher's ends, from where the table starts."""
    if landings is None or not table.landed:
        return Pairs.of(teacher)
    return landings.pairs(table, teacher)


def scan(
    calls: Calls,
    nfe: int,
    pairs: Pairs,
    solvers: Sequence[str] = SOLVERS,
    breakpoints: Sequence[float] = (),
) -> list[Start]:
    """Fixed solvers on fixed grids, those that have a tied form, the least error first.

    Raises:
        ValueError: if there is none, or the model is not finite.
    """
    process = calls.denoiser.process
    found: dict[tuple[float, ...], Start] = {}
    for solver, grid, final in itertools.product(solvers, GRIDS, ENDS):
        options = "" if "grid=" in solver else f"grid={grid},final={final}"
        spec = f"{solver}{',' if ':' in solver else ':'}{options}" if options else solver
        try:
            table = flatten(parse_spec(spec).build(process, nfe, breakpoints), process)
        except ValueError:
            continue  # a grid that this many calls cannot divide, two calls at a level
        key = (*table.rho, *table.weights().flatten().tolist())
        if table.rho[0] == process.rho_max and key not in found:
            found[key] = Start(spec, table, rms(calls, table, pairs))
    if not found:
        raise ValueError(f"no solver of {list(solvers)} has a tied form at {nfe} calls")
    ordered = sorted(found.values(), key=lambda start: start.error)
    if not math.isfinite(ordered[0].error):
        raise ValueError(
            "the runs of every fixed solver are not finite on these noises: check the denoiser "
            "and its conditions"
        )
    return ordered


def scan_landed(
    calls: Calls, nfe: int, teacher: Teacher, scanned: Sequence[Start], landings: Landings,
    breakpoints: Sequence[float] = (),
) -> list[Start]:  # fmt: skip
    """The best fixed solvers that there are from every landing, the least error first.

    Not every one has a table there: a grid may not divide what is left, and solvers in noise form
    have no history of data.
    """
    process, made = teacher.process, []
    inside = [rho for rho in landings.rho if process.rho_min < rho < process.rho_max]
    for rho, history in itertools.product(inside, landings.history):
        late = partial(_landed, process, nfe, rho, history, breakpoints)
        tables = (late(start.spec) for start in scanned)
        there = (entry for entry in tables if entry is not None)
        for spec, table in itertools.islice(there, LANDED):
            made.append(Start(spec, table, rms(calls, table, landings.pairs(table, teacher))))
    return sorted(made, key=lambda start: start.error)


def _landed(
    process: NoiseProcess, nfe: int, rho: float, history: int, breakpoints: Sequence[float],
    spec: str,
) -> tuple[str, Tied] | None:  # fmt: skip
    try:
        return spec, flatten(warm_plan(spec, process, nfe, rho, history, breakpoints), process)
    except ValueError:
        return None


def solver_on(spec: str, process: NoiseProcess, breakpoints: Sequence[float] = ()) -> Rebuild:
    """From n + 1 ratios to the table of a solver there."""
    known = parse_spec(spec)

    def rebuild(rho: tuple[float, ...]) -> Tied:
        grid = grid_from_rho(process, torch.tensor(rho, dtype=torch.float64).numpy())
        marked = mark(grid, breakpoints)
        return flatten(known.sampler.plan(marked, grid.nfe, known.options), process)

    return rebuild


def rms(calls: Calls, table: Tied, pairs: Pairs) -> float:
    """The root mean square error of a table."""
    return math.sqrt(float(Objective(pairs).squares(calls, table).mean()))
