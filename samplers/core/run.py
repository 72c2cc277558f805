"""What a run of a plan consists of: its levels, its start, the facts of its table."""

from fewstep.samplers.core.ops import history_entries
from fewstep.samplers.core.plan import Plan
from fewstep.schedules.levels import levels_of
from fewstep.types import Level, RunFacts


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
    for row, held in zip(plan.evaluations, history_entries(plan.evaluations), strict=True):
        read = {held[j] for op in row.ops for j, w in enumerate(op.w) if w}
        reads = max(reads, len(read))
    noisy = bool(plan.draws)
    return RunFacts(levels(plan, start), reads, noisy)
