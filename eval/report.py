"""``report.md`` with its pictures, from the results of a benchmark."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from fewstep.eval.figures import draw_curves, draw_images
from fewstep.eval.results import METRICS, PEER_PREFIX, Results, all_or_nothing, check_writable
from fewstep.models.data import CLASS_NAMES

PLOTTED = ("rmse", "feature_rmse", "fd_fashion")
EXPLAINED = {
    "rmse": "Root mean square difference, over samples and elements, to the fine solution from the "
    "same starting noise. It does not judge samplers that add noise, which leave that solution.",
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
        pictures = [*_draw_metrics(results, folder), *_draw_samples(results, folder)]
        (folder / "report.md").write_text(markdown(results, pictures))
        names = [path.name for path in sorted(folder.iterdir())]
    return [out / name for name in names]


def subject(results: Results) -> str:
    """What was run, in a few words."""
    row = results.rows[0]
    guidance = "" if row.guidance == "none" else f", guidance {row.guidance}"
    return f"{row.problem}, n = {row.n}, seed {row.seed}{guidance}"


def best_of_grids(results: Results, metric: str) -> dict[str, dict[int, tuple[float, str]]]:
    """For each diffusers class and number of calls: its best value over grids, and that grid."""
    sign = -1 if METRICS[metric][1] == "higher" else 1
    best: dict[str, dict[int, tuple[float, str]]] = {}
    for sampler, points in results.metric(metric).items():
        if not sampler.startswith(PEER_PREFIX):
            continue
        name, _, grid = sampler.rpartition(":grid=")
        for n, value in points.items():
            held = best.setdefault(name, {}).get(n)
            if value == value and (held is None or sign * value < sign * held[0]):
                best[name][n] = (value, grid)
    return best


def markdown(results: Results, pictures: Iterable[str]) -> str:
    """The report as Markdown; ``pictures`` are file names."""
    pictures, env = list(pictures), results.env
    reference = env.get("reference", {})
    lines = [f"# Benchmark: {subject(results)}", ""]
    where = f"fewstep {env['fewstep']}, torch {env['torch']}, {env['device']}"
    lines += [f"{where}, {env['threads']} threads. Best of each column in bold.", ""]
    for metric in METRICS:
        if not results.metric(metric):
            continue
        title, direction, form = METRICS[metric]
        lines += [f"## {title}", "", f"{EXPLAINED[metric]} {direction.capitalize()} is better.", ""]
        lines += table(results, metric)
        if metric in reference:
            lines += ["", f"The reference itself: {reference[metric]:{form}}."]
        if metric in env.get("floor", {}):
            floor = f"{env['floor'][metric]:{form}}"
            lines += [f"As many real test images (the train/test floor): {floor}."]
        if f"{metric}.png" in pictures:
            lines += ["", f"![{title} against network calls]({metric}.png)"]
        lines += [""]
    lines += ["## Time", "", "Seconds for all samples, without warm-up.", ""]
    lines += _time_table(results)
    samples = [name for name in pictures if name.startswith("samples-")]
    if samples:
        lines += ["", "## Same seeds", ""]
        lines += [f"![Samples of every sampler]({name})\n" for name in samples]
    return "\n".join(lines).rstrip() + "\n"


def table(results: Results, metric: str) -> list[str]:
    """A Markdown table: samplers down, calls across, the best of each column bold.

    diffusers' classes have one row each, at their best grid for each number of calls.
    """
    _, direction, form = METRICS[metric]
    calls = {(row.sampler, row.nfe): row.calls for row in results.rows}
    cells: dict[str, dict[int, tuple[float, str]]] = {}
    for sampler, points in results.metric(metric).items():
        if not sampler.startswith(PEER_PREFIX):
            cells[sampler] = {
                n: (v, "" if calls[sampler, n] == n else f"{calls[sampler, n]:g} calls")
                for n, v in points.items()
            }
    ours = set(cells)
    cells.update(best_of_grids(results, metric))
    return _markdown_table(cells, form, max if direction == "higher" else min, ours)


def _markdown_table(
    cells: Mapping[str, Mapping[int, tuple[float, str]]],
    form: str,
    pick: Callable[[Iterable[float]], float] | None,
    ours: set[str],
) -> list[str]:
    columns = sorted({n for row in cells.values() for n in row})
    best = (
        {}
        if pick is None
        else {
            n: pick(row[n][0] for row in cells.values() if n in row and row[n][0] == row[n][0])
            for n in columns
        }
    )
    lines = ["| sampler | " + " | ".join(f"{n} calls" for n in columns) + " |"]
    lines += ["|:--|" + "--:|" * len(columns)]
    for name, row in cells.items():
        texts = []
        for n in columns:
            value, note = row.get(n, (float("nan"), ""))
            text = f"{value:{form}}" if n in row else ""
            # Bold by what is shown: values that print alike are equally good.
            if n in row and n in best and text == f"{best[n]:{form}}":
                text = f"**{text}**"
            texts.append(f"{text} ({note})" if note and n in row else text)
        label = f"`{name}`" if name in ours else f"{name.replace(':', ' ')}, best grid"
        lines.append(f"| {label} | " + " | ".join(texts) + " |")
    return lines


def _time_table(results: Results) -> list[str]:
    cells: dict[str, dict[int, tuple[float, str]]] = {}
    for row in results.rows:
        if not row.sampler.startswith(PEER_PREFIX):
            cells.setdefault(row.sampler, {})[row.nfe] = (row.seconds, "")
    return _markdown_table(cells, ".3g", None, set(cells))


def _draw_metrics(results: Results, folder: Path) -> list[str]:
    drawn = []
    for metric in PLOTTED:
        series = results.metric(metric)
        ours = {name: points for name, points in series.items() if not name.startswith(PEER_PREFIX)}
        if not ours:
            continue
        best = best_of_grids(results, metric)
        peers = {name: {n: v for n, (v, _) in row.items()} for name, row in best.items()}
        levels = {
            "reference": results.env.get("reference", {}).get(metric),
            "real test images": results.env.get("floor", {}).get(metric),
        }
        title = METRICS[metric][0]
        draw_curves(
            folder / f"{metric}.png", ours, title=f"{title}: {subject(results)}", label=title,
            background=peers, levels={k: v for k, v in levels.items() if v is not None},
        )  # fmt: skip
        drawn.append(f"{metric}.png")
    return drawn


def _draw_samples(results: Results, folder: Path) -> list[str]:
    if results.reference_images is None:
        return []
    drawn, count = [], len(results.reference_images)
    classes = results.env.get("reference") is not None or "fashion" in results.rows[0].problem
    columns = [CLASS_NAMES[i % len(CLASS_NAMES)] for i in range(count)] if classes else ()
    for nfe in sorted({n for _, n in results.images}):
        rows = {"reference": results.reference_images}
        for (sampler, n), images in results.images.items():
            if n == nfe and not sampler.startswith(PEER_PREFIX):
                rows[sampler] = images
        name = f"samples-nfe{nfe:02d}.png"
        title = f"{nfe} network calls, the same starting noise down each column: {subject(results)}"
        draw_images(folder / name, rows, title=title, columns=columns)
        drawn.append(name)
    return drawn
