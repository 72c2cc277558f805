"""Whether a table of numbers is a sampler of its noise process.

Types and names are looked at in :mod:`fewstep.samplers.core.reading`; here it is sense: levels
that the process has, what is told to the network there, and noise where there is room for it.
"""

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fewstep.samplers.core.ops import apply_ops
from fewstep.schedules.base import Array, NoiseProcess
from fewstep.schedules.discrete import DiscreteVP
from fewstep.schedules.identity import process_named

if TYPE_CHECKING:
    from fewstep.samplers.core.plan import Plan

LEVEL = 1e-6  # relative; the numbers of a file are float64
# diffusers puts levels between two training times in another way than we do.
TABLE_TIMES = 1.0
# provenance["times"] of a plan whose network is told something else than its level.
OWN_TIMES = "own"


def check_sense(plan: "Plan") -> None:
    """Passes a plan that its noise process can have, as far as the process is known by name.

    Raises:
        ValueError: for the first evaluation, or entry of the provenance, that is off.
    """
    check_landing(plan)
    known = process_named(plan.process)
    if known is not None:
        check_levels(plan, known)
    elif plan.process["process"] == "vp-discrete":
        check_unknown_table(plan, plan.process["times"])
    if plan.draws:
        check_noise(plan)


def check_landing(plan: "Plan") -> None:
    """Passes a plan whose start, if a Gaussian makes it, hands over where the calls begin.

    Raises:
        ValueError: for a history without such a start, or another level.
    """
    landing = plan.provenance.get("landing")
    if landing is None:
        if plan.history:
            raise ValueError(
                "provenance has a history and no landing, from which a Gaussian fills it"
            )
        return
    first = plan.sigmas(native=False)[plan.history]
    if not math.isclose(first, landing, rel_tol=LEVEL):
        raise ValueError(
            f"landing of provenance is {landing:g}, and the first call, evaluation {plan.history}, "
            f"is at sigma/alpha = {first:g}"
        )


def check_levels(plan: "Plan", process: NoiseProcess, where: str = "") -> None:
    """Passes a plan whose levels and network times are those of a process.

    Args:
        plan: that was read.
        process: which it names.
        where: the file, for messages.

    Raises:
        ValueError: for the first evaluation, or the end, that is off.
    """
    at = f"{where}: " if where else ""
    marks = [(row.alpha, row.sigma) for row in plan.evaluations] + [plan.end]
    alpha, sigma = np.array(marks).T
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        rho = sigma / alpha
        own_alpha, own_sigma = process.from_rho(rho)
        near = np.isclose(alpha, own_alpha, LEVEL, 0) & np.isclose(sigma, own_sigma, LEVEL, 0)
    if not near.all():
        e = int(np.argmin(near))
        kind, own = plan.process.get("process"), (float(own_alpha[e]), float(own_sigma[e]))
        raise ValueError(
            f"{at}{_name(plan, e)} has alpha {alpha[e]:g} and sigma {sigma[e]:g}, which process "
            f"{kind} has not: at that ratio it has {own[0]:g} and {own[1]:g}"
        )
    if plan.provenance.get("times") == OWN_TIMES:
        return
    told, due = np.array([row.time for row in plan.evaluations]), process.time(rho[:-1])
    span = max(1.0, float(np.abs(due).max()))
    off = np.abs(told - due) > (TABLE_TIMES if isinstance(process, DiscreteVP) else LEVEL * span)
    if off.any():
        e = int(np.argmax(off))
        raise ValueError(
            f"{at}{_name(plan, e)} tells the network time {told[e]:g}, its level has {due[e]:g}: "
            "correct one of them, or say 'times': 'own' in the provenance"
        )


def check_unknown_table(plan: "Plan", times: int) -> None:
    """Passes what holds for any table of betas: alpha^2 + sigma^2 = 1, and times rise with noise.

    Raises:
        ValueError: for the first evaluation that no table of so many times has.
    """
    told = np.array([row.time for row in plan.evaluations])
    alpha, sigma = np.array([(row.alpha, row.sigma) for row in plan.evaluations]).T
    off = ~np.isclose(alpha**2 + sigma**2, 1, 0, LEVEL)
    off |= (told < 0) | (told > times - 1)
    with np.errstate(divide="ignore"):
        order = np.argsort(-sigma / alpha, kind="stable")
    lowest = np.minimum.accumulate(told[order])
    off[order] |= told[order] > lowest + TABLE_TIMES
    if off.any():
        e = int(np.argmax(off))
        raise ValueError(
            f"{_name(plan, e)} has time {told[e]:g}, alpha {alpha[e]:g} and sigma {sigma[e]:g}, "
            f"which no table of {times} times has: alpha^2 + sigma^2 = 1, and times from 0 to "
            f"{times - 1} rise with sigma"
        )


def check_noise(plan: "Plan") -> None:
    """Passes a plan that adds noise where there is room for it.

    For data that are all 0 an evaluation starts with sigma times unit noise. If its ops carry all
    that the next level has, it is a deterministic one, and what they add is too much.

    Raises:
        ValueError: for the first evaluation of that kind.
    """
    rows = plan.evaluations
    sigmas = [row.sigma for row in rows] + [plan.end[1]]
    depth = max(len(op.w) for row in rows for op in row.ops)
    units = (np.eye(1, plan.draws + 1, k)[0] for k in range(1, plan.draws + 1))
    x, base = np.eye(1, plan.draws + 1)[0] * sigmas[0], np.zeros(plan.draws + 1)
    held: list[Array] = []
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for e, row in enumerate(rows):
            output = np.zeros_like(x) if row.form == "data" else x / row.sigma
            held = [output, *(held if row.store == "push" else held[1:])][: max(depth, 1)]
            quiet = tuple(replace(op, nu=0.0) for op in row.ops)
            size = np.linalg.norm(x) / row.sigma  # 1, but for plans that scale their noise
            carried = np.linalg.norm(apply_ops(quiet, x, base, held)[0]) / size
            x, base, held = apply_ops(row.ops, x, base, held, units)
            total = np.linalg.norm(x) / size
            room = sigmas[e + 1]
            if total > room * (1 + 1e-9) and carried >= room * (1 - 1e-9) and total > carried:
                raise ValueError(
                    f"{_name(plan, e)} adds noise (nu) where the next level, sigma {room:g}, has "
                    "no room for any: its other coefficients carry all of it"
                )


def _name(plan: "Plan", e: int) -> str:
    which = f"evaluation {e}" if e < plan.nfe else "the end"
    return f"{which} of the plan {plan.name!r}"
