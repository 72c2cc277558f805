"""The tables of a report, as numbers and as Markdown."""

import math
from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import NamedTuple

from fewstep.eval.reports.parts import seeds_of
from fewstep.eval.reports.points import Point, points, spread
from fewstep.eval.reports.results import EXTRA_COSTS, PEER_PREFIX, Results, Row, metric_entry
from fewstep.eval.reports.ties import clear_best

COSTS = {
    "rows": "network evaluations per sample",
    "backward_rows": "network gradients per sample",
    "classifier_rows": "classifier passes per sample",
}
CALLS_EXPLAINED = (
    "A call runs the network once over the samples at hand. Under guidance it may evaluate each "
    "sample more than once: the last rows count these evaluations, which are what a sample costs."
)
REFERENCE_FREE = ("fd_fashion", "accuracy")


class Cell(NamedTuple):
    """A value, a remark to be put behind it, its spread as text, and whether it is the best."""

    value: float
    note: str = ""
    spread: str = ""
    best: bool = False


Cells = Mapping[str, Mapping[int, Cell]]  # by row and column


def heading(results: Results) -> str:
    """What a report is of."""
    row = results.rows[0]
    return f"Benchmark: {row.problem}, n = {row.n}"


def subject(results: Results, guidance: str | None = None) -> str:
    """What was run, in a few words; under all guidance if there was more than one."""
    row = results.rows[0]
    texts = results.guidance if guidance is None else [guidance]
    named = "" if texts == ["none"] else f", guidance {'; '.join(texts)}"
    return f"{row.problem}, n = {row.n}, {seeds_of(results)}{named}"


def best_of_grids(
    results: Results, metric: str, guidance: str | None = None
) -> dict[str, dict[int, tuple[float, str]]]:
    """For each diffusers class and number of calls: its best value over grids, and that grid."""
    sign = -1 if metric_entry(metric)[1] == "higher" else 1
    best: dict[str, dict[int, tuple[float, str]]] = {}
    for sampler, values in results.metric(metric, guidance).items():
        if not sampler.startswith(PEER_PREFIX):
            continue
        name, _, grid = sampler.rpartition(":grid=")
        for n, value in values.items():
            held = best.setdefault(name, {}).get(n)
            if value == value and (held is None or sign * value < sign * held[0]):
                best[name][n] = (value, grid)
    return best


def own_rows(results: Results, guidance: str) -> list[Row]:
    """The rows of our samplers under a guidance."""
    peer = PEER_PREFIX
    return [r for r in results.rows if r.guidance == guidance and not r.sampler.startswith(peer)]


def costs(results: Results, guidance: str) -> dict[str, dict[int, str]]:
    """What a sample cost at each number of calls, by kind; a range where samplers differ."""
    found: dict[str, dict[int, str]] = {}
    rows = own_rows(results, guidance)
    for field, label in COSTS.items():
        if field in EXTRA_COSTS and not any(getattr(row, field) for row in rows):
            continue
        for n in sorted({row.nfe for row in rows}):
            values = [getattr(row, field) for row in rows if row.nfe == n]
            least, most = f"{min(values):g}", f"{max(values):g}"
            found.setdefault(label, {})[n] = least if least == most else f"{least}-{most}"
    return found


def table_points(results: Results, metric: str, guidance: str) -> dict[str, dict[int, Point]]:
    """The points that a table shows, by row and column.

    diffusers' classes come last, at their best grid for each number of calls.
    """
    found: dict[str, dict[int, Point]] = {}
    peers: dict[tuple[str, int], Point] = {}
    for point in points(results, guidance):
        if point.is_peer:
            peers[point.sampler, point.nfe] = point
        elif point.values(metric):
            found.setdefault(point.sampler, {})[point.nfe] = point
    for name, best in best_of_grids(results, metric, guidance).items():
        found[best_grid(name)] = {
            n: peers[f"{name}:grid={grid}", n] for n, (_, grid) in best.items()
        }
    return found


def best_grid(name: str) -> str:
    """The row of a class of diffusers."""
    return f"{name}, best grid"


def metric_cells(results: Results, metric: str, guidance: str) -> dict[str, dict[int, Cell]]:
    """A metric by sampler and calls, with what it varies by; of repeats the mean and the least.

    diffusers' classes come last, at their best grid for each number of calls.
    """
    form = metric_entry(metric)[2]
    shown = table_points(results, metric, guidance)
    cells: dict[str, dict[int, Cell]] = {name: {} for name in shown}
    for n in sorted({n for row in shown.values() for n in row}):
        column = {name: row[n] for name, row in shown.items() if n in row}
        best = clear_best(column, metric)
        for name, point in column.items():
            values = point.values(metric)
            if point.is_peer:
                remark = point.sampler.rpartition(":grid=")[2]
            else:
                notes = [] if point.calls == point.nfe else [f"{point.calls:g} calls"]
                notes += [f"min {min(values):{form}}"] * (len(values) > 1)
                remark = ", ".join(notes)
            cells[name][n] = Cell(point.mean(metric), remark, spread(point, metric), name in best)
    return cells


