"""The sections of the page about metrics: a table, a plot and a Pareto front in each."""

from dataclasses import dataclass

from fewstep.eval.common.amounts import number_text, time_text
from fewstep.eval.reports.cost_tables import Grid, front_grid
from fewstep.eval.reports.parts import parts, seeds_of
from fewstep.eval.reports.plots import Plot, Value, lay_out
from fewstep.eval.reports.points import Point, front, points, spread
from fewstep.eval.reports.results import Results, metric_entry
from fewstep.eval.reports.tables import (
    Cell,
    best_grid,
    bold_note,
    costs,
    metric_cells,
    table_points,
)
from fewstep.eval.reports.titles import EXPLAINED, metric_title, rank_note

ROWS, SECONDS = "network_rows", "seconds_per_image"  # costs of points, for the axis of a plot


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
        plot: None of a single point, which is in the table.
    """

    heading: str
    pivot: Pivot
    plot: Plot | None
    front: Grid
    reference: str


@dataclass(frozen=True)
class Metric:
    """A metric, and what a reader must know of it.

    Attributes:
        name, title, explained, direction: see ``METRICS``.
        few: that there are too few samples for it; may be empty.
        floor: of real images; may be empty.
        sections: in each table that it exists for.
    """

    name: str
    title: str
    explained: str
    few: str
    direction: str
    floor: str
    sections: list[Section]


def tables(results: Results) -> list[tuple[str, Results, str]]:
    """What has a table of its own: a heading, the part, and the guidance."""
    found, shown = [], parts(results)
    for part in shown:
        for text in part.guidance:
            guided = "no guidance" if text == "none" else f"guidance {text}"
            named = [guided] if len(results.guidance) > 1 else []
            named += [seeds_of(part)] if len(shown) > 1 else []
            heading = ", ".join(named)
            found.append((heading[:1].upper() + heading[1:], part, text))
    return found


def metric_of(results: Results, metric: str) -> Metric:
    """A metric in each table that it exists for."""
    _, direction, form = metric_entry(metric)
    floor = results.env.get("floor", {}).get(metric)
    return Metric(
        metric, metric_title(results, metric), EXPLAINED.get(metric, ""),
        rank_note(results, metric), direction, "" if floor is None else f"{floor:{form}}",
        [_section(part, metric, text, head) for head, part, text in tables(results)
         if part.metric(metric, text)],
    )  # fmt: skip


def _section(results: Results, metric: str, guidance: str, heading: str) -> Section:
    reference = results.env.get("reference", {}).get(guidance, {}).get(metric)
    shown = [p for row in table_points(results, metric, guidance).values() for p in row]
    return Section(
        heading,
        _pivot(results, metric, guidance),
        _plot(results, metric, guidance, ROWS) if len(shown) > 1 else None,
        front_grid(results, metric, guidance),
        "" if reference is None else f"{reference:{metric_entry(metric)[2]}}",
    )


def time_plot(results: Results, metric: str, guidance: str) -> Plot | None:
    """A metric against seconds; None unless all were timed side by side, and more than once."""
    timed = [point for point in points(results, guidance) if point.values(metric)]
    if not timed or not results.is_side_by_side or not all(p.seconds_range for p in timed):
        return None
    return _plot(results, metric, guidance, SECONDS)


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
    form, timed = metric_entry(metric)[2], cost == SECONDS

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
