"""What ``fewstep tune`` does."""

import sys

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from fewstep.eval.commands.bars import bar_columns
from fewstep.eval.commands.next_steps import command, next_line
from fewstep.eval.tune.report import error_table, page_of, subject
from fewstep.eval.tune.run import run_tune
from fewstep.eval.tune.settings import TuneSettings


def tune_and_report(settings: TuneSettings) -> None:
    """Tunes with a progress bar (on terminals only) and prints the errors."""
    errors, console = Console(stderr=True), Console()
    shown = sys.stderr.isatty()
    with Progress(*bar_columns(), console=errors, disable=not shown, redirect_stdout=False) as bar:
        task = bar.add_task("loading", total=None)

        def show(done: float, total: float, text: str) -> None:
            bar.update(task, completed=done, total=total, description=escape(text))

        def say(line: str) -> None:
            where = bar.console if shown and sys.stdout.isatty() else console
            where.print(line, markup=False, highlight=False, soft_wrap=True)

        made = run_tune(settings, show, say)
    heading = (
        f"\nRMSE to the teacher: {subject(made)}, {len(made.setup.splits['report'])} noises that "
        "took no part"
    )
    console.print(heading, markup=False, highlight=False, soft_wrap=True)
    # As wide as it is: numbers that are cut are of no use.
    table = error_table(made)
    wide = console.measure(table, options=console.options.update(max_width=10_000)).maximum
    Console(width=max(wide, console.width)).print(table)
    lines = made.summary()
    if settings.out is not None:
        lines += [f"plan: {settings.out}", f"report: {page_of(settings.out)}"]
        guided: tuple[str, ...] = () if settings.guidance == "none" else ("-g", settings.guidance)
        guided += () if settings.prompts is None else ("--prompts", str(settings.prompts))
        bench = ("bench", "--problem", settings.problem, "-s", settings.out, "--nfe", settings.nfe)
        lines.append(next_line(command("fewstep", *bench, *guided)))
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
