"""One sampler at one number of calls, over its repeats: what tables and plots of reports show."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from fewstep.eval.metrics.repeats import Summary
from fewstep.eval.metrics.spread import deviation
from fewstep.eval.reports.pareto import pareto_front
from fewstep.eval.reports.results import PEER_PREFIX, Results, Row, metric_entry


@dataclass(frozen=True)
class Point:
    """Rows that differ in their seed only.

    Attributes:
        rows: at least one.
    """

    rows: tuple[Row, ...]

    @property
    def sampler(self) -> str:
        return self.rows[0].sampler

    @property
    def nfe(self) -> int:
        """Network calls asked for."""
        return self.rows[0].nfe

    @property
    def is_peer(self) -> bool:
        return self.sampler.startswith(PEER_PREFIX)

    @property
    def calls(self) -> float:
        """Network calls counted."""
        return self._mean(lambda row: row.calls)

    @property
    def forward_rows(self) -> float:
        """Rows of networks for each sample."""
        return self._mean(lambda row: row.rows)

    @property
    def network_rows(self) -> float:
        """Rows of networks for each sample, forward and backward: what a front counts as cost."""
        return self._mean(lambda row: row.rows + row.backward_rows)

    @property
    def seconds(self) -> float:
        """For all samples of one repeat."""
        return self._mean(lambda row: row.seconds)

    @property
    def seconds_per_image(self) -> float:
        return self.seconds / self.rows[0].n

    @property
    def seconds_range(self) -> tuple[float, float] | None:
        """The least and the most seconds per image of any unit; None if fewer than two were timed.

        What else the machine had to do differs from unit to unit, and is part of it.
        """
        each = [seconds for row in self.rows for seconds in row.seconds_each]
        return (min(each), max(each)) if len(each) > 1 else None

    @property
    def peak_memory(self) -> int:
        """Bytes; 0 if unknown."""
        return max(row.peak_memory for row in self.rows)

    def phase(self, name: str) -> float:
        """Seconds of a phase; 0 if unknown."""
        return self._mean(lambda row: row.seconds_by.get(name, 0.0))

    def values(self, metric: str) -> list[float]:
        """Of each repeat that has the metric."""
        return [row.metrics[metric] for row in self.rows if metric in row.metrics]

    def mean(self, metric: str) -> float:
        """nan where no repeat has the metric."""
        values = self.values(metric)
        return statistics.fmean(values) if values else float("nan")

    def sd(self, metric: str) -> float | None:
        """How much the metric differs from one set of as many samples to another.

        The standard deviation of repeats or, of a single run, that which its replicates tell; None
        where neither is known, as where all replicates agree: of samples that are all right.
        """
        values = self.values(metric)
        if len(values) > 1:
            return Summary(values).sd
        left_out = self.rows[0].replicates.get(metric, [])
        return deviation(left_out) or None if len(values) == 1 and len(left_out) > 1 else None

    def _mean(self, value: Callable[[Row], float]) -> float:
        return statistics.fmean(value(row) for row in self.rows)


def points(results: Results, guidance: str) -> list[Point]:
    """The points under a guidance, in the order of their first rows."""
    found: dict[tuple[str, int], list[Row]] = {}
    for row in results.rows:
        if row.guidance == guidance:
            found.setdefault((row.sampler, row.nfe), []).append(row)
    return [Point(tuple(rows)) for rows in found.values()]


def front(results: Results, metric: str, guidance: str) -> list[Point]:
    """The Pareto front of a metric against network rows per sample, cheapest first.

    Rows are exact, and the same on every machine; seconds would be those of its load.

    Args:
        results: all there is.
        metric: its name.
        guidance: only points under it are compared.
    """
    sign = -1 if metric_entry(metric)[1] == "higher" else 1
    found = [point for point in points(results, guidance) if point.values(metric)]
    costs = [point.network_rows for point in found]
    return [found[i] for i in pareto_front(costs, [sign * p.mean(metric) for p in found])]


def spread(point: Point, metric: str) -> str:
    """`` ± 0.004``, the standard deviation between sets of samples; nothing if it is unknown."""
    sd = point.sd(metric)
    return "" if sd is None else f" ± {sd:{metric_entry(metric)[2]}}"
