"""What ``fewstep tune`` does."""

from fewstep.eval.cli.next_steps import command, next_line
from fewstep.eval.common.text import print_line, print_table
from fewstep.eval.tune.report import error_table, page_of, subject
from fewstep.eval.tune.run import run_tune
from fewstep.eval.tune.settings import TuneSettings
from fewstep.progress import Progress


def tune_and_report(settings: TuneSettings, progress: Progress) -> None:
    """Tunes, and prints the errors."""
    made = run_tune(settings, progress.at, progress.say)
    progress.close()
    table = error_table(made)
    table.title = (
        f"\nRMSE to the teacher: {subject(made)}, {len(made.setup.splits['report'])} noises that "
        "took no part"
    )
    print_table(table)
    lines = made.summary()
    if settings.out is not None:
        lines += [f"plan: {settings.out}", f"report: {page_of(settings.out)}"]
        guided: tuple[str, ...] = () if settings.guidance == "none" else ("-g", settings.guidance)
        guided += () if settings.prompts is None else ("--prompts", str(settings.prompts))
        bench = ("bench", "--problem", settings.problem, "-s", settings.out, "--nfe", settings.nfe)
        lines.append(next_line(command("fewstep", *bench, *guided)))
    for line in lines:
        print_line(line)
