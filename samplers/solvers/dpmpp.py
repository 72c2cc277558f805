"""DPM-Solver++ in its multistep form."""

from fewstep.samplers.core.plan import Plan
from fewstep.samplers.solvers.multistep import check_order, check_tau, predictor_corrector
from fewstep.schedules.grids import Grid


def dpmpp(
    grid: Grid,
    *,
    order: int = 2,
    variant: str = "official",
    solver_type: str = "midpoint",
    tau: float = 0.0,
    lower_order_final: bool | None = None,
) -> Plan:
    """DPM-Solver++ multistep, 1M, 2M and 3M, and their SDE forms (arXiv:2211.01095, section 4).

    Args:
        grid: noise levels.
        order: 1, 2 or 3 outputs a step.
        variant: ``"official"`` third order halves the second difference, as the authors' code and
            every published "3M" figure do, and is of second order; ``"exact"`` is of third.
        solver_type: how two outputs weigh their slope, ``"midpoint"`` or ``"heun"``.
        tau: noise scale; 0 the ODE, 1 the reverse SDE ("2M SDE"; k-diffusion's eta is tau^2).
        lower_order_final: fewer outputs in the last steps; None means below 15 calls.

    Raises:
        ValueError: for a value outside these.
    """
    check_order(order, range(1, 4), "DPMSolverPP", "DEIS(order=4)")
    if variant not in ("official", "exact"):
        raise ValueError(f"variant must be 'official' or 'exact', got {variant!r}")
    if solver_type not in ("midpoint", "heun"):
        raise ValueError(f"solver_type must be 'midpoint' or 'heun', got {solver_type!r}")
    check_tau(tau)
    return predictor_corrector(
        grid,
        order=order,
        rule="half-moment" if solver_type == "midpoint" else "exact",
        official=variant == "official",
        tau=tau,
        lower_order_final=grid.nfe < 15 if lower_order_final is None else lower_order_final,
        name=f"dpmpp:order={order},variant={variant},solver_type={solver_type},tau={tau:g}",
    )
