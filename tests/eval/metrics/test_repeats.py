"""Repeats are shown whole."""

import math

import pytest

from fewstep.eval.metrics.repeats import Summary


def test_all_values_and_what_they_come_to() -> None:
    summary = Summary(iter([2.0, 1.0, 4.5]))
    assert summary.values == (2.0, 1.0, 4.5)
    assert (summary.min, summary.mean) == (1.0, 2.5)
    assert summary.sd == pytest.approx(math.sqrt((0.25 + 2.25 + 4) / 2))  # divisor n - 1
    assert str(summary) == "2 1 4.5 (min 1, mean 2.5, sd 1.803)"


def test_one_value_has_no_spread() -> None:
    summary = Summary([1.97])
    assert math.isnan(summary.sd)
    assert (summary.min, summary.mean, str(summary)) == (1.97, 1.97, "1.97")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_repeat_that_diverged_leaves_no_spread(value: float) -> None:
    summary = Summary([1.5, value])
    assert math.isnan(summary.sd)
    assert not math.isfinite(summary.mean)
    assert str(summary).startswith("1.5 ")


def test_none_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one value"):
        Summary([])
