"""SA-Solver: a stochastic predictor-corrector whose noise scale is a matter of choice."""

import math
from collections.abc import Sequence

from fewstep.samplers.core.plan import Plan
from fewstep.samplers.solvers.multistep import check_tau, predictor_corrector
from fewstep.schedules.grids import Grid

MAX_ORDER = 10  # weights of more nodes lose their digits, and none is better than 4
CHOICES = {"mode": ("few_steps", "more_steps"), "evaluate": ("pec", "pece")}


def sa(
    grid: Grid,
    *,
    nfe: int | None = None,
    predictor_order: int = 3,
    corrector_order: int = 4,
    tau: float = 1.0,
    tau_min: float = 0.2,
    tau_max: float = 5.0,
    mode: str = "few_steps",
    evaluate: str = "pec",
    lower_order_final: bool = True,
) -> Plan:
    """SA-Solver (arXiv:2309.05019, algorithm 1): multistep on the reverse SDE of noise scale tau.

    tau = 0 is the ODE, 1 the usual reverse SDE, more is allowed; each step has the tau of its
    target, and the last one has none. The corrector repeats a step with the same noise. With
    tau = 0, ``few_steps`` and corrector order p + 1 this is UniPC-p with B(h) = h.

    Args:
        grid: noise levels.
        nfe: network calls; above ``grid.nfe`` levels are evaluated again after their correction,
            see :func:`sa_steps`. None means as few as can be.
        predictor_order: outputs of the predictor, 1 to 10.
        corrector_order: outputs of the corrector, the new one included, up to 10; 0 for no
            corrector.
        tau: noise scale within the window, 0 to 100.
        tau_min, tau_max: the window, in ratios sigma / alpha.
        mode: ``"few_steps"`` weighs pairs of outputs by half steps and leaves the last level
            uncorrected; ``"more_steps"`` has the exact weights, corrects at the last level and
            calls the network once more there. (The authors' adds two calls; here all are within
            ``nfe``.)
        evaluate: ``"pec"`` one call a step; ``"pece"`` another one at the corrected point.
        lower_order_final: fewer outputs in the last steps.

    Raises:
        ValueError: for a value outside these, or an ``nfe`` that the grid cannot be walked with.
    """
    _check(predictor_order, corrector_order, tau, tau_min, tau_max)
    for name, value in (("mode", mode), ("evaluate", evaluate)):
        if value not in CHOICES[name]:
            raise ValueError(
                f"{name} must be {' or '.join(map(repr, CHOICES[name]))}, got {value!r}"
            )
    again = _levels_evaluated_again(grid, corrector_order, mode, evaluate)
    extra = 0 if nfe is None else nfe - grid.nfe
    if not 0 <= extra <= len(again):
        raise ValueError(
            f"a grid of {grid.nfe} steps takes {grid.nfe} to {grid.nfe + len(again)} calls of "
            f"SA-Solver ({mode}, {evaluate}), not {nfe}: use sa_steps(nfe, ...) steps"
        )
    twice = set(again[len(again) - extra :])
    return predictor_corrector(
        grid,
        order=predictor_order,
        corrector_order=corrector_order,
        corrects=lambda e: corrector_order > 0,
        twice=twice,
        rule="half-step" if mode == "few_steps" else "exact",
        tau=window(grid, tau, tau_min, tau_max),
        lower_order_final=lower_order_final,
        name=f"sa:predictor_order={predictor_order},corrector_order={corrector_order},tau={tau:g}",
    )


def window(grid: Grid, tau: float, low: float, high: float) -> list[float]:
    """tau of each step: where its target lies within [low, high], and never in the last."""
    inside = [low <= rho <= high for rho in map(float, grid.rho[1:])]
    return [tau if here else 0.0 for here in inside[:-1]] + [0.0]


def sa_steps(
    nfe: int,
    without_signal: bool,
    ends_at_zero: bool,
    *,
    corrector_order: int = 4,
    mode: str = "few_steps",
    evaluate: str = "pec",
    **options: float,
) -> int:
    """Steps that nfe calls pay for: one each, and one for each level that is evaluated again.

    The first level is called once, the second as well if the first has no signal, and in
    ``few_steps`` the last one.
    """
    once = 1 + without_signal + (mode == "few_steps")
    if corrector_order == 0 or (mode, evaluate) == ("few_steps", "pec"):
        return nfe
    if evaluate == "pec":  # the last level alone is evaluated again, if it may be
        return max(nfe - 1, min(nfe, once + 1))
    return min(nfe, math.ceil((nfe + once) / 2))


def _levels_evaluated_again(
    grid: Grid, corrector_order: int, mode: str, evaluate: str
) -> Sequence[int]:
    if corrector_order == 0 or (mode, evaluate) == ("few_steps", "pec"):
        return ()
    first = 1 + int(grid.alpha[0] == 0)
    candidates = range(first, grid.nfe - (mode == "few_steps"))
    return candidates if evaluate == "pece" else candidates[-1:]


def _check(predictor: int, corrector: int, tau: float, low: float, high: float) -> None:
    if not (1 <= predictor <= MAX_ORDER and 0 <= corrector <= MAX_ORDER):
        raise ValueError(
            f"SASolver needs predictor_order >= 1 and corrector_order >= 0 (0 for none), at most "
            f"{MAX_ORDER}, got {predictor} and {corrector}"
        )
    check_tau(tau)
    if not 0 <= low <= high:
        raise ValueError(
            f"the window of tau needs 0 <= tau_min <= tau_max (in sigma / alpha), got {low}, {high}"
        )
