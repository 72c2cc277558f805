"""``report.md`` with its pictures, from the results of a benchmark."""

from collections.abc import Iterable
from pathlib import Path

from fewstep.eval.pictures import draw_equal_rows, draw_metrics, draw_samples, picture_name
from fewstep.eval.results import METRICS, Results, all_or_nothing, check_writable
from fewstep.eval.tables import REFERENCE_FREE, equal_rows_table, subject, table, time_table

EXPLAINED = {
    "rmse": "Root mean square difference, over samples and elements, to the fine solution from the "
    "same starting noise under the same guidance. It does not judge samplers that add noise, which "
    "leave that solution.",
    "feature_rmse": "The same difference in the 64 features of the bundled classifier.",
    "fd_fashion": "Frechet distance, in the bundled classifier's features, to the Fashion-MNIST "
    "training images. It is not an FID, and grows as n falls: compare equal n only.",
    "accuracy": "Share of samples that the bundled classifier gives the class they were asked for.",
}


def write_report(results: Results, out: Path) -> list[Path]:
    """Writes ``results.json``, ``results.csv``, ``report.md`` and PNGs; all of them or none.

    Raises:
        ValueError: if the folder cannot be written.
    """
    check_writable(out)
    with all_or_nothing(out) as folder:
        (folder / "results.json").write_text(results.to_json() + "\n")
        (folder / "results.csv").write_text(results.to_csv())
        pictures = [
            *draw_metrics(results, folder), *draw_equal_rows(results, folder),
            *draw_samples(results, folder),
        ]  # fmt: skip
        (folder / "report.md").write_text(markdown(results, pictures))
        names = [path.name for path in sorted(folder.iterdir())]
    return [out / name for name in names]


def markdown(results: Results, pictures: Iterable[str]) -> str:
    """The report as Markdown; ``pictures`` are file names."""
    pictures, env = list(pictures), results.env
    lines = [f"# Benchmark: {subject(results)}", ""]
    where = f"fewstep {env['fewstep']}, torch {env['torch']}, {env['device']}"
    lines += [f"{where}, {env['threads']} threads. Best of each column in bold.", ""]
    lines += [f"{line}\n" for line in without_reference(results)]
    for metric in METRICS:
        lines += _section(results, metric, pictures)
    for metric in REFERENCE_FREE:
        lines += _equal_rows(results, metric, pictures)
    lines += ["## Time", "", "Seconds for all samples, without warm-up.", ""]
    for guidance in results.guidance:
        lines += [*_heading(results, guidance), *time_table(results, guidance), ""]
    samples = [name for name in pictures if name.startswith("samples-")]
    if samples:
        lines += ["## Same seeds", ""]
        lines += [f"![Samples of every sampler]({name})\n" for name in samples]
    return "\n".join(lines).rstrip() + "\n"


def without_reference(results: Results) -> list[str]:
    """A line for each guidance under which no sampler could be compared with a solution."""
    return [
        f"No RMSE under `{text}`: it draws at random or goes by the steps of the solver, so no two "
        "samplers are after the same solution."
        for text in results.guidance
        if not results.metric("rmse", text)
    ]


def _heading(results: Results, guidance: str) -> list[str]:
    return [f"Guidance `{guidance}`:", ""] if len(results.guidance) > 1 else []


def _section(results: Results, metric: str, pictures: list[str]) -> list[str]:
    """A metric under each guidance that it exists for."""
    title, direction, form = METRICS[metric]
    shown = [text for text in results.guidance if results.metric(metric, text)]
    if not shown:
        return []
    lines = [f"## {title}", "", f"{EXPLAINED[metric]} {direction.capitalize()} is better.", ""]
    for guidance in shown:
        lines += [*_heading(results, guidance), *table(results, metric, guidance)]
        reference = results.env.get("reference", {}).get(guidance, {})
        if metric in reference:
            lines += ["", f"The reference itself: {reference[metric]:{form}}."]
        if f"{picture_name(results, metric, guidance)}.png" in pictures:
            name = picture_name(results, metric, guidance)
            lines += ["", f"![{title} against network calls]({name}.png)"]
        lines += [""]
    if metric in results.env.get("floor", {}):
        floor = f"{results.env['floor'][metric]:{form}}"
        lines += [f"As many real test images (the train/test floor): {floor}.", ""]
    return lines


def _equal_rows(results: Results, metric: str, pictures: list[str]) -> list[str]:
    """Guided samplers beside unguided ones that cost as many forward rows."""
    title = METRICS[metric][0]
    shown = [text for text in results.guidance if results.metric(metric, text)]
    if len(shown) < 2:
        return []
    lines = [f"## {title} at equal forward rows", ""]
    lines += ["Of every network, for each sample, rounded. A call under guidance may take several."]
    lines += ["", *equal_rows_table(results, metric), ""]
    if f"{metric}-rows.png" in pictures:
        lines += [f"![{title} against forward rows]({metric}-rows.png)", ""]
    return lines
