"""What a run of a plan consists of: its levels, its start, its noise, the facts of its table."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fewstep.samplers.core.plan import Plan, history_entries
from fewstep.samplers.solvers.spec import parse_spec
from fewstep.samplers.solvers.tail import Rebuild, tail
from fewstep.schedules.breaks import TOLERANCE, mark
from fewstep.schedules.grids import Grid
from fewstep.schedules.levels import levels_of
from fewstep.schedules.process import NoiseProcess
from fewstep.types import Level, RunFacts


def seeded_noise(
    seeds: Sequence[int], shape: Sequence[int], key: int, device: Any = None, dtype: Any = None
) -> Tensor:
    """(len(seeds), *shape) unit noise; row i depends on seeds[i] and ``key`` alone.

    Drawn on the CPU in float32, so that it is the same on every device.
    """
    generator = torch.Generator()
    rows = []
    for seed in seeds:
        # Two draws of one seed are told apart by spreading the key over all 64 bits.
        generator.manual_seed((seed + key * 0x9E3779B97F4A7C15) % 2**63)
        rows.append(torch.randn(tuple(shape), generator=generator))
    return torch.stack(rows).to(device=device, dtype=dtype)


def start_scale(plan: Plan) -> float:
    """Standard deviation of the start noise: 1, or sigma of the first level when alpha is 1."""
    first = plan.evaluations[0]
    return first.sigma if first.alpha == 1 else 1.0


def levels(plan: Plan, start: int = 0) -> list[Level]:
    """Where the network is called, from evaluation ``start`` on."""
    rows = plan.evaluations[start:]
    nodes = [(row.time, row.alpha, row.sigma) for row in rows]
    return levels_of(nodes, [row.stage == 0 for row in rows], plan.end)


def facts(plan: Plan, start: int = 0) -> RunFacts:
    """What guidance may know of a run of the plan that begins at evaluation ``start``."""
    reads = 1
    for row, held in zip(plan.evaluations, history_entries(plan), strict=True):
        read = {held[j] for op in row.ops for j, w in enumerate(op.w) if w}
        reads = max(reads, len(read))
    noisy = bool(plan.draws)
    return RunFacts(levels(plan, start), reads, noisy)


def enter(
    plan: Plan, rho: float, process: NoiseProcess, breakpoints: Sequence[float] = ()
) -> tuple[Plan, float]:
    """The part of a plan from a ratio sigma / alpha on, and the deviation of its start noise.

    It starts at the first solver step from there or below. Without a level above, that is the whole
    plan and its usual start; else the state is taken for data of unit variance with the noise of
    the level.

    Args:
        plan: the whole.
        rho: where to start.
        process: the noise process of the plan.
        breakpoints: ratios across which no step may look back.

    Raises:
        ValueError: if nothing is left.
    """
    limit = rho * (1 + TOLERANCE)
    begins = [row.stage == 0 for row in plan.evaluations]
    first = next((x.index for x in levels(plan) if begins[x.index] and x.rho <= limit), None)
    if first is None:
        least = min(plan.sigmas(native=False)[:-1])
        raise ValueError(
            f"no call is left of {plan.name!r} from sigma/alpha = {rho:g}, its last is at "
            f"{least:g}: start higher, or use more calls"
        )
    if first == 0:
        return plan, start_scale(plan)
    plan = tail(plan, first, _solver_of(plan, breakpoints), process)
    return plan, math.hypot(plan.evaluations[0].alpha, plan.evaluations[0].sigma)


def _solver_of(plan: Plan, breakpoints: Sequence[float]) -> Rebuild:
    """The solver that a plan is named after, for the steps that would look back too far."""
    try:
        spec = parse_spec(plan.name)
    except ValueError:  # a plan by hand: the solver that needs to know least
        spec = parse_spec("ipndm")

    def rebuild(grid: Grid, nfe: int) -> Plan:
        return spec.sampler.plan(mark(grid, breakpoints), nfe, spec.options)

    return rebuild
