"""The report of a benchmark: Markdown, pictures and a page, all made from ``results.jsonl``."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from fewstep.eval.generate.durable import append_durably
from fewstep.eval.reports.cost_tables import front_grid, time_grid
from fewstep.eval.reports.html import page
from fewstep.eval.reports.lines import LINES, parse_runs, read_runs, run_lines
from fewstep.eval.reports.pictures import draw_equal_rows, draw_metrics, draw_samples, picture_name
from fewstep.eval.reports.results import Results, all_or_nothing, check_writable, metric_entry
from fewstep.eval.reports.summary import notes
from fewstep.eval.reports.tables import REFERENCE_FREE, equal_rows_table, subject, table
from fewstep.eval.reports.titles import EXPLAINED, TIMES, metric_title
from fewstep.samplers.writing import write_whole

FRONT = "Pareto front (no other sampler is both better and cheaper):"


def write_report(results: Results, out: Path, settings: dict[str, Any] | None = None) -> list[Path]:
    """Adds the run to ``results.jsonl`` and makes the report from its lines.

    Args:
        results: of a finished run.
        out: the folder, made if needed.
        settings: what was asked for, resolved; those of ``results`` if None.

    Returns:
        The files, as :func:`rebuild`; all of them are there or none.

    Raises:
        ValueError: if the folder cannot be written.
    """
    check_writable(out)
    path = out / LINES
    text, _ = run_lines(results, settings)
    # Drawn first, so that nothing is left of what fails; and from the lines, as ever after.
    made = _render(parse_runs(text, path)[-1], out, before=lambda: append_durably(path, text))
    return [path, *made]


def rebuild(folder: Path) -> list[Path]:
    """Makes all files of a report again from the newest run of ``results.jsonl``, to the byte.

    Returns:
        ``results.jsonl``, and ``results.json``, ``results.csv``, ``report.md``, ``report.html`` and
        PNGs, which appear all or none.

    Raises:
        FileNotFoundError: if there is no ``results.jsonl``.
        ValueError: if it holds no finished run, or the folder cannot be written.
    """
    runs = read_runs(folder / LINES)
    if not runs:
        raise ValueError(f"{folder / LINES} has no finished run; run the benchmark again")
    check_writable(folder)
    return [folder / LINES, *_render(runs[-1], folder)]


def _render(results: Results, out: Path, before: Callable[[], None] = lambda: None) -> list[Path]:
    """Writes the files of a report; all of them or none, and ``before`` just before them."""
    with all_or_nothing(out) as folder:
        write_whole(folder / "results.json", results.to_json() + "\n")
        write_whole(folder / "results.csv", results.to_csv())
        pictures = [
            *draw_metrics(results, folder), *draw_equal_rows(results, folder),
            *draw_samples(results, folder),
        ]  # fmt: skip
        write_whole(folder / "report.md", markdown(results, pictures))
        write_whole(folder / "report.html", page(results))
        names = [path.name for path in sorted(folder.iterdir())]
        before()
    return [out / name for name in names]


def markdown(results: Results, pictures: Iterable[str]) -> str:
    """The report as Markdown; ``pictures`` are file names."""
    pictures, env = list(pictures), results.env
    lines = [f"# Benchmark: {subject(results)}", ""]
    where = f"fewstep {env['fewstep']}, torch {env['torch']}, {env['device']}"
    lines += [f"{where}, {env['threads']} threads. Best of each column in bold.", ""]
    lines += [f"{line}\n" for line in notes(results)]
    for metric in results.metrics:
        lines += _section(results, metric, pictures)
    for metric in REFERENCE_FREE:
        lines += _equal_rows(results, metric, pictures)
    lines += ["## Time", "", TIMES, ""]
    for guidance in results.guidance:
        lines += [*_heading(results, guidance), *time_grid(results, guidance).markdown(), ""]
    samples = [name for name in pictures if name.startswith("samples-")]
    if samples:
        lines += ["## Same seeds", ""]
        lines += [f"![Samples of every sampler]({name})\n" for name in samples]
    return "\n".join(lines).rstrip() + "\n"


def _heading(results: Results, guidance: str) -> list[str]:
    return [f"Guidance `{guidance}`:", ""] if len(results.guidance) > 1 else []


def _section(results: Results, metric: str, pictures: list[str]) -> list[str]:
    """A metric under each guidance that it exists for."""
    _, direction, form = metric_entry(metric)
    title = metric_title(results, metric)
    shown = [text for text in results.guidance if results.metric(metric, text)]
    if not shown:
        return []
    lines = [
        f"## {title}",
        "",
        f"{EXPLAINED.get(metric, '')} {direction.capitalize()} is better.".lstrip(),
        "",
    ]
    for guidance in shown:
        lines += [*_heading(results, guidance), *table(results, metric, guidance)]
        reference = results.env.get("reference", {}).get(guidance, {})
        if metric in reference:
            lines += ["", f"The reference itself: {reference[metric]:{form}}."]
        if f"{picture_name(results, metric, guidance)}.png" in pictures:
            name = picture_name(results, metric, guidance)
            lines += ["", f"![{title} against network calls]({name}.png)"]
        lines += ["", FRONT, "", *front_grid(results, metric, guidance).markdown(), ""]
    if metric in results.env.get("floor", {}):
        floor = f"{results.env['floor'][metric]:{form}}"
        lines += [f"As many real test images (the train/test floor): {floor}.", ""]
    return lines


def _equal_rows(results: Results, metric: str, pictures: list[str]) -> list[str]:
    """Guided samplers beside unguided ones that cost as many forward rows."""
    title = metric_title(results, metric)
    shown = [text for text in results.guidance if results.metric(metric, text)]
    if len(shown) < 2:
        return []
    lines = [f"## {title} at equal forward rows", ""]
    lines += ["Of every network, for each sample, rounded. A call under guidance may take several."]
    lines += ["", *equal_rows_table(results, metric), ""]
    if f"{metric}-rows.png" in pictures:
        lines += [f"![{title} against forward rows]({metric}-rows.png)", ""]
    return lines
