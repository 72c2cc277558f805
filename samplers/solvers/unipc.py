"""UniPC: a predictor, and a corrector that costs no call."""

from collections.abc import Collection

from fewstep.samplers.core.plan import Plan
from fewstep.samplers.solvers.multistep import check_order, predictor_corrector
from fewstep.schedules.grids import Grid


def unipc(
    grid: Grid,
    *,
    order: int = 3,
    solver_type: str = "bh2",
    disable_corrector: Collection[int] = (),
    lower_order_final: bool = True,
) -> Plan:
    """UniPC: UniP-p with UniC-p, which adds the next output to the same step at no call.

    arXiv:2302.04867, algorithms 5-8 in the data form. Order p with the predictor alone, p + 1 with
    the corrector. B(h) matters for pairs of nodes only; with more the weights are the exact ones.

    Args:
        grid: noise levels.
        order: p, 1 to 4.
        solver_type: ``"bh1"``, B(h) = h, or ``"bh2"``, B(h) = exp(h) - 1.
        disable_corrector: numbers of the steps (from 0) that are not corrected; -1 means all.
        lower_order_final: fewer outputs in the last steps.

    Raises:
        ValueError: for a value outside these.
    """
    check_order(order, range(1, 5), "UniPC")
    if solver_type not in ("bh1", "bh2"):
        raise ValueError(f"solver_type must be 'bh1' or 'bh2', got {solver_type!r}")
    whole = isinstance(disable_corrector, Collection) and all(
        isinstance(step, int) and not isinstance(step, bool) and step >= -1
        for step in disable_corrector
    )
    if not whole:
        raise ValueError(
            "disable_corrector takes a list of numbers of steps, as in [0, 1], or [-1] for all, "
            f"got {disable_corrector!r}"
        )
    return predictor_corrector(
        grid,
        order=order,
        corrects=lambda e: -1 not in disable_corrector and e - 1 not in disable_corrector,
        rule="half-step" if solver_type == "bh1" else "half-moment",
        lower_order_final=lower_order_final,
        name=f"unipc:order={order},solver_type={solver_type}",
    )
