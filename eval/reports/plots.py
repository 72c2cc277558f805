"""Where the lines of a plot go on the page; the template draws them, in colours of its theme."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from fewstep.eval.common.amounts import number_text
from fewstep.eval.reports.figures import round_numbers

WIDTH, HEIGHT = 460, 320  # in units of the drawing
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 34, 46  # margins; above is the label of y
LETTER = 7.4  # about the width of one in an axis, on small screens
APART = 5  # by which marks of several samplers at one place are set side by side, if they have bars
STYLES = 10  # colours of the page; then dashes
Span = tuple[float, float]


class Value(NamedTuple):
    """A point of a plot: a cost, a metric, half its error bar, what to say of it, a range of x."""

    x: float
    y: float
    error: float = 0.0
    text: str = ""
    across: Span | None = None


class Tick(NamedTuple):
    """A place on an axis and its number."""

    at: float
    text: str


class Mark(NamedTuple):
    """A point on the page, and the ends of its error bars."""

    x: float
    y: float
    high: float
    low: float
    text: str
    left: float
    right: float


class Level(NamedTuple):
    """A horizontal line, its name for the legend, and its dashes."""

    at: float
    text: str
    dash: int


@dataclass(frozen=True)
class Curve:
    """A line through marks; ``path`` is the points attribute of a polyline."""

    name: str
    colour: int
    dash: int
    path: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Plot:
    """A plot, laid out.

    Attributes:
        x_label, y_label: of the axes.
        x_ticks, y_ticks: their numbers.
        curves: in the order of the legend.
        front: points attribute of the Pareto front's polyline; empty for none.
        background: the same of lines in grey.
        levels: horizontal lines.
    """

    x_label: str
    y_label: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    curves: list[Curve]
    front: str = ""
    background: list[str] = field(default_factory=list)
    levels: list[Level] = field(default_factory=list)
    width: int = WIDTH
    height: int = HEIGHT
    box: tuple[int, int, int, int] = (LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM)


class Axis:
    """Maps values to the page; by logarithms if all are positive.

    Args:
        values: all that must be seen; at least one is finite.
        page: where the least and the largest go, about.
        exact: whether only the values themselves get ticks.
        shares: whether the values are shares of one, for which logarithms are no help.
        text: writes a tick.
    """

    def __init__(
        self,
        values: Iterable[float],
        page: Span,
        *,
        exact: bool = False,
        shares: bool = False,
        text: Callable[[float], str] = number_text,
    ) -> None:
        everything = [value for value in values if math.isfinite(value)]
        seen = sorted(set(everything))
        self.log, self._page, self._text = seen[0] > 0 and not shares, page, text
        # The most common first: the others give way where there is no room.
        common = Counter(everything).most_common() if exact else []
        self._values = [value for value, _ in sorted(common, key=lambda item: (-item[1], item[0]))]
        low, high = self._map(seen[0]), self._map(seen[-1])
        pad = 0.05 * (high - low) or 0.1 * abs(high) or 0.1
        self._low, self._high = low - pad, high + pad

    def _map(self, value: float) -> float:
        return math.log(value) if self.log else value

    def __call__(self, value: float) -> float:
        """Place of a value on the page."""
        start, stop = self._page
        share = (self._map(value) - self._low) / (self._high - self._low)
        return round(start + share * (stop - start), 1)

    def ticks(self) -> list[Tick]:
        """Round numbers whose texts do not touch; along x texts are as wide as they are long."""
        along = self._page[0] < self._page[1]
        chosen: list[Tick] = []
        for number in self._values or self._round():
            tick = Tick(self(number), self._text(number))
            if all(abs(tick.at - other.at) >= _room(tick, other, along) for other in chosen):
                chosen.append(tick)
        return sorted(chosen)

    def _round(self) -> list[float]:
        if self.log:
            low, high = math.exp(self._low), math.exp(self._high)
            if high / low > 300:
                powers = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
                return [10.0**power for power in powers]
            found = round_numbers(low, high)
            return found if len(found) > 1 else [float(f"{v:.3g}") for v in (low, high)]
        step = 10 ** math.floor(math.log10((self._high - self._low) / 4))
        step *= next(m for m in (1, 2, 5, 10) if (self._high - self._low) / (m * step) <= 6)
        first, last = math.ceil(self._low / step), math.floor(self._high / step)
        return [k * step for k in range(first, last + 1)]


def _room(one: Tick, other: Tick, along: bool) -> float:
    """The least distance of two ticks."""
    letters = len(one.text) + len(other.text)
    return max(26.0, LETTER * letters / 2 + 8) if along else 26.0


def lay_out(
    series: Mapping[str, Sequence[Value]],
    *,
    x_label: str,
    y_label: str,
    front: Sequence[Value] = (),
    background: Iterable[Sequence[Value]] = (),
    levels: Mapping[str, float] | None = None,
    exact: bool = False,
    shares: bool = False,
    x_text: Callable[[float], str] = number_text,
) -> Plot:
    """Places of everything in a plot.

    Args:
        series: by name; at least one value in all.
        x_label, y_label: of the axes.
        front: the Pareto front, by rising cost.
        background: lines to be drawn in grey.
        levels: heights of horizontal lines, by name.
        exact: whether ticks of x are at the values themselves.
        shares: whether y is linear.
        x_text: writes the ticks of x.
    """
    background = [list(line) for line in background]
    lines = [*series.values(), *background]
    ends = [y for line in lines for v in line for y in (v.y - v.error, v.y, v.y + v.error)]
    positive = all(v.y > 0 for line in lines for v in line)
    # An error bar that reaches below zero is cut, rather than giving up the logarithms.
    ends = [y for y in ends if y > 0] if positive and not shares else ends
    seen = (x for line in lines for v in line for x in (v.x, *(v.across or ())))
    x = Axis(seen, (LEFT, WIDTH - RIGHT), exact=exact, text=x_text)
    y = Axis([*ends, *(levels or {}).values()], (HEIGHT - BOTTOM, TOP), shares=shares)
    curves = []
    barred = any(v.error for line in series.values() for v in line)
    apart = min(APART, 16 / len(series)) if barred and exact else 0.0
    for i, (name, line) in enumerate(series.items()):
        shift = apart * (i - (len(series) - 1) / 2)
        marks = tuple(_mark(v, x, y, shift) for v in sorted(line))
        path = " ".join(f"{mark.x},{mark.y}" for mark in marks)
        curves.append(Curve(name, i % STYLES, i // STYLES % 3, path, marks))
    return Plot(
        x_label, y_label, x.ticks(), y.ticks(), curves, _path(front, x, y),
        [_path(line, x, y) for line in background],
        [Level(y(value), name, i % 2) for i, (name, value) in enumerate((levels or {}).items())],
    )  # fmt: skip


def _mark(value: Value, x: Axis, y: Axis, shift: float) -> Mark:
    low, bottom = value.y - value.error, float(HEIGHT - BOTTOM)
    left, right = value.across or (value.x, value.x)
    return Mark(
        round(x(value.x) + shift, 1), y(value.y), y(value.y + value.error),
        bottom if y.log and low <= 0 else y(low), value.text,
        float(LEFT) if x.log and left <= 0 else x(left), x(right),
    )  # fmt: skip


def _path(line: Sequence[Value], x: Axis, y: Axis) -> str:
    places = [f"{x(v.x)},{y(v.y)}" for v in sorted(line)]
    return " ".join(places * 2 if len(places) == 1 else places)  # so that a single one is a dot
