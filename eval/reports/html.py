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

from fewstep.eval.amounts import number_text, time_text
from fewstep.eval.reports.cost_tables import Entry, Grid, front_grid, time_grid
from fewstep.eval.reports.parts import parts, seeds_of, short
from fewstep.eval.reports.pictures import comparisons, same_noise
from fewstep.eval.reports.plots import Plot, Value, lay_out
from fewstep.eval.reports.points import Point, front, points, spread
from fewstep.eval.reports.results import Results, metric_entry
from fewstep.eval.reports.summary import lead, notes, summary
from fewstep.eval.reports.tables import (
    CALLS_EXPLAINED,
    Cell,
    best_grid,
    bold_note,
    costs,
    metric_cells,
    subject,
    table_points,
)
from fewstep.eval.reports.thumbnails import strip
from fewstep.eval.reports.titles import EXPLAINED, FRONT, metric_title, rank_note, times_note

TEMPLATES = Path(__file__).parent / "templates"
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
        form: of the values.
        front: (sampler, calls) on the Pareto front.
        costs: label, and text for each column.
        note: what ± and bold mean.
    """

    columns: list[int]
    rows: list[tuple[str, list[Cell | None]]]
    form: str
    front: set[tuple[str, int]]
    costs: list[tuple[str, list[str]]]
    note: str

    @property
    def heads(self) -> list[str]:
        return [f"{n} calls" for n in self.columns]

    def text(self, cell: Cell) -> str:
        return f"{cell.value:{self.form}}"


@dataclass(frozen=True)
class Section:
    """A metric under a guidance, of one part.

    Attributes:
        heading: the guidance and the seeds, where there are several.
    """

    heading: str
    pivot: Pivot
    plots: list[Plot]
    front: Grid
    reference: str


@dataclass(frozen=True)
class Pictures:
    """The same seeds under every sampler.

    Attributes:
        title: calls, and guidance and seeds where there are several.
        caption: what is the same down a column.
        rows: labels and base64 PNGs of rows of images.
        width: of a row on the page, in pixels.
        names: of the classes of the columns.
    """

    title: str
    caption: str
    rows: list[tuple[str, str]]
    width: int
    names: tuple[str, ...]


def page(results: Results) -> str:
    """The whole page: pictures and the result first, what they depend on last."""
    script = (TEMPLATES / "report.js").read_text()
    metrics = {name: _metric(results, name) for name in results.metrics}
    headline = next((name for name in (*HEADLINES, *metrics) if name in metrics), "")
    return _template().render(
        title=f"Benchmark: {subject(results)}",
        lead=lead(results),
        summary=summary(results),
        notes=notes(results),
        metrics=[metrics[name] for name in sorted(metrics, key=lambda name: name != headline)],
        times=[(head, time_grid(part, text)) for head, part, text in _tables(results)],
        side_by_side=results.is_side_by_side,
        everything=everything(results),
        pictures=_pictures(results),
        front_explained=FRONT,
        calls_explained=CALLS_EXPLAINED,
        times_explained=times_note(results),
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


def _tables(results: Results) -> list[tuple[str, Results, str]]:
    """What has a table of its own: a heading, the part, and the guidance."""
    found, shown = [], parts(results)
    for part in shown:
        for text in part.guidance:
            named = [f"guidance {text}"] if len(results.guidance) > 1 else []
            named += [seeds_of(part)] if len(shown) > 1 else []
            found.append((", ".join(named).capitalize(), part, text))
    return found


def _metric(results: Results, metric: str) -> dict[str, Any]:
    """A metric in each table that it exists for."""
    _, direction, form = metric_entry(metric)
    floor = results.env.get("floor", {}).get(metric)
    return {
        "name": metric,
        "title": metric_title(results, metric),
        "explained": EXPLAINED.get(metric, ""),
        "few": rank_note(results, metric),
        "direction": direction,
        "floor": "" if floor is None else f"{floor:{form}}",
        "sections": [
            _section(part, metric, text, head)
            for head, part, text in _tables(results)
            if part.metric(metric, text)
        ],
    }


def _section(results: Results, metric: str, guidance: str, heading: str) -> Section:
    reference = results.env.get("reference", {}).get(guidance, {}).get(metric)
    plots = [_plot(results, metric, guidance, "network_rows")]
    timed = [p for p in points(results, guidance) if p.values(metric)]
    if results.is_side_by_side and all(point.seconds_range for point in timed):
        plots.append(_plot(results, metric, guidance, "seconds_per_image"))
    return Section(
        heading,
        _pivot(results, metric, guidance),
        [plot for plot in plots if plot.curves or plot.background],
        front_grid(results, metric, guidance),
        "" if reference is None else f"{reference:{metric_entry(metric)[2]}}",
    )


def _pivot(results: Results, metric: str, guidance: str) -> Pivot:
    cells = metric_cells(results, metric, guidance)
    columns = sorted({n for row in cells.values() for n in row})
    return Pivot(
        columns,
        [(name, [row.get(n) for n in columns]) for name, row in cells.items()],
        metric_entry(metric)[2],
        {(_line_name(point), point.nfe) for point in front(results, metric, guidance)},
        [(label, [row.get(n, "") for n in columns])
         for label, row in costs(results, guidance).items()],
        bold_note(results, metric, guidance),
    )  # fmt: skip


def _line_name(point: Point) -> str:
    """The row of a pivot table that a point belongs to."""
    name = point.sampler
    return best_grid(name.rpartition(":grid=")[0]) if point.is_peer else name


def _plot(results: Results, metric: str, guidance: str, cost: str) -> Plot:
    """A metric against a cost: our samplers, the best of the peers' grids, and the front.

    Times have no front: they have a range.
    """
    form, timed = metric_entry(metric)[2], cost == "seconds_per_image"

    def value(point: Point) -> Value:
        across = float(getattr(point, cost))
        told = f"{time_text(across)} per image" if timed else f"{across:g} network evaluations"
        text = f"{point.sampler}: {point.mean(metric):{form}}{spread(point, metric)} at {told}"
        sd = point.sd(metric) or 0.0
        span = point.seconds_range if timed else None
        return Value(across, point.mean(metric), sd if sd == sd else 0.0, text, span)

    series: dict[str, list[Value]] = {}
    peers: dict[str, list[Value]] = {}
    for name, row in table_points(results, metric, guidance).items():
        line = [value(point) for point in row.values()]
        (peers if next(iter(row.values())).is_peer else series)[name] = line
    levels = {
        "reference": results.env.get("reference", {}).get(guidance, {}).get(metric),
        "real images": results.env.get("floor", {}).get(metric),
    }
    return lay_out(
        series,
        x_label="time per image" if timed else "network evaluations per sample",
        y_label=metric_title(results, metric),
        front=[] if timed else [value(point) for point in front(results, metric, guidance)],
        background=peers.values(), exact=not timed,
        shares=metric_entry(metric)[1] == "higher",
        levels={name: at for name, at in levels.items() if at is not None},
        x_text=time_text if timed else number_text,
    )  # fmt: skip


def everything(results: Results) -> Grid:
    """Every row with every metric."""
    names = results.metrics
    heads = ["sampler", "guidance", "seeds", "calls", "evaluations", *names, "time/image"]
    rows = []
    for row in results.rows:
        values = [(row.metrics.get(name), metric_entry(name)[2]) for name in names]
        starts = Entry(short(row.starts), row.seed)
        rows.append([
            Entry(row.sampler), Entry(row.guidance), starts,
            Entry(f"{row.calls:g}", row.calls), Entry(f"{row.rows:g}", row.rows),
            *(Entry("" if v is None else f"{v:{form}}", v) for v, form in values),
            Entry(time_text(row.seconds / row.n), row.seconds / row.n),
        ])  # fmt: skip
    return Grid(heads, rows)


def _pictures(results: Results) -> list[Pictures]:
    shown = []
    for part in parts(results):
        for found in comparisons(part):
            guided = len(results.guidance) > 1
            title = [
                f"{found.nfe} network calls",
                f"guidance {found.guidance}" if guided else "",
                f"seeds {short(found.seeds)}" if found.seeds else "",
            ]
            count, _, _, width = next(iter(found.rows.values())).shape
            shown.append(Pictures(
                ", ".join(filter(None, title)), same_noise(results, found).capitalize(),
                [(name, strip(images)) for name, images in found.rows.items()],
                (width + 2) * count * (2 if width <= SMALL else 1), found.names,
            ))  # fmt: skip
    return shown
