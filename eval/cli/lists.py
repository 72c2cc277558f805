"""What ``fewstep list`` shows: every name with its options, or one entry whole."""

import difflib

from fewstep.eval.cli.docstrings import REQUIRED
from fewstep.eval.cli.entries import KINDS, Entry, entries
from fewstep.eval.common.text import entry, print_line, terminal_width, wrapped

INDENT = 16  # columns in front of what is said of a name


def show_lists(name: str | None = None) -> None:
    """Prints all names, those of one kind, or all that is known of one name.

    Args:
        name: an entry, or a kind of ``KINDS`` (or its plural); None for everything.

    Raises:
        ValueError: for another name.
    """
    everything, width = list(entries()), terminal_width()
    kind = None if name is None else name.removesuffix("es" if name == "processes" else "s")
    if name is None or kind in KINDS or name == "guidance":
        asked = ("source", "modifier") if name == "guidance" else (kind,) if name else tuple(KINDS)
        for wanted in asked:
            print_line(_overview(wanted or "", everything, width))
        if name is None:
            last = "fewstep list NAME shows one of them whole, with the meaning of each option"
            print_line(wrapped(last, width))
        return
    found = [one for one in everything if one.name == name]
    if not found:
        raise ValueError(_unknown(name, everything))
    for one in found:
        print_line(_whole(one, width))


def _overview(kind: str, everything: list[Entry], width: int | None) -> str:
    """A heading and a block for each entry of a kind; in a pipe, lines that begin with the kind."""
    lines = [] if width is None else [wrapped(KINDS[kind], width)]
    for one in everything:
        if one.kind == kind:
            options = ", ".join(option.short for option in one.options)
            parts = (
                one.summary, one.home and f"class {one.home}", one.paper,
                one.needs and f"needs a {one.needs}", options and f"options: {options}",
            )  # fmt: skip
            head = f"  {one.starred}" if width is not None else f"{kind} {one.starred}"
            lines.append(entry(head, parts, width, INDENT))
    return "\n".join([*lines, ""] if width is not None else lines)


def _whole(one: Entry, width: int | None) -> str:
    """All of an entry, an aspect a line."""
    aspects = {
        one.kind: f"{one.name}: {one.summary}", "class": one.home, "paper": one.paper,
        "needs": one.needs and f"a {one.needs} of the problem", "about": one.text,
        **{f"  {o.name}": _said(o.default, o.meaning) for o in one.options},
        "example": one.example,
    }  # fmt: skip
    lines = []
    for name, text in aspects.items():
        if text:
            lines.append(wrapped(text, width, name.ljust(INDENT - 1) + " ", " " * INDENT))
    return "\n".join([*lines, ""])


def _said(default: object, meaning: str) -> str:
    given = "must be given" if default is REQUIRED else f"default {default!r}"
    return f"{given}; {meaning}" if meaning else given


def _unknown(name: str, everything: list[Entry]) -> str:
    names = list(dict.fromkeys([one.name for one in everything]))
    # A spec begins with the name of its sampler, and names are in lower case.
    near = difflib.get_close_matches(name.partition(":")[0].lower(), [*names, *KINDS])
    meant = f"did you mean {' or '.join(near)}? " if near else ""
    return (
        f"nothing is called {name!r}; {meant}`fewstep list` has all names, of the kinds "
        f"{', '.join(KINDS)}"
    )
