"""Plots of pages: what they write does not touch, and is in words and units that people read."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewstep.eval.common.amounts import number_text, time_text
from fewstep.eval.reports.figures import _spaced
from fewstep.eval.reports.plots import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, Value, lay_out

WIDTH_OF_LETTER = 7.0  # of digits at the largest size of the page's style, 14 px

numbers = st.floats(1e-9, 1e9)


@given(st.lists(numbers, min_size=2, max_size=30), st.booleans())
def test_numbers_along_an_axis_do_not_touch(values: list[float], exact: bool) -> None:
    ticks = Axis(values, (LEFT, WIDTH - RIGHT), exact=exact, text=time_text).ticks()
    assert ticks
    for one, other in pairwise(ticks):
        half = WIDTH_OF_LETTER * (len(one.text) + len(other.text)) / 2
        assert other.at - one.at >= half
    up = Axis(values, (HEIGHT - BOTTOM, TOP)).ticks()
    assert all(one.at - other.at >= 14 for one, other in pairwise(reversed(up)))  # a line of text


def test_the_numbers_of_calls_that_most_samplers_have_are_written() -> None:
    """Not the 19 of a solver of two calls a step, where the others have 20."""
    line = [Value(float(n), 1.0 + n) for n in (5, 10, 20)]
    odd = [Value(float(n), 1.0 + n) for n in (5, 19)]
    plot = lay_out({"a": line, "b": odd, "c": line}, x_label="x", y_label="y", exact=True)
    assert [tick.text for tick in plot.x_ticks] == ["5", "10", "20"]


@given(st.integers(1, 12))
def test_bars_of_several_samplers_stand_side_by_side(count: int) -> None:
    series = {f"s{i}": [Value(5.0, 1.0, 0.5), Value(8.0, 0.5, 0.1)] for i in range(count)}
    plot = lay_out(series, x_label="x", y_label="y", exact=True)
    places = [curve.marks[0].x for curve in plot.curves]
    assert len(set(places)) == count
    assert max(places) - min(places) <= 16
    assert all(LEFT <= x <= WIDTH - RIGHT for x in places)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(5e-5, "50 \u00b5s"), (0.0382, "38.2 ms"), (1.5, "1.5 s"), (0.9996, "1 s"), (0.0, "0 s"),
     (3e-8, "30 ns"), (90, "2 min")],
)  # fmt: skip
def test_times_have_their_unit(seconds: float, text: str) -> None:
    assert time_text(seconds) == text


@given(st.floats(1e-12, 59))
def test_no_time_is_written_with_an_exponent(seconds: float) -> None:
    number, unit = time_text(seconds).split()
    assert "e" not in number or seconds < 1e-9
    size = {"s": 1, "ms": 1e-3, "\u00b5s": 1e-6, "ns": 1e-9}[unit]
    assert float(number) * size == pytest.approx(seconds, rel=6e-3)  # three digits


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.05, "0.05"), (0.0, "0"), (1e-5, "10\u207b\u2075"), (-2.5e-7, "-2.5\u00d710\u207b\u2077"),
     (3e6, "3\u00d710\u2076"), (20, "20")],
)  # fmt: skip
def test_numbers_of_axes(value: float, text: str) -> None:
    assert number_text(value) == text


def test_pictures_write_calls_that_stand_apart() -> None:
    assert _spaced([5, 8, 10, 20]) == [5, 8, 10, 20]
    assert _spaced([18, 19, 20, 40, 41, 80])[:1] == [18]
    shown = _spaced(list(range(5, 60)))
    assert all(b / a > (59 / 5) ** 0.035 for a, b in pairwise(shown))
