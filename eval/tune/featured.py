"""Tied tables tuned in features, or in features and samples."""

import time
from dataclasses import dataclass, replace

import torch

from fewstep.eval.tune.feature_space import Kind, objective_space
from fewstep.samplers.tuning.family import Family
from fewstep.samplers.tuning.feature_objective import Features
from fewstep.samplers.tuning.flatten import flatten
from fewstep.samplers.tuning.objective import Objective, floor_of
from fewstep.samplers.tuning.optimise import Settings
from fewstep.samplers.tuning.pairs import Pairs
from fewstep.samplers.tuning.polish import Entry, polish
from fewstep.samplers.tuning.result import Tuned
from fewstep.samplers.tuning.rollout import Calls, run_table
from fewstep.samplers.tuning.scan import Landings, pairs_from
from fewstep.samplers.tuning.teacher import Teacher
from fewstep.samplers.tuning.tied import Tied
from fewstep.types import Denoiser


@dataclass(frozen=True)
class Featured:
    """How a table is tuned on in another space than that of samples.

    Attributes:
        kind: ``"features"`` or ``"both"``.
        features: of samples.
    """

    kind: Kind
    features: Features


@torch.no_grad()
def tune_in_features(
    denoiser: Denoiser,
    found: Tuned,
    tune: Teacher,
    select: Teacher,
    settings: Settings,
    *,
    where: Featured,
    landings: Landings | None,
    breakpoints: tuple[float, ...],
) -> Tuned:
    """Polishes what was found in sample space on errors in features, or in both.

    Args:
        denoiser, tune, select, settings, landings, breakpoints: as of ``tune_tied``; here the
            minutes are those of the polish.
        found: what that gave.
        where: errors are measured.

    Returns:
        The best on the selection noises of the start, of what was found, and of its polish; its
        errors, but for those of a later report, are in units of the objective.
    """
    began, calls = time.perf_counter(), Calls(denoiser, settings.batch)
    process = denoiser.process
    start, table = flatten(found.start, process), flatten(found.plan, process)
    pairs = Pairs.of(tune)
    space = objective_space(
        where.kind, where.features, run_table(calls, start, pairs).end, pairs.end
    )
    assert space is not None
    floor = floor_of(Objective(space.pairs(pairs), space=space).squares(calls, start))

    def pairs_of(one: Tied, teacher: Teacher) -> Pairs:
        return space.pairs(pairs_from(one, teacher, landings))

    def goal(one: Tied, teacher: Teacher) -> Objective:
        return Objective(pairs_of(one, teacher), settings.power, floor, space)

    def error(one: Tied, teacher: Teacher) -> float:
        return float(goal(one, teacher).squares(calls, one).mean().sqrt())

    deadline = began + 60 * settings.minutes
    family = Family(table, settings.free, settings.band, None, breakpoints)
    polished = polish(
        calls, family, table, goal(table, tune), goal(table, select), steps=settings.steps,
        batch=settings.batch, stop=lambda: time.perf_counter() > deadline,
    )  # fmt: skip
    before, after = error(start, select), error(polished.table, select)
    improved = after < before
    kept = polished.table if improved else start
    history: tuple[Entry, ...] = polished.history if improved else ()
    plan = kept.plan(f"tuned:{kept.nfe}") if improved else found.start
    return replace(
        found, plan=plan, improved=improved, size=family.size, tune=error(kept, tune),
        select=min(after, before), select_before=before, history=history,
        calls=found.calls + calls.samples / len(pairs),
        seconds=found.seconds + time.perf_counter() - began,
    )  # fmt: skip
