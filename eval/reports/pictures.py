"""Which pictures a report has, and what is in them; :mod:`fewstep.eval.reports.figures` draws."""

import re
from pathlib import Path

from fewstep.eval.repeats import Summary
from fewstep.eval.reports.figures import draw_curves, draw_images
from fewstep.eval.reports.points import points
from fewstep.eval.reports.results import PEER_PREFIX, Results
from fewstep.eval.reports.tables import REFERENCE_FREE, best_of_grids, subject
from fewstep.eval.reports.titles import metric_title
from fewstep.models.data import CLASS_NAMES

PLOTTED = ("rmse", "feature_rmse", "fid", "fd_fashion", "fd", "fd_infinity", "kid", "sw2",
           "w2_gauss", "mmd2")  # fmt: skip


def picture_name(results: Results, stem: str, guidance: str) -> str:
    """``stem``, with the number and the text of the guidance if there is more than one."""
    if len(results.guidance) == 1:
        return stem
    written = re.sub(r"[^A-Za-z0-9.,]+", "-", guidance).strip("-")
    return f"{stem}-{results.guidance.index(guidance)}-{written}"


def draw_metrics(results: Results, folder: Path) -> list[str]:
    """A metric against calls, for each guidance."""
    drawn = []
    for metric in PLOTTED:
        for guidance in results.guidance:
            series = results.metric(metric, guidance)
            ours = {name: row for name, row in series.items() if not name.startswith(PEER_PREFIX)}
            if not ours:
                continue
            best = best_of_grids(results, metric, guidance)
            peers = {name: {n: v for n, (v, _) in row.items()} for name, row in best.items()}
            levels = {
                "reference": results.env.get("reference", {}).get(guidance, {}).get(metric),
                "real test images": results.env.get("floor", {}).get(metric),
            }
            title, name = metric_title(results, metric), picture_name(results, metric, guidance)
            draw_curves(
                folder / f"{name}.png", ours, title=f"{title}: {subject(results, guidance)}",
                label=title, background=peers, errors=deviations(results, metric, guidance),
                levels={k: v for k, v in levels.items() if v is not None},
            )  # fmt: skip
            drawn.append(f"{name}.png")
    return drawn


def deviations(results: Results, metric: str, guidance: str) -> dict[str, dict[int, float]]:
    """Standard deviations over repeats, by sampler and calls; nothing where there are none."""
    found: dict[str, dict[int, float]] = {}
    for point in points(results, guidance):
        if len(values := point.values(metric)) > 1:
            found.setdefault(point.sampler, {})[point.nfe] = Summary(values).sd
    return found


def draw_equal_rows(results: Results, folder: Path) -> list[str]:
    """Metrics that need no reference against forward rows, all guidance in one picture."""
    drawn = []
    for metric in REFERENCE_FREE:
        if metric not in PLOTTED or len(results.guidance) < 2:
            continue
        series: dict[str, dict[float, float]] = {}
        for guidance in results.guidance:
            for point in points(results, guidance):
                if point.values(metric) and not point.is_peer:
                    line = series.setdefault(f"{point.sampler}, {guidance}", {})
                    line[point.forward_rows] = point.mean(metric)
        if series:
            name, title = f"{metric}-rows.png", metric_title(results, metric)
            draw_curves(
                folder / name, series, title=f"{title}: {subject(results, 'none')}", label=title,
                across="forward rows per sample",
            )  # fmt: skip
            drawn.append(name)
    return drawn


def draw_samples(results: Results, folder: Path) -> list[str]:
    """The same seeds under every sampler: one picture for each guidance and number of calls."""
    drawn = []
    for guidance, nfe in dict.fromkeys((text, n) for text, _, n in results.images):
        shown = results.reference_images.get(guidance)
        rows = {} if shown is None else {"reference": shown}
        for (text, sampler, n), images in results.images.items():
            if (text, n) == (guidance, nfe) and not sampler.startswith(PEER_PREFIX):
                rows[sampler] = images
        if not rows:
            continue
        count = len(next(iter(rows.values())))
        classes = "fashion" in results.rows[0].problem
        name = picture_name(results, f"samples-nfe{nfe:02d}", guidance)
        title = f"{nfe} network calls, the same starting noise down each column: "
        draw_images(
            folder / f"{name}.png", rows, title=title + subject(results, guidance),
            columns=[CLASS_NAMES[i % len(CLASS_NAMES)] for i in range(count)] if classes else (),
        )  # fmt: skip
        drawn.append(f"{name}.png")
    return drawn
