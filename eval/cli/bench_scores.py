"""What ``fewstep bench`` does: it runs a sweep and prints its scores."""

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from fewstep.eval.bench.runner import run_bench
from fewstep.eval.bench.sweeps import Sweep
from fewstep.eval.cli.next_steps import command, next_line
from fewstep.eval.common.processes import launched
from fewstep.eval.common.text import print_line, print_table
from fewstep.eval.reports.results import (
    PEER_PREFIX,
    Results,
    metric_entry,
)
from fewstep.eval.reports.summary import few_notes, without_reference
from fewstep.eval.reports.tables import best_of_grids, costs, seed_spread, subject
from fewstep.eval.reports.titles import metric_title
from fewstep.progress import Progress


def run_and_report(sweep: Sweep, progress: Progress) -> None:
    """Runs a benchmark and prints the scores."""
    results = run_bench(sweep, sweep.out, progress.at)
    progress.close()
    if launched()[0]:
        return  # the first process tells
    for guidance in results.guidance:
        for metric in results.metrics:
            if results.metric(metric, guidance):
                print_table(score_table(results, metric, guidance))
    again = command("fewstep", "bench", sweep.out / "sweep.yaml")
    for line in (
        *without_reference(results),
        *few_notes(results),
        f"report: {sweep.out / 'report.html'}",
        next_line(f"open it in a browser; {again} with other options, as in --n {4 * sweep.n}"),
    ):
        print_line(line)


def score_table(results: Results, metric: str, guidance: str) -> Table:
    """The values of a metric for the terminal; diffusers' classes at their best grid."""
    title, form = metric_title(results, metric), metric_entry(metric)[2]
    calls = sorted({row.nfe for row in results.rows if row.guidance == guidance})
    table = Table(box=SIMPLE_HEAD, title=f"\n{title}: {subject(results, guidance)}")
    table.add_column("sampler", no_wrap=True)
    for n in calls:
        table.add_column(f"{n} calls", justify="right")
    values = results.metric(metric, guidance)
    rows = {escape(k): v for k, v in values.items() if not k.startswith(PEER_PREFIX)}
    for name, best in best_of_grids(results, metric, guidance).items():
        rows[f"{escape(name)}, best grid"] = {n: value for n, (value, _) in best.items()}
    env = results.env
    for label, levels in (
        ("reference", env.get("reference", {}).get(guidance, {})),
        ("real test images", env.get("floor", {})),
    ):
        if metric in levels:
            rows[f"[dim]{label}[/dim]"] = dict.fromkeys(calls, levels[metric])
    if deviations := seed_spread(results, metric, guidance):
        rows["[dim]± from seed to seed[/dim]"] = deviations
    for name, found in rows.items():
        table.add_row(name, *(f"{found[n]:{form}}" if n in found else "" for n in calls))
    for label, cost in costs(results, guidance).items():
        table.add_row(f"[dim]{label}[/dim]", *(f"[dim]{cost.get(n, '')}[/dim]" for n in calls))
    return table
