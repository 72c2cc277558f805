"""``report.html``: one file that asks nothing of the network, from the results of a benchmark.

The template escapes all text. Its only script is named by its hash in a content security policy,
so that no other would run, and no request would leave the page.
"""

import base64
import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from fewstep.eval.repeats import Summary
from fewstep.eval.reports.cost_tables import Entry, Grid, front_grid, time_grid
from fewstep.eval.reports.plots import Plot, Value, lay_out
from fewstep.eval.reports.points import Point, front, points
from fewstep.eval.reports.results import PEER_PREFIX, Results, metric_entry
from fewstep.eval.reports.summary import notes, summary
from fewstep.eval.reports.tables import (
    Cell,
    best_of_grids,
    best_values,
    costs,
    metric_cells,
    subject,
)
from fewstep.eval.reports.thumbnails import strip
from fewstep.eval.reports.titles import EXPLAINED, TIMES, metric_title
from fewstep.models.data import CLASS_NAMES

TEMPLATES = Path(__file__).parent / "templates"
ACROSS = {"calls": "network calls", "seconds_per_image": "seconds per image"}
# Whose front is shown first. With few samples a distance between sets hardly tells samplers apart:
# of 64 of the bundled model it differs about as much between two seeds.
HEADLINES = ("fid", "w2_gauss", "rmse", "fd_fashion", "fd")
SMALL = 64  # images up to this many pixels wide are shown twice as large


@dataclass(frozen=True)
class Pivot:
    """A metric by sampler and calls, with what the template marks.

    Attributes:
        columns: numbers of calls.
        rows: name, and a cell or None for each column.
        best: text of the best value of each column.
        form: of the values.
        front: (sampler, calls) on a Pareto front.
        costs: label, and text for each column.
    """

    columns: list[int]
    rows: list[tuple[str, list[Cell | None]]]
    best: list[str]
    form: str
    front: set[tuple[str, int]]
    costs: list[tuple[str, list[str]]]

    @property
    def heads(self) -> list[str]:
        return [f"{n} calls" for n in self.columns]

    def text(self, cell: Cell) -> str:
        return f"{cell.value:{self.form}}"


@dataclass(frozen=True)
class Section:
    """A metric under a guidance."""

    guidance: str
    pivot: Pivot
    plots: list[Plot]
    front: Grid
    reference: str


@dataclass(frozen=True)
class Pictures:
    """The same seeds under every sampler: labels and base64 PNGs of rows of images."""

    guidance: str
    nfe: int
    rows: list[tuple[str, str]]
    width: int
    columns: str


