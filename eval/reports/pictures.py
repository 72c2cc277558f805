"""Which pictures a report has, and what is in them; :mod:`fewstep.eval.reports.figures` draws."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewstep.eval.reports.figures import draw_curves, draw_images
from fewstep.eval.reports.points import points
from fewstep.eval.reports.results import PEER_PREFIX, Results
from fewstep.eval.reports.tables import REFERENCE_FREE, best_of_grids, subject
from fewstep.eval.reports.titles import metric_title

if TYPE_CHECKING:
    from torch import Tensor

    from fewstep.eval.reports.thumbnails import Pixels

PLOTTED = ("rmse", "feature_rmse", "fid", "fd_fashion", "fd", "fd_infinity", "kid", "sw2",
           "w2_gauss", "mmd2")  # fmt: skip


def picture_name(results: Results, stem: str, guidance: str) -> str:
    """``stem``, with the number and the text of the guidance if there is more than one.

    Of one of several parts, whose rows have the same seeds, with their beginning too.
    """
    if results.part:
        stem = f"{stem}-part{results.part}"
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
    """Standard deviations between sets of samples, by sampler and calls, where they are known."""
    found: dict[str, dict[int, float]] = {}
    for point in points(results, guidance):
        if (sd := point.sd(metric)) is not None:
            found.setdefault(point.sampler, {})[point.nfe] = sd
    return found


def rows_picture(results: Results, metric: str) -> str:
    """Name of the picture of all guidance against network evaluations."""
    return f"{metric}-rows" + (f"-part{results.part}" if results.part else "")


def draw_equal_rows(results: Results, folder: Path) -> list[str]:
    """Metrics that need no reference against network evaluations, all guidance in one picture."""
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
            name, title = f"{rows_picture(results, metric)}.png", metric_title(results, metric)
            draw_curves(
                folder / name, series, title=f"{title}: {subject(results, 'none')}", label=title,
                across="network evaluations per sample",
            )  # fmt: skip
            drawn.append(name)
    return drawn


@dataclass(frozen=True)
class Comparison:
    """The same starts under several samplers.

    Attributes:
        guidance, nfe, seeds: of all.
        rows: images by sampler, those of the reference first.
        names: of the classes of the columns; none without classes, or where they are not known.
    """

    guidance: str
    nfe: int
    seeds: str
    rows: "dict[str, Tensor | Pixels]"
    names: tuple[str, ...]


def comparisons(results: Results) -> list[Comparison]:
    """All pictures of one part: under each guidance, at each number of calls.

    Only images of equal classes stand in one picture: their names are those of its columns.
    """
    groups: dict[tuple[str, int, str, tuple[str, ...]], dict[str, Any]] = {}
    for key, images in results.images.items():
        guidance, sampler, nfe, seeds = key
        if not sampler.startswith(PEER_PREFIX):
            group = guidance, nfe, seeds, results.labels.get(key, ())
            groups.setdefault(group, {})[sampler] = images
    found = []
    for (guidance, nfe, seeds, names), rows in groups.items():
        solved = results.reference_images.get(guidance)
        rows = rows if solved is None else {"reference": solved, **rows}
        count = min(len(images) for images in rows.values())
        rows = {name: images[:count] for name, images in rows.items()}
        found.append(Comparison(guidance, nfe, seeds, rows, names[:count]))
    return found


def same_noise(results: Results, found: Comparison) -> str:
    """That a picture's columns have the same starting noise, where that is known; else nothing.

    Reports of ``calc`` from before seeds were kept may hold pictures of any.
    """
    runs = [results.settings, *(run["settings"] for run in results.settings.get("merged", ()))]
    known = bool(found.seeds) or not any("calc" in settings for settings in runs)
    return "the same starting noise down each column" if known and len(found.rows) > 1 else ""


def draw_samples(results: Results, folder: Path) -> list[str]:
    """The same seeds under every sampler: one picture for each guidance and number of calls."""
    drawn: list[str] = []
    for found in comparisons(results):
        name = picture_name(results, f"samples-nfe{found.nfe:02d}", found.guidance)
        if f"{name}.png" in drawn:
            name = f"{name}-{len(drawn)}"
        same = same_noise(results, found)
        title = [f"{found.nfe} network calls", same, subject(results, found.guidance)]
        draw_images(
            folder / f"{name}.png", found.rows, title=", ".join(filter(None, title)),
            columns=found.names,
        )  # fmt: skip
        drawn.append(f"{name}.png")
    return drawn
