"""Guidance in its written form, as on the command line: ``(icg:1.4|interval:0.28,2.9)+tsg``.

As in Python ``+`` adds directions and ``|`` applies a modifier to what is on its left, with
brackets around a modified term of a sum. A part is ``name``, ``name:VALUE,...`` with its arguments
in order, or ``name:KEY=VALUE``; classifiers and second models are not written, they come from what
the caller has.
"""

import ast
import inspect
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fewstep.guidance.kinds import Kinds

if TYPE_CHECKING:
    from fewstep.guidance.expression import Expression, Modifier

SOURCES: "Kinds[Expression]" = Kinds({
    "cfg": "sources.contrast.CFG", "icg": "sources.independent.ICG",
    "tsg": "sources.independent.TSG",
    "autoguidance": "sources.contrast.Autoguidance", "gfcg": "sources.gfcg.GFCG",
    "classifier": "sources.gradients.ClassifierGuidance", "minority": "sources.minority.Minority",
    "selfminority": "sources.minority.SelfMinority",
})  # fmt: skip
MODIFIERS: "Kinds[Modifier]" = Kinds({
    "interval": "modifiers.strength.Interval", "every": "modifiers.strength.Every",
    "schedule": "modifiers.strength.ScaleSchedule", "cfgpp": "modifiers.strength.CFGpp",
    "project": "modifiers.shaping.Project", "rescale": "modifiers.shaping.Rescale",
    "zerostar": "modifiers.shaping.ZeroStar", "threshold": "modifiers.shaping.DynamicThreshold",
})  # fmt: skip
# The argument of a source that is a model, and the name under which it is looked for.
MODELS: dict[str, tuple[str, str]] = {
    "autoguidance": ("weak", "weak model"),
    "gfcg": ("classifier", "classifier"),
    "classifier": ("classifier", "noisy classifier"),
    "minority": ("classifier", "minority classifier"),
}
EXAMPLES = "none, cfg:3, cfg:3|interval:0.2,2 or (icg:1.4|interval:0.28,2.9)+tsg"
MAX_TEXT = 4000
_TOKENS = re.compile(r"\s*([()|+]|[^()|+]+)")
Models = Mapping[str, Callable[[], Any]]
NO_MODELS: Models = {}


def parse_guidance(text: str | None, models: Models | None = None) -> "Expression | None":
    """Guidance from its written form; None for ``"none"``.

    Args:
        text: as in the module's heading.
        models: functions that load what the parts of ``MODELS`` need, by the name there; None
            where nothing is known of them, as in ``sample(guidance="cfg:3")``.

    Raises:
        ValueError: for anything that is not guidance, with what is known; for a model that is not
            there.
    """
    if text is None:
        return None
    if not isinstance(text, str):
        raise TypeError(f"guidance is written as a text such as 'cfg:3', got {text!r}")
    if text.strip() == "none":
        return None
    if len(text) > MAX_TEXT:
        raise ValueError(
            f"a text of guidance has at most {MAX_TEXT:,} characters, got {len(text):,}"
        )
    from fewstep.guidance.expression import Expression

    tokens = [token.strip() for token in _TOKENS.findall(text) if token.strip()]
    try:
        found, rest = _piped(tokens, NO_MODELS if models is None else models)
    except TypeError as error:
        raise ValueError(f"guidance {text!r}: {error}") from error
    except RecursionError as error:
        raise ValueError(f"guidance {text[:60]!r}... has too many brackets") from error
    if rest or not isinstance(found, Expression):
        raise ValueError(f"cannot read guidance {text!r}; write {EXAMPLES}")
    return found


Rest = tuple[Any, list[str]]  # what was read, and the tokens after it


def _piped(tokens: list[str], models: Models) -> Rest:
    found, tokens = _sum(tokens, models)
    while tokens[:1] == ["|"]:
        other, tokens = _sum(tokens[1:], models)
        found = found | other
    return found, tokens


def _sum(tokens: list[str], models: Models) -> Rest:
    found, tokens = _term(tokens, models)
    while tokens[:1] == ["+"]:
        other, tokens = _term(tokens[1:], models)
        found = found + other
    return found, tokens


def _term(tokens: list[str], models: Models) -> Rest:
    if tokens[:1] == ["("]:
        found, tokens = _piped(tokens[1:], models)
        if tokens[:1] != [")"]:
            raise ValueError("a bracket of the guidance is not closed; write it as " + EXAMPLES)
        return found, tokens[1:]
    if not tokens or tokens[0] in "|+)":
        raise ValueError(f"a part of the guidance is missing; write it as {EXAMPLES}")
    return _part(tokens[0], models), tokens[1:]


def _part(text: str, models: Models) -> Any:
    name, _, rest = text.partition(":")
    name = name.strip()
    kinds: dict[str, Any] = {**SOURCES, **MODIFIERS}
    if name not in kinds:
        raise ValueError(
            f"unknown guidance {name!r}; sources: {', '.join(SOURCES)}; modifiers: "
            f"{', '.join(MODIFIERS)}; write none, or for example cfg:3|interval:0.2,2"
        )
    model, needed = MODELS.get(name, ("", ""))
    given = (model, "weak", "distance")  # are not written
    names = [key for key in inspect.signature(kinds[name]).parameters if key not in given]
    arguments = _arguments(name, rest, names)
    if model:
        if needed not in models:
            here = f"which no text names: write {kinds[name].__name__}(..., {model}=...)"
            none = "and there is none for this problem"
            raise ValueError(f"{name} needs a {needed}, {here if models is NO_MODELS else none}")
        arguments[model] = models[needed]()
    missing = [
        key for key, p in inspect.signature(kinds[name]).parameters.items()
        if p.default is inspect.Parameter.empty and key not in arguments
    ]  # fmt: skip
    if missing:
        values = ",".join(key.upper() for key in missing)
        raise ValueError(f"{name} needs {' and '.join(missing)}: write {name}:{values}")
    return kinds[name](**arguments)


def _arguments(name: str, text: str, names: list[str]) -> dict[str, Any]:
    """``1.4,mode=class`` by name; values without one are taken in order."""
    found: dict[str, Any] = {}
    # A site is a name, and would take any number that was meant for something else.
    placed = [key for key in names if key != "site"]
    for place, piece in enumerate(text.split(",") if text.strip() else []):
        key, equals, value = piece.rpartition("=")
        key = key.strip() if equals else placed[place] if place < len(placed) else ""
        if key not in names or key in found or not value.strip():
            raise ValueError(
                f"{name} cannot take {piece.strip()!r}; its values are, in order, "
                f"{', '.join(placed)}, or KEY=VALUE{', as site=NAME' if 'site' in names else ''}"
            )
        found[key] = _value(value.strip())
    return found


def _value(text: str) -> Any:
    if text.lower() in ("inf", "nan"):
        return float(text)
    try:
        return ast.literal_eval(text.title() if text.lower() in ("true", "false", "none") else text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
