"""How much scores vary: the jackknife tells it, and no lead is bold that may be chance."""

import math
from dataclasses import replace

import pytest
import torch
from report_results import replicates as made_up
from report_results import sample_results

from fewstep.eval.metrics.frechet import FrechetReference
from fewstep.eval.metrics.spread import BLOCKS, deviation, random_blocks, replicates, student
from fewstep.eval.reports.points import Point, points
from fewstep.eval.reports.results import Results, Row
from fewstep.eval.reports.tables import bold_note, metric_cells, table
from fewstep.eval.reports.ties import clear_best, is_within_spread


@pytest.mark.parametrize("n", [10, 39, 40, 517])
def test_blocks_hold_each_sample_once(n: int) -> None:
    blocks = random_blocks(n)
    assert torch.cat(blocks).sort().values.tolist() == list(range(n))
    assert len(blocks) == (BLOCKS if n >= 2 * BLOCKS else n)


def test_a_mean_has_its_standard_error() -> None:
    """Left out one by one, the jackknife of a mean is sd / sqrt(n), an identity."""
    rows = torch.randn(30, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = deviation(replicates(rows, lambda x: float(x.mean())))
    assert found == pytest.approx(float(rows.std()) / math.sqrt(30), rel=1e-12)  # rounding


def test_the_spread_of_a_distance_is_that_between_sets() -> None:
    """Of 80 sets: never below the truth by more than chance, and not twice as large."""
    generator = torch.Generator().manual_seed(0)
    sets = torch.randn(80, 120, 8, generator=generator, dtype=torch.float64)
    reference = FrechetReference(torch.full((8,), 0.3, dtype=torch.float64), torch.eye(8).double())
    truth = torch.tensor([reference.distance_of_features(x) for x in sets]).std()
    told = [deviation(replicates(x, reference.distance_of_features)) for x in sets[:20]]
    root = math.sqrt(sum(t * t for t in told) / len(told))
    # The truth of 80 sets has an error of 1 / sqrt(160) = 8 %, the spread of 20 is taken as well as
    # 20 * 19 degrees of freedom tell; the jackknife is biased upwards.
    assert 0.8 < root / float(truth) < 1.6


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.706), (2, 4.303), (9, 2.262), (19, 2.093), (29, 2.045)]
)
def test_quantiles_of_student(freedom: int, quantile: float) -> None:
    assert student(freedom) == pytest.approx(quantile, abs=1e-3)  # three digits in tables


@pytest.mark.parametrize(("freedom", "quantile"), [(3, 3.182), (4, 2.776), (6, 2.447)])
def test_quantiles_of_student_of_few(freedom: int, quantile: float) -> None:
    assert student(freedom) == pytest.approx(quantile, rel=8e-3)  # the series, cut after 1/v^3


def point(name: str, value: float, spread: list[float] | None = None, seed: int = 0) -> Point:
    found = {} if spread is None else {"rmse": spread}
    row = Row(name, 5, 5, 5, seed, 64, "mix8", "none", {"rmse": value}, 1.0, replicates=found)
    return Point((row,))


def test_a_lead_within_the_spread_is_not_bold() -> None:
    """The difference has a spread of its own: 0.01 here, as the second varies by as much more."""
    one = point("a", 0.100, made_up(0.100, 0.02, 1))
    for gap, clear in ((0.015, False), (0.030, True)):
        values = [
            a + b + gap for a, b in zip(made_up(0.1, 0.02, 1), made_up(0, 0.01, 2), strict=True)
        ]
        other = point("b", 0.1 + gap, values)
        assert is_within_spread(one, other, "rmse") == (not clear)
        assert clear_best({"a": one, "b": other}, "rmse") == ({"a"} if clear else set())


def test_what_all_samplers_share_is_no_spread() -> None:
    """Both vary by 0.05 from set to set, but alike: a lead of 0.001 in every part is one."""
    shared = made_up(0.1, 0.05, 1)
    one, other = point("a", 0.1, shared), point("b", 0.101, [v + 0.001 for v in shared])
    assert clear_best({"a": one, "b": other}, "rmse") == {"a"}


def test_repeats_tell_without_replicates() -> None:
    def repeated(*values: float) -> Point:
        return Point(tuple(point("x", v, seed=i).rows[0] for i, v in enumerate(values)))

    assert is_within_spread(repeated(0.1, 0.2, 0.3), repeated(0.2, 0.1, 0.35), "rmse")
    assert not is_within_spread(repeated(0.1, 0.2, 0.3), repeated(0.2, 0.3, 0.4001), "rmse")
    # Seeds that only one of them has tell nothing of a difference.
    assert not is_within_spread(point("a", 0.1, seed=1), point("b", 0.1, seed=2), "rmse")


def test_where_no_spread_is_known_the_digits_count_and_it_is_said() -> None:
    rows = [point("a", 0.1).rows[0], point("b", 0.2).rows[0]]
    results = Results({}, rows)
    assert "**0.1000**" in "\n".join(table(results, "rmse"))
    assert "is not known of a single run" in bold_note(results, "rmse", "none")
    lone = Results({}, rows[:1])
    assert "**" not in "\n".join(table(lone, "rmse"))  # the best of nothing
    assert bold_note(lone, "rmse", "none") == ""


def test_single_runs_show_what_their_replicates_tell() -> None:
    results = sample_results(guidance=("none",), seeds=(0,))
    results.rows = [
        replace(row, replicates={"rmse": made_up(row.metrics["rmse"], 0.5, 0)})
        for row in results.rows
    ]
    cells = metric_cells(results, "rmse", "none")
    assert {cell.spread for row in cells.values() for cell in row.values()} == {" ± 0.5000"}
    assert "by the jackknife" in bold_note(results, "rmse", "none")
    # Samples that are all right tell nothing of those that are not.
    agreed = replace(results.rows[0], replicates={"accuracy": [1.0] * 20})
    assert points(Results({}, [agreed]), "none")[0].sd("accuracy") is None