def bold_note(results: Results, metric: str, guidance: str) -> str:
    """What ± and bold mean in the table of a metric."""
    shown = table_points(results, metric, guidance)
    if not any(point.sd(metric) is not None for row in shown.values() for point in row.values()):
        return "" if len(shown) < 2 else (
            "Bold: the best of a column by its digits. How much it would change with other samples "
            "is not known of a single run; --repeats tells."
        )  # fmt: skip
    repeated = any(len(p.values(metric)) > 1 for row in shown.values() for p in row.values())
    how = (
        "the standard deviation over repeats" if repeated else
        "the standard deviation from one set of so many samples to another, by the jackknife"
    )  # fmt: skip
    bold = "Bold: the best of a column; nothing is bold where the lead over another may be chance."
    return f"± is {how}. {bold if len(shown) > 1 else ''}".rstrip()


def seed_spread(results: Results, metric: str, guidance: str) -> dict[int, float]:
    """Standard deviation between sets of samples at each number of calls, of all our samplers.

    The root mean square of theirs: of two repeats, one sampler's alone says little. Empty where
    none is known.
    """
    squares: dict[int, list[float]] = {}
    for point in points(results, guidance):
        if (sd := point.sd(metric)) is not None and not point.is_peer:
            squares.setdefault(point.nfe, []).append(sd**2)
    return {n: math.sqrt(fmean(found)) for n, found in squares.items()}


def table(results: Results, metric: str, guidance: str | None = None) -> list[str]:
    """A Markdown table of :func:`metric_cells`: samplers down, calls across.

    The best of each column is bold if its lead is beyond chance (:mod:`.ties`); the last rows tell
    what a sample cost.
    """
    guidance = results.guidance[0] if guidance is None else guidance
    form = metric_entry(metric)[2]
    cells = {
        name.replace(":", " ") if name.startswith(PEER_PREFIX) else code(name): row
        for name, row in metric_cells(results, metric, guidance).items()
    }
    return [
        *markdown_table(cells, form),
        *cost_lines(results, guidance, sorted({n for row in cells.values() for n in row})),
    ]


def code(text: str) -> str:
    """A name for a cell of a Markdown table."""
    return f"`{text}`".replace("|", "\\|")


def cost_lines(results: Results, guidance: str, columns: Iterable[int]) -> list[str]:
    """The costs as rows of a Markdown table with these numbers of calls across."""
    return [
        f"| *{label}* | " + " | ".join(found.get(n, "") for n in columns) + " |"
        for label, found in costs(results, guidance).items()
    ]


def equal_rows_table(results: Results, metric: str) -> list[str]:
    """A Markdown table: samplers under each guidance down, forward rows per sample across.

    Guided runs stand beside unguided ones that the network had as much work with. Rows are rounded
    to whole numbers.
    """
    form = metric_entry(metric)[2]
    found: dict[str, dict[int, Point]] = {}
    ours = [p for text in results.guidance for p in points(results, text) if not p.is_peer]
    for sampler in dict.fromkeys(point.sampler for point in ours):
        for point in ours:
            if point.sampler == sampler and point.values(metric):
                name = f"{code(sampler)}, {code(point.rows[0].guidance)}"
                found.setdefault(name, {})[round(point.forward_rows)] = point
    cells: dict[str, dict[int, Cell]] = {name: {} for name in found}
    for n in {n for row in found.values() for n in row}:
        column = {name: row[n] for name, row in found.items() if n in row}
        best = clear_best(column, metric)
        for name, point in column.items():
            cells[name][n] = Cell(point.mean(metric), "", spread(point, metric), name in best)
    return markdown_table(cells, form, unit="evaluations")


def markdown_table(cells: Cells, form: str, *, unit: str = "calls") -> list[str]:
    """Lines of Markdown; the best of a column is bold."""
    columns = sorted({n for row in cells.values() for n in row})
    lines = ["| sampler | " + " | ".join(f"{n} {unit}" for n in columns) + " |"]
    lines += ["|:--|" + "--:|" * len(columns)]
    for name, row in cells.items():
        texts = []
        for n in columns:
            if n not in row:
                texts.append("")
                continue
            text = f"{row[n].value:{form}}"
            if row[n].best:
                text = f"**{text}**"
            texts.append(f"{text}{row[n].spread}" + (f" ({row[n].note})" if row[n].note else ""))
        lines.append(f"| {name} | " + " | ".join(texts) + " |")
    return lines
