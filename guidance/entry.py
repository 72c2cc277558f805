"""Guidance as Python code gives it: made of parts, or in its written form."""

from collections.abc import Sequence

from fewstep.guidance.driver import GuidedDenoiser
from fewstep.guidance.expression import Expression, Modifier, not_addable
from fewstep.guidance.parse import parse_guidance
from fewstep.types import Denoiser, Guidance

MEMBERS = ("wrap", "breakpoints", "check")  # of guidance, see fewstep.types


def as_guidance(guidance: Guidance | str | None) -> Guidance | None:
    """Guidance as Python code is given it: as it is, or in its written form.

    Raises:
        TypeError: for what is no guidance, with where it belongs.
        ValueError: for a text that cannot be read, or that needs a model.
    """
    if guidance is None:
        return None
    if isinstance(guidance, str):
        return parse_guidance(guidance)
    whole = not isinstance(guidance, type) and not isinstance(guidance, Modifier)
    if whole and all(callable(getattr(guidance, name, None)) for name in MEMBERS):
        return guidance
    raise TypeError(not_addable(guidance))


def written(text: str) -> Expression:
    """Guidance from its written form, where there must be some.

    Raises:
        ValueError: for a text that cannot be read, and for ``"none"``.
    """
    found = parse_guidance(text)
    if found is None:
        raise ValueError(f"guidance {text!r} guides nothing: write cfg:3, or leave the call out")
    return found


def guide(
    denoiser: Denoiser,
    guidance: Expression | str,
    seeds: Sequence[int] | None = None,
    *,
    max_rows: int | None = None,
) -> GuidedDenoiser:
    """A guided denoiser, with its costs in ``.counters``.

    Args:
        denoiser: the unguided one.
        guidance: sources and modifiers, or a text such as ``"cfg:3"``.
        seeds: one integer for each sample, which key all draws; None means 0 .. n - 1.
        max_rows: most rows in a call of the network, to bound memory; None means no limit.

    Raises:
        TypeError: for run hooks, which act on a run and belong into ``sample(hooks=)``.
    """
    if isinstance(guidance, str):
        guidance = written(guidance)
    if not isinstance(guidance, Expression):
        raise TypeError(not_addable(guidance))
    return GuidedDenoiser(denoiser, guidance, seeds, max_rows=max_rows)
