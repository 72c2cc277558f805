"""The tables of a report, as numbers and as Markdown."""

from collections.abc import Callable, Iterable, Mapping

from fewstep.eval.results import EXTRA_COSTS, METRICS, PEER_PREFIX, Results, Row

COSTS = {
    "rows": "forward rows per sample",
    "backward_rows": "backward rows per sample",
    "classifier_rows": "classifier passes per sample",
}
REFERENCE_FREE = ("fd_fashion", "accuracy")
# Values with a remark to be put behind them, by row and column.
Cells = Mapping[str, Mapping[int, tuple[float, str]]]


def subject(results: Results, guidance: str | None = None) -> str:
    """What was run, in a few words; under all guidance if there was more than one."""
    row = results.rows[0]
    texts = results.guidance if guidance is None else [guidance]
    named = "" if texts == ["none"] else f", guidance {'; '.join(texts)}"
    return f"{row.problem}, n = {row.n}, seed {row.seed}{named}"


def best_of_grids(
    results: Results, metric: str, guidance: str | None = None
) -> dict[str, dict[int, tuple[float, str]]]:
    """For each diffusers class and number of calls: its best value over grids, and that grid."""
    sign = -1 if METRICS[metric][1] == "higher" else 1
    best: dict[str, dict[int, tuple[float, str]]] = {}
    for sampler, points in results.metric(metric, guidance).items():
        if not sampler.startswith(PEER_PREFIX):
            continue
        name, _, grid = sampler.rpartition(":grid=")
        for n, value in points.items():
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


def table(results: Results, metric: str, guidance: str | None = None) -> list[str]:
    """A Markdown table: samplers down, calls across, the best of each column bold.

    diffusers' classes have one row each, at their best grid for each number of calls; the last rows
    tell what a sample cost.
    """
    guidance = results.guidance[0] if guidance is None else guidance
    _, direction, form = METRICS[metric]
    made = {(row.sampler, row.nfe): row.calls for row in own_rows(results, guidance)}
    cells: dict[str, dict[int, tuple[float, str]]] = {}
    for sampler, points in results.metric(metric, guidance).items():
        if not sampler.startswith(PEER_PREFIX):
            cells[f"`{sampler}`"] = {
                n: (v, "" if made[sampler, n] == n else f"{made[sampler, n]:g} calls")
                for n, v in points.items()
            }
    for name, best in best_of_grids(results, metric, guidance).items():
        cells[f"{name.replace(':', ' ')}, best grid"] = best
    return [
        *markdown_table(cells, form, max if direction == "higher" else min),
        *cost_lines(results, guidance, sorted({n for row in cells.values() for n in row})),
    ]


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
    _, direction, form = METRICS[metric]
    cells: dict[str, dict[int, tuple[float, str]]] = {}
    ours = [row for text in results.guidance for row in own_rows(results, text)]
    for sampler in dict.fromkeys(row.sampler for row in ours):
        for row in ours:
            if row.sampler == sampler and metric in row.metrics:
                line = cells.setdefault(f"`{sampler}`, `{row.guidance}`".replace("|", "\\|"), {})
                line[round(row.rows)] = (row.metrics[metric], "")
    return markdown_table(cells, form, max if direction == "higher" else min, unit="rows")


def time_table(results: Results, guidance: str) -> list[str]:
    """Seconds of our samplers."""
    cells: dict[str, dict[int, tuple[float, str]]] = {}
    for row in own_rows(results, guidance):
        cells.setdefault(f"`{row.sampler}`", {})[row.nfe] = (row.seconds, "")
    return markdown_table(cells, ".3g", None)


def markdown_table(
    cells: Cells,
    form: str,
    pick: Callable[[Iterable[float]], float] | None,
    *,
    unit: str = "calls",
) -> list[str]:
    """Lines of Markdown; what ``pick`` chooses of each column is bold."""
    columns = sorted({n for row in cells.values() for n in row})
    best = (
        {}
        if pick is None
        else {
            n: pick(row[n][0] for row in cells.values() if n in row and row[n][0] == row[n][0])
            for n in columns
        }
    )
    lines = ["| sampler | " + " | ".join(f"{n} {unit}" for n in columns) + " |"]
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
        lines.append(f"| {name} | " + " | ".join(texts) + " |")
    return lines
