"""Which value of a column is the best beyond chance.

The difference between two samplers is compared with its own standard deviation, from replicates
that leave out the same samples of both (:mod:`fewstep.eval.metrics.spread`) or, without those, from
repeats with the same seeds. It counts where it is more than Student's 97.5 % quantile of that.
"""

import math
from collections.abc import Mapping
from statistics import fmean, stdev

from fewstep.eval.metrics.spread import deviation, student
from fewstep.eval.reports.points import Point
from fewstep.eval.reports.results import Row, metric_entry


def clear_best(points: Mapping[str, Point], metric: str) -> set[str]:
    """The names of the best of a column; none where another is within the spread of it.

    Values that print alike are equally good. Where no spread is known, the best is so by its
    digits. One on its own is the best of nothing.

    Args:
        points: of one column, by name.
        metric: of which some have a value.
    """
    _, direction, form = metric_entry(metric)
    values = {name: point.mean(metric) for name, point in points.items()}
    known = {name: value for name, value in values.items() if value == value} or values
    if len(points) < 2:
        return set()
    best = (max if direction == "higher" else min)(known, key=lambda name: known[name])
    others = [name for name in known if name != best]
    if any(is_within_spread(points[best], points[name], metric) for name in others):
        return set()
    return {name for name in known if f"{known[name]:{form}}" == f"{known[best]:{form}}"}


def is_within_spread(one: Point, other: Point, metric: str) -> bool:
    """Whether the difference of two points may be chance; False where no spread is known."""
    pairs = _pairs(one, other, metric)
    if not pairs:
        return False
    gaps = [a.metrics[metric] - b.metrics[metric] for a, b in pairs]
    spreads = [_spread(a, b, metric) for a, b in pairs]
    known = [spread for spread in spreads if spread is not None]
    if len(known) == len(pairs):
        sd, freedom = math.sqrt(sum(s**2 for s, _ in known)) / len(pairs), known[0][1]
    elif len(pairs) > 1 and all(map(math.isfinite, gaps)):
        sd, freedom = stdev(gaps) / math.sqrt(len(pairs)), len(pairs) - 1
    else:
        return False
    return abs(fmean(gaps)) <= student(freedom) * sd


def _pairs(one: Point, other: Point, metric: str) -> list[tuple[Row, Row]]:
    """Rows of the same seeds."""
    there = {row.starts: row for row in other.rows if metric in row.metrics}
    return [(r, there[r.starts]) for r in one.rows if metric in r.metrics and r.starts in there]


def _spread(one: Row, other: Row, metric: str) -> tuple[float, int] | None:
    """Standard deviation of a difference, and its degrees of freedom."""
    a, b = one.replicates.get(metric, []), other.replicates.get(metric, [])
    if len(a) < 2 or len(a) != len(b):
        return None
    return deviation([x - y for x, y in zip(a, b, strict=True)]), len(a) - 1
