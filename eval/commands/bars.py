"""Progress bars of commands that know their share of work done."""

from rich.progress import (
    BarColumn,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


def bar_columns() -> tuple[ProgressColumn, ...]:
    """Bar, percentage, time gone and left, and what runs now."""
    return (
        BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.description}"),
    )  # fmt: skip
