"""How commands write to people: nothing is ever cut, on a terminal of any width and in a pipe.

On a terminal lines are wrapped at its width. In a pipe, a file or a log they are as long as they
are, without boxes and colours, so that ``grep`` and ``cut`` find whole entries.
"""

import shutil
import sys
import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

NARROWEST = 20  # no text is wrapped to fewer columns


def terminal_width(stream: TextIO | None = None) -> int | None:
    """Columns of the terminal that a stream is; None for anything else."""
    stream = sys.stdout if stream is None else stream
    return max(NARROWEST, shutil.get_terminal_size().columns) if stream.isatty() else None


def entry(head: str, parts: Iterable[str], width: int | None, indent: int) -> str:
    """A heading and what is said of it.

    Args:
        head: what it is called.
        parts: texts; empty ones are left out.
        width: columns, for a block of lines; None for one line.
        indent: columns in front of the parts in a block.
    """
    texts = [part for part in parts if part]
    if width is None:
        return "; ".join([f"{head}  {texts[0]}" if texts else head, *texts[1:]])
    first = head.ljust(indent - 1) + " "
    lines = [head] if len(first) > indent else []
    for part in texts:
        start = " " * indent if lines else first
        lines.append(wrapped(part, width, start, " " * indent))
    return "\n".join(lines or [head])


def wrapped(text: str, width: int | None, first: str = "", rest: str = "") -> str:
    """Text in lines of at most ``width`` columns; a longer word has a line of its own, whole."""
    if width is None:
        return f"{first}{text}"
    return textwrap.fill(
        text, max(width, len(rest) + NARROWEST), initial_indent=first, subsequent_indent=rest,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def console(width: int) -> "Console":
    """A console of so many columns, without colours of its own in what it prints."""
    from rich.console import Console

    # Without a height, a dumb terminal would have 80 columns whatever the width.
    return Console(highlight=False, emoji=False, width=width, height=100)


def print_line(line: str, *, stderr: bool = False) -> None:
    """Prints a line whole; a terminal wraps it by itself."""
    print(line, file=sys.stderr if stderr else sys.stdout)


def print_table(table: "Table") -> None:
    """Prints a table whole: on a terminal too narrow for it the cells are wrapped.

    Its title is plain text, in a line of its own that is as long as it is.
    """
    width = terminal_width()
    if table.title is not None:
        print_line(str(table.title))
        table.title = None
    if width is None:
        table.box = None
        # Spaces keep the columns apart, as `column -t` writes them.
        table.pad_edge, table.padding = False, (0, 2, 0, 0)
    needed = console(100_000).measure(table).maximum
    if width is not None and needed > width:
        for column in table.columns:
            column.no_wrap, column.overflow = False, "fold"
        needed = width
    console(needed).print(table)
