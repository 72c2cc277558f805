"""The tables of a report, as numbers and as Markdown."""

import math
from collections.abc import Callable, Iterable, Mapping
from statistics import fmean
from typing import NamedTuple

from fewstep.eval.repeats import Summary
from fewstep.eval.reports.points import points, spread
from fewstep.eval.reports.results import EXTRA_COSTS, PEER_PREFIX, Results, Row, metric_entry

COSTS = {
    "rows": "forward rows per sample",
    "backward_rows": "backward rows per sample",
    "classifier_rows": "classifier passes per sample",
}
REFERENCE_FREE = ("fd_fashion", "accuracy")


class Cell(NamedTuple):
    """A value, its spread as text, and a remark to be put behind them."""

    value: float
    note: str = ""
    spread: str = ""


Cells = Mapping[str, Mapping[int, Cell]]  # by row and column


def subject(results: Results, guidance: str | None = None) -> str:
    """What was run, in a few words; under all guidance if there was more than one."""
    row = results.rows[0]
    texts = results.guidance if guidance is None else [guidance]
    named = "" if texts == ["none"] else f", guidance {'; '.join(texts)}"
    seeds = [str(seed) for seed in dict.fromkeys(row.seed for row in results.rows)]
    return f"{row.problem}, n = {row.n}, seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}{named}"


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


def metric_cells(results: Results, metric: str, guidance: str) -> dict[str, dict[int, Cell]]:
    """A metric by sampler and calls; of repeats the mean, standard deviation and least value.

    diffusers' classes come last, at their best grid for each number of calls.
    """
    form = metric_entry(metric)[2]
    cells: dict[str, dict[int, Cell]] = {}
    for point in points(results, guidance):
        if (values := point.values(metric)) and not point.is_peer:
            notes = [] if point.calls == point.nfe else [f"{point.calls:g} calls"]
            notes += [f"min {min(values):{form}}"] * (len(values) > 1)
            cell = Cell(point.mean(metric), ", ".join(notes), spread(values, form))
            cells.setdefault(point.sampler, {})[point.nfe] = cell
    for name, best in best_of_grids(results, metric, guidance).items():
        cells[f"{name}, best grid"] = {n: Cell(*at) for n, at in best.items()}
    return cells


def seed_spread(results: Results, metric: str, guidance: str) -> dict[int, float]:
    """Standard deviation over repeats at each number of calls, all our samplers taken together.

    The root mean square of theirs: of two repeats, one sampler's alone says little. Empty without
    repeats.
    """
    squares: dict[int, list[float]] = {}
    for point in points(results, guidance):
        if len(values := point.values(metric)) > 1 and not point.is_peer:
            squares.setdefault(point.nfe, []).append(Summary(values).sd ** 2)
    return {n: math.sqrt(fmean(found)) for n, found in squares.items()}


def table(results: Results, metric: str, guidance: str | None = None) -> list[str]:
    """A Markdown table of :func:`metric_cells`: samplers down, calls across.

    The best of each column is bold; the last rows tell what a sample cost.
    """
    guidance = results.guidance[0] if guidance is None else guidance
    _, direction, form = metric_entry(metric)
    cells = {
        name.replace(":", " ") if name.startswith(PEER_PREFIX) else code(name): row
        for name, row in metric_cells(results, metric, guidance).items()
    }
    return [
        *markdown_table(cells, form, max if direction == "higher" else min),
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
    _, direction, form = metric_entry(metric)
    cells: dict[str, dict[int, Cell]] = {}
    ours = [p for text in results.guidance for p in points(results, text) if not p.is_peer]
    for sampler in dict.fromkeys(point.sampler for point in ours):
        for point in ours:
            if point.sampler == sampler and (values := point.values(metric)):
                name = f"{code(sampler)}, {code(point.rows[0].guidance)}"
                cell = Cell(point.mean(metric), "", spread(values, form))
                cells.setdefault(name, {})[round(point.forward_rows)] = cell
    return markdown_table(cells, form, max if direction == "higher" else min, unit="rows")


def best_values(cells: Cells, pick: Callable[[Iterable[float]], float]) -> dict[int, float]:
    """What ``pick`` chooses of each column; a nan is chosen only where there is nothing else."""
    columns = sorted({n for row in cells.values() for n in row})
    values = {n: [row[n].value for row in cells.values() if n in row] for n in columns}
    return {n: pick([v for v in found if v == v] or found) for n, found in values.items()}


def markdown_table(
    cells: Cells,
    form: str,
    pick: Callable[[Iterable[float]], float] | None,
    *,
    unit: str = "calls",
) -> list[str]:
    """Lines of Markdown; what ``pick`` chooses of each column is bold."""
    columns = sorted({n for row in cells.values() for n in row})
    best = {} if pick is None else best_values(cells, pick)
    lines = ["| sampler | " + " | ".join(f"{n} {unit}" for n in columns) + " |"]
    lines += ["|:--|" + "--:|" * len(columns)]
    for name, row in cells.items():
        texts = []
        for n in columns:
            if n not in row:
                texts.append("")
                continue
            text = f"{row[n].value:{form}}"
            # Bold by what is shown: values that print alike are equally good.
            if n in best and text == f"{best[n]:{form}}":
                text = f"**{text}**"
            texts.append(f"{text}{row[n].spread}" + (f" ({row[n].note})" if row[n].note else ""))
        lines.append(f"| {name} | " + " | ".join(texts) + " |")
    return lines
