"""Tables of what samples cost, and of the samplers that no other beats in cost and quality."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fewstep.eval.phases import PHASES
from fewstep.eval.reports.points import front, points, spread
from fewstep.eval.reports.results import Results, metric_entry
from fewstep.eval.reports.tables import code

COSTS = {"seconds_per_image": "seconds", "calls": "calls"}  # that a front is taken against
MIB = 2**20


class Entry(NamedTuple):
    """A cell as text, and the number that it is sorted by if it is one."""

    text: str
    number: float | None = None


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
            texts = [code(name.text), *(entry.text for entry in others)]
            lines.append("| " + " | ".join(texts) + " |")
        return lines


def time_grid(results: Results, guidance: str) -> Grid:
    """Seconds of our samplers by phase, images per second, and peak memory where it is known."""
    found = [point for point in points(results, guidance) if not point.is_peer]
    phases = [name for name in PHASES if any(point.phase(name) for point in found)]
    memory = any(point.peak_memory for point in found)
    heads = ["sampler", "calls", "seconds", "images/s", *phases, *(["peak MiB"] if memory else [])]
    rows = []
    for point in found:
        # Seconds are rounded, and tiny runs may have none.
        rate = point.rows[0].n / point.seconds if point.seconds else math.inf
        numbers = [point.seconds, rate, *(point.phase(name) for name in phases)]
        peak = [Entry(f"{point.peak_memory / MIB:.0f}", point.peak_memory)] if memory else []
        rows.append([
            Entry(point.sampler), Entry(f"{point.calls:g}", point.calls),
            *(Entry(f"{value:.3g}", value) for value in numbers), *peak,
        ])  # fmt: skip
    return Grid(heads, rows)


def front_grid(results: Results, metric: str, guidance: str) -> Grid:
    """The points on the Pareto front against seconds or against calls, cheapest first."""
    form = metric_entry(metric)[2]
    fronts = {word: front(results, metric, guidance, cost=cost) for cost, word in COSTS.items()}
    shown = [p for p in points(results, guidance) if any(p in found for found in fronts.values())]
    rows = []
    for point in sorted(shown, key=lambda p: (p.calls, p.seconds_per_image)):
        value = point.mean(metric)
        rows.append([
            Entry(point.sampler), Entry(f"{point.calls:g}", point.calls),
            Entry(f"{1000 * point.seconds_per_image:.3g}", point.seconds_per_image),
            Entry(f"{value:{form}}{spread(point.values(metric), form)}", value),
            Entry(", ".join(word for word, found in fronts.items() if point in found)),
        ])  # fmt: skip
    return Grid(["sampler", "calls", "ms/image", "value", "best by"], rows)