def page(results: Results) -> str:
    """The whole page."""
    script = (TEMPLATES / "report.js").read_text()
    metrics = {name: _metric(results, name) for name in results.metrics}
    headline = next((name for name in (*HEADLINES, *metrics) if name in metrics), "")
    return _template().render(
        title=f"Benchmark: {subject(results)}",
        results=results,
        summary=summary(results),
        notes=notes(results),
        metrics=list(metrics.values()),
        headline=headline,
        times=[(text, time_grid(results, text)) for text in results.guidance],
        everything=everything(results),
        pictures=_pictures(results),
        times_explained=TIMES,
        settings=json.dumps(results.settings, indent=2, ensure_ascii=False),
        environment=json.dumps(results.env, indent=2, ensure_ascii=False),
        style=(TEMPLATES / "report.css").read_text(),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("report.html.jinja")


def _metric(results: Results, metric: str) -> dict[str, Any]:
    """A metric under each guidance that it exists for."""
    _, direction, form = metric_entry(metric)
    floor = results.env.get("floor", {}).get(metric)
    shown = [text for text in results.guidance if results.metric(metric, text)]
    return {
        "name": metric,
        "title": metric_title(results, metric),
        "explained": EXPLAINED.get(metric, ""),
        "direction": direction,
        "floor": "" if floor is None else f"{floor:{form}}",
        "sections": [_section(results, metric, text) for text in shown],
    }


def _section(results: Results, metric: str, guidance: str) -> Section:
    reference = results.env.get("reference", {}).get(guidance, {}).get(metric)
    return Section(
        guidance,
        _pivot(results, metric, guidance),
        [_plot(results, metric, guidance, cost) for cost in ACROSS],
        front_grid(results, metric, guidance),
        "" if reference is None else f"{reference:{metric_entry(metric)[2]}}",
    )


def _pivot(results: Results, metric: str, guidance: str) -> Pivot:
    _, direction, form = metric_entry(metric)
    cells = metric_cells(results, metric, guidance)
    columns = sorted({n for row in cells.values() for n in row})
    best = best_values(cells, max if direction == "higher" else min)
    found = [p for cost in ACROSS for p in front(results, metric, guidance, cost=cost)]
    return Pivot(
        columns,
        [(name, [row.get(n) for n in columns]) for name, row in cells.items()],
        [f"{best[n]:{form}}" for n in columns],
        form,
        {(_line_name(point), point.nfe) for point in found},
        [(label, [row.get(n, "") for n in columns])
         for label, row in costs(results, guidance).items()],
    )  # fmt: skip


def _line_name(point: Point) -> str:
    """The row of a pivot table that a point belongs to."""
    name = point.sampler
    return f"{name.rpartition(':grid=')[0]}, best grid" if point.is_peer else name


def _plot(results: Results, metric: str, guidance: str, cost: str) -> Plot:
    """A metric against a cost: our samplers, the best of the peers' grids, and the front."""
    form = metric_entry(metric)[2]

    def value(point: Point) -> Value:
        values, across = point.values(metric), float(getattr(point, cost))
        error = Summary(values).sd if len(values) > 1 else 0.0
        mean = point.mean(metric)
        text = f"{point.sampler}: {mean:{form}} at {across:.3g} {ACROSS[cost]}"
        return Value(across, mean, error, text)

    series: dict[str, list[Value]] = {}
    peers: dict[str, list[Value]] = {}
    grids = best_of_grids(results, metric, guidance)
    for point in points(results, guidance):
        if not point.values(metric):
            continue
        if not point.is_peer:
            series.setdefault(point.sampler, []).append(value(point))
            continue
        name, _, grid = point.sampler.rpartition(":grid=")
        if grids.get(name, {}).get(point.nfe, (0, ""))[1] == grid:
            peers.setdefault(name, []).append(value(point))
    levels = {
        "reference": results.env.get("reference", {}).get(guidance, {}).get(metric),
        "real images": results.env.get("floor", {}).get(metric),
    }
    return lay_out(
        series, x_label=ACROSS[cost], y_label=metric_title(results, metric),
        front=[value(point) for point in front(results, metric, guidance, cost=cost)],
        background=peers.values(), exact=cost == "calls",
        shares=metric_entry(metric)[1] == "higher",
        levels={name: at for name, at in levels.items() if at is not None},
    )  # fmt: skip


def everything(results: Results) -> Grid:
    """Every row with every metric."""
    names = results.metrics
    heads = ["sampler", "guidance", "seed", "calls", "rows", *names, "seconds"]
    rows = []
    for row in results.rows:
        values = [(row.metrics.get(name), metric_entry(name)[2]) for name in names]
        rows.append([
            Entry(row.sampler), Entry(row.guidance), Entry(str(row.seed), row.seed),
            Entry(f"{row.calls:g}", row.calls), Entry(f"{row.rows:g}", row.rows),
            *(Entry("" if v is None else f"{v:{form}}", v) for v, form in values),
            Entry(f"{row.seconds:.4g}", row.seconds),
        ])  # fmt: skip
    return Grid(heads, rows)


def _pictures(results: Results) -> list[Pictures]:
    found = []
    for guidance, nfe in dict.fromkeys((text, n) for text, _, n in results.images):
        shown = {
            sampler: images
            for (text, sampler, n), images in results.images.items()
            if (text, n) == (guidance, nfe) and not sampler.startswith(PEER_PREFIX)
        }
        if not shown:
            continue
        if guidance in results.reference_images:
            shown = {"reference": results.reference_images[guidance], **shown}
        count, _, _, width = next(iter(shown.values())).shape
        classes = [CLASS_NAMES[i % len(CLASS_NAMES)] for i in range(count)]
        found.append(Pictures(
            guidance, nfe, [(name, strip(images)) for name, images in shown.items()],
            (width + 2) * count * (2 if width <= SMALL else 1),
            ", ".join(classes) if "fashion" in results.rows[0].problem else "",
        ))  # fmt: skip
    return found
