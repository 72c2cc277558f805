"""Plans for a problem under guidance, and digests that tell plans and processes apart."""

import json

from fewstep.eval.common.cache import digest
from fewstep.guidance import Expression
from fewstep.samplers import Plan, build_plan
from fewstep.samplers.core.run import facts
from fewstep.schedules import NoiseProcess


def guided_plan(
    sampler: str | Plan, process: NoiseProcess, nfe: int | None, guidance: Expression | None
) -> Plan:
    """The plan that :func:`fewstep.sample` would make under guidance.

    Raises:
        ValueError: if the two do not fit.
    """
    if guidance is None:
        return build_plan(sampler, process, nfe)
    plan = build_plan(sampler, process, nfe, guidance.breakpoints())
    guidance.check(facts(plan, plan.history))
    return plan


def plan_digest(plan: Plan) -> str:
    """SHA-256 of the numbers of a plan, whatever it is called."""
    table = plan.table()
    numbers = {key: table[key] for key in ("evaluations", "end", "process")}
    return digest([json.dumps(numbers, sort_keys=True)])


def process_digest(process: NoiseProcess) -> str:
    """SHA-256 of a noise process."""
    return digest([json.dumps(process.identity(), sort_keys=True)])
