"""Two Gaussians under guidance in an interval of noise levels, in closed form."""

from dataclasses import dataclass, replace

import torch
from helpers import Mixture1D

from fewstep.samplers import SAMPLERS, Plan, parse_spec
from fewstep.samplers.core.execute import Executor
from fewstep.samplers.core.run import levels, start_scale
from fewstep.schedules import VE, ContinuousVP, Flow, Grid, NoiseProcess, discrete_vp, make_grid
from fewstep.schedules.breaks import snap
from fewstep.types import Denoiser, Level, RunFacts

EDGES = (0.28, 2.9)
SPECS = [*SAMPLERS, "singlestep:order=2", "rho_rk:order=4", "sa:evaluate=pece", "unipc:order=4",
         "sa:evaluate=pece,mode=more_steps", "restart:solver=heun", "deis:order=4"]  # fmt: skip
PROCESSES = {
    "vp": discrete_vp("scaled_linear", beta_start=0.00085, beta_end=0.012),
    "zero-snr": discrete_vp("scaled_linear", zero_terminal_snr=True),
    "continuous": ContinuousVP(),
    "edm": VE(time_is="log"),
    "flow": Flow(),
}
LINE = torch.linspace(-2, 2, 17, dtype=torch.float64)


def switched_on(level: Level) -> bool:
    """The interval (0.28, 2.9]; a level to rounding on an edge belongs to the step below it."""
    low, high = (edge * (1 + 1e-6) for edge in EDGES)
    return low < level.gate_rho <= high


class Pair:
    """N(0.6, 0.5^2) guided away from N(-0.3, 0.8^2) with scale 3, inside the interval."""

    process: NoiseProcess = ContinuousVP()

    def __call__(self, x: torch.Tensor, level: Level, cond: object = None) -> torch.Tensor:
        strong = gaussian(x, level, 0.6, 0.5)
        if not switched_on(level):
            return strong
        return torch.lerp(gaussian(x, level, -0.3, 0.8), strong, 3.0)


def gaussian(x: torch.Tensor, level: Level, mean: float, std: float) -> torch.Tensor:
    gain = level.alpha * std**2 / ((level.alpha * std) ** 2 + level.sigma**2)
    return mean + gain * (x - level.alpha * mean)


class MixtureDenoiser:
    """The mixture of ``helpers``."""

    process: NoiseProcess = ContinuousVP()

    def __call__(self, x: torch.Tensor, level: Level, cond: object = None) -> torch.Tensor:
        return Mixture1D()(x, level.alpha, level.sigma)


@dataclass
class Interval:
    """Guidance for ``sample``: twice the prediction inside the interval."""

    edges: tuple[float, ...] = EDGES
    seen: list[RunFacts] | None = None

    def wrap(self, denoiser: Denoiser, seeds: object = None) -> Denoiser:
        self.seeds = seeds

        class Guided:
            process = denoiser.process

            def __call__(self, x: torch.Tensor, level: Level, cond: object = None):
                return denoiser(x, level, cond) * (2.0 if switched_on(level) else 1.0)

        return Guided()

    def breakpoints(self) -> tuple[float, ...]:
        return self.edges

    def check(self, run: RunFacts) -> None:
        self.seen = [*(self.seen or []), run]


def run(plan: Plan, denoiser, noise: torch.Tensor = LINE, select_after=None) -> torch.Tensor:
    """Runs a plan without noise; ``select_after`` is (evaluation, ancestors)."""
    executor, x = Executor(plan), noise * start_scale(plan)
    with torch.no_grad():
        for level in levels(plan):
            x = executor.step(level.index, denoiser(x, level), x, torch.zeros_like)
            if select_after is not None and select_after[0] == level.index:
                x = executor.select(x, select_after[1])
    return x


def planned(spec: str, grid: Grid) -> Plan:
    """The plan of a spec that spends as many calls as the grid takes, at full order to the end."""
    parsed = parse_spec(spec)
    options = dict(parsed.options)
    if "lower_order_final" in parsed.sampler.options():
        options["lower_order_final"] = False
    return parsed.sampler.plan(grid, parsed.sampler.calls(grid, options), options)


def grids(n: int, name: str = "logsnr") -> dict[str, Grid]:
    """Of n steps: ``free``; snapped to the edges with ``kept`` history, and ``restarted`` there."""
    free = make_grid(Pair.process, n, name, final="sigma_min")
    snapped = snap(free, EDGES)
    return {"free": free, "kept": replace(snapped, breaks=frozenset()), "restarted": snapped}


def read_by(plan: Plan) -> list[set[int]]:
    """Which outputs each evaluation's ops read."""
    found, held = [], []
    for e, row in enumerate(plan.evaluations):
        held = [e, *(held if row.store == "push" else held[1:])]
        found.append({held[j] for op in row.ops for j, w in enumerate(op.w) if w})
    return found
