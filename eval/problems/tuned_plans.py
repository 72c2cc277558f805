"""Whether a tuned plan is run as it was tuned: on its model, under its guidance."""

import warnings

from fewstep.samplers.core.plan import Plan


def warn_other_model(plan: Plan, fingerprint: str, guidance: str | None = None) -> None:
    """Warns if a plan was tuned on another model than the one of this fingerprint.

    Args:
        plan: any.
        fingerprint: of the model.
        guidance: of the run, written as for the tuning; None if it is not known. Another one than
            the plan's is warned about too.
    """
    tuned = plan.provenance.get("tuned", {})
    under = tuned.get("guidance")
    if guidance is not None and under is not None and under != guidance:
        warnings.warn(
            f"the plan {plan.name!r} was tuned under guidance {under!r} and runs under "
            f"{guidance!r}: its errors do not carry over; tune one for this guidance",
            stacklevel=3,
        )
    known = tuned.get("model")
    if known is not None and known != fingerprint:
        warnings.warn(
            f"the plan {plan.name!r} was tuned on another model ({tuned.get('problem')}, "
            f"{known[:8]}) than this one ({fingerprint[:8]}): its errors do not carry over; tune "
            "one for this model",
            stacklevel=3,
        )
