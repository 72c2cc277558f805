"""Tables of what samples cost, and of the samplers that no other beats in cost and quality."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fewstep.eval.common.amounts import time_text
from fewstep.eval.common.phases import PHASES
from fewstep.eval.reports.points import Point, front, points, spread
from fewstep.eval.reports.results import Results, metric_entry
from fewstep.eval.reports.tables import code

MIB = 2**20


class Entry(NamedTuple):
    """A cell as text, the number that it is sorted by if it is one, and whether it is the best."""

    text: str
    number: float | None = None
    best: bool = False


@dataclass(frozen=True)
class Grid:
    """A table.

    Attributes:
        heads: of the columns, the first of which has the names of samplers.
        rows: as many entries as heads in each.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[Entry]]

    def markdown(self) -> list[str]:
        """Lines of Markdown."""
        lines = ["| " + " | ".join(self.heads) + " |"]
        lines += ["|" + "|".join(":--" if e.number is None else "--:" for e in self.rows[0]) + "|"]
        for name, *others in self.rows:
            texts = [code(name.text), *(f"**{e.text}**" if e.best else e.text for e in others)]
            lines.append("| " + " | ".join(texts) + " |")
        return lines


def time_grid(results: Results, guidance: str) -> Grid:
    """Seconds per image of our samplers, their range and phases, images per second, peak memory.

    The fastest of those with as many network rows are marked, unless their ranges meet.
    """
    shown = [point for point in points(results, guidance) if not point.is_peer]
    phases = [name for name in PHASES if any(point.phase(name) for point in shown)]
    ranged = any(point.seconds_range for point in shown)
    memory = any(point.peak_memory for point in shown)
    heads = ["sampler", "calls", "time/image", *(["least to most"] if ranged else []), "images/s"]
    rows = []
    for point in shown:
        n, calls = point.rows[0].n, Entry(f"{point.calls:g}", point.calls)
        # Seconds are rounded, and tiny runs may have none.
        rate = n / point.seconds if point.seconds else math.inf
        spent = (point.seconds_per_image, *(point.phase(name) / n for name in phases))
        whole, *parts = (Entry(time_text(seconds), seconds) for seconds in spent)
        whole = whole._replace(best=_is_fastest(point, shown))
        peak = [Entry(f"{point.peak_memory / MIB:.0f}", point.peak_memory)] if memory else []
        rows.append([
            Entry(point.sampler), calls, whole, *([_range(point)] if ranged else []),
            Entry(f"{rate:.3g}", rate), *parts, *peak,
        ])  # fmt: skip
    return Grid([*heads, *phases, *(["peak MiB"] if memory else [])], rows)


def _range(point: Point) -> Entry:
    if point.seconds_range is None:
        return Entry("timed once")
    least, most = point.seconds_range
    return Entry(f"{time_text(least)} to {time_text(most)}", most - least)


def _is_fastest(point: Point, others: Sequence[Point]) -> bool:
    """Whether its range lies below those of all others with as many network rows."""
    alike = [p for p in others if p.network_rows == point.network_rows and p is not point]
    own, ranges = point.seconds_range, [p.seconds_range for p in alike]
    return bool(alike) and own is not None and all(r is not None and own[1] < r[0] for r in ranges)


def front_grid(results: Results, metric: str, guidance: str) -> Grid:
    """The points on the Pareto front against network rows, cheapest first.

    Times stand beside them, with their range, where one run measured all of them side by side.
    """
    form = metric_entry(metric)[2]
    shown = front(results, metric, guidance)
    timed = results.is_side_by_side and all(point.seconds_range for point in shown)
    rows = []
    for point in shown:
        value = point.mean(metric)
        time = f"{time_text(point.seconds_per_image)} ({_range(point).text})"
        rows.append([
            Entry(point.sampler), Entry(f"{point.calls:g}", point.calls),
            Entry(f"{point.network_rows:g}", point.network_rows),
            Entry(f"{value:{form}}{spread(point, metric)}", value),
            *([Entry(time, point.seconds_per_image)] if timed else []),
        ])  # fmt: skip
    heads = ["sampler", "calls", "evaluations", "score", *(["time/image"] if timed else [])]
    return Grid(heads, rows)
