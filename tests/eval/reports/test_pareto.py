"""The Pareto front against its definition."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_results import sample_results

from fewstep.eval.reports.pareto import pareto_front
from fewstep.eval.reports.points import front

# Few values, so that there are ties; and what a diverged run may score.
numbers = st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0, math.inf, math.nan])


@given(st.lists(st.tuples(numbers, numbers), max_size=12))
def test_the_front_is_what_nothing_beats(points: list[tuple[float, float]]) -> None:
    def beaten(point: tuple[float, float]) -> bool:
        return any(
            other[0] <= point[0] and other[1] <= point[1] and other != point for other in points
        )

    expected = {
        i for i, point in enumerate(points)
        if not math.isnan(sum(map(abs, point))) and not beaten(point)
    }  # fmt: skip
    found = pareto_front([cost for cost, _ in points], [loss for _, loss in points])
    assert set(found) == expected
    assert len(found) == len(expected)
    assert [points[i][0] for i in found] == sorted(points[i][0] for i in found)


def test_sizes_must_agree() -> None:
    with pytest.raises(ValueError, match="got 2 and 1"):
        pareto_front([1.0, 2.0], [1.0])


def test_fronts_of_results_know_what_is_better() -> None:
    """ddim is the best and the cheapest throughout, so more calls are all that helps."""
    results = sample_results()
    for metric in ("rmse", "accuracy"):  # lower and higher is better
        found = front(results, metric, "none")
        assert [(point.sampler, point.nfe) for point in found] == [("ddim", 4), ("ddim", 8)]


def test_what_a_machine_had_to_do_decides_no_front() -> None:
    """Four calls that took longer than eight are still the cheaper ones."""
    results = sample_results()
    results.rows = [replace(row, seconds=10.0 / row.nfe) for row in results.rows]
    assert [point.nfe for point in front(results, "rmse", "none")] == [4, 8]


def test_gradients_of_the_network_are_a_cost() -> None:
    """As many forward rows, and as good: the one with backward rows is beaten."""
    results = sample_results(samplers=("ddim", "unipc"), guidance=("none",), seeds=(0,))
    results.rows = [
        replace(row, metrics={"rmse": 1 / row.nfe}, backward_rows=row.nfe * (row.sampler == "ddim"))
        for row in results.rows
    ]
    assert {point.sampler for point in front(results, "rmse", "none")} == {"unipc"}
