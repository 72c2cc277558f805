"""The report of a benchmark: Markdown, pictures and a page, all made from ``results.jsonl``."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from fewstep.eval.common.durable import append_durably
from fewstep.eval.common.folders import all_or_nothing, check_writable
from fewstep.eval.reports.cost_tables import front_grid, time_grid
from fewstep.eval.reports.html import page
from fewstep.eval.reports.lines import LINES, parse_runs, read_runs, run_lines
from fewstep.eval.reports.parts import parts, seeds_of
from fewstep.eval.reports.pictures import (
    draw_equal_rows,
    draw_metrics,
    draw_samples,
    picture_name,
    rows_picture,
)
from fewstep.eval.reports.results import Results, metric_entry
from fewstep.eval.reports.summary import lead, notes, summary
from fewstep.eval.reports.tables import (
    REFERENCE_FREE,
    bold_note,
    equal_rows_table,
    heading,
    table,
)
from fewstep.eval.reports.titles import EXPLAINED, FRONT, metric_title, rank_note, times_note
from fewstep.writing import write_whole


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
            name
            for part in parts(results)
            for draw in (draw_metrics, draw_equal_rows, draw_samples)
            for name in draw(part, folder)
        ]
        write_whole(folder / "report.md", markdown(results, pictures))
        write_whole(folder / "report.html", page(results))
        names = [path.name for path in sorted(folder.iterdir())]
        before()
    return [out / name for name in names]


def markdown(results: Results, pictures: Iterable[str]) -> str:
    """The report as Markdown; ``pictures`` are file names."""
    pictures, env, shown = list(pictures), results.env, parts(results)
    lines = [f"# {heading(results)}", "", lead(results), ""]
    lines += [f"{line}\n" for line in notes(results)]
    samples = [name for name in pictures if name.startswith("samples-")]
    if samples:
        lines += ["## Samples", ""]
        lines += [f"![Samples of every sampler]({name})\n" for name in samples]
    for metric in results.metrics:
        lines += _section(results, metric, pictures)
    for metric in REFERENCE_FREE:
        for part in shown:
            lines += _equal_rows(part, metric, pictures)
    lines += ["## Time", "", times_note(results), ""]
    for part in shown:
        for guidance in part.guidance:
            grid = time_grid(part, guidance).markdown()
            lines += [*_heading(results, part, guidance), *grid, ""]
    lines += ["## What the numbers depend on", ""]
    lines += [f"- {label}: {text}" for label, text in summary(results).items()]
    lines += [f"- fewstep {env['fewstep']}, torch {env['torch']}, {env['device']}"]
    return "\n".join(lines).rstrip() + "\n"


def _heading(results: Results, part: Results, guidance: str) -> list[str]:
    """The guidance, and the seeds, where there are several."""
    named = [f"guidance `{guidance}`"] if len(results.guidance) > 1 else []
    named += [seeds_of(part)] if part.part else []
    head = ", ".join(named)
    return [f"{head[0].upper()}{head[1:]}:", ""] if head else []


def _section(results: Results, metric: str, pictures: list[str]) -> list[str]:
    """A metric under each guidance that it exists for, in each part."""
    _, direction, form = metric_entry(metric)
    title = metric_title(results, metric)
    shown = [
        (part, text)
        for part in parts(results)
        for text in part.guidance
        if part.metric(metric, text)
    ]
    if not shown:
        return []
    explained = f"{EXPLAINED.get(metric, '')} {direction.capitalize()} is better.".lstrip()
    lines = [f"## {title}", "", explained, ""]
    lines += [f"{note}\n" for note in [rank_note(results, metric)] if note]
    for part, guidance in shown:
        lines += [*_heading(results, part, guidance), *table(part, metric, guidance), ""]
        lines += [f"{note}\n" for note in [bold_note(part, metric, guidance)] if note]
        reference = results.env.get("reference", {}).get(guidance, {})
        if metric in reference:
            lines += [f"The reference itself: {reference[metric]:{form}}.", ""]
        if f"{picture_name(part, metric, guidance)}.png" in pictures:
            name = picture_name(part, metric, guidance)
            lines += [f"![{title} against network calls]({name}.png)", ""]
        lines += [FRONT, "", *front_grid(part, metric, guidance).markdown(), ""]
    if metric in results.env.get("floor", {}):
        floor = f"{results.env['floor'][metric]:{form}}"
        lines += [f"As many real test images (the train/test floor): {floor}.", ""]
    return lines


def _equal_rows(results: Results, metric: str, pictures: list[str]) -> list[str]:
    """Guided samplers beside unguided ones that cost as many network evaluations."""
    title = metric_title(results, metric)
    shown = [text for text in results.guidance if results.metric(metric, text)]
    if len(shown) < 2:
        return []
    lines = [f"## {title} at equal network evaluations", ""]
    lines += ["Of every network, for each sample, rounded. A call under guidance may take several."]
    lines += ["", *equal_rows_table(results, metric), ""]
    if (name := f"{rows_picture(results, metric)}.png") in pictures:
        lines += [f"![{title} against network evaluations]({name})", ""]
    return lines
