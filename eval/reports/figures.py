"""The pictures of a report. They are drawn without pyplot, whose state is global."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator, ScalarFormatter

from fewstep.eval.reports.thumbnails import Pixels, as_array
from fewstep.writing import writing

if TYPE_CHECKING:
    from torch import Tensor

# Okabe and Ito's palette, which colour-blind readers can tell apart, then a few more.
COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F3C8D",
    "#8C564B", "#4D4D4D",
)  # fmt: skip
MARKERS = "osD^vP*Xph"
Points = Mapping[Any, float]  # by number of calls, or of rows
Series = Mapping[str, Points]


def draw_curves(
    path: Path,
    series: Series,
    *,
    title: str,
    label: str,
    background: Series | None = None,
    levels: Mapping[str, float] | None = None,
    across: str = "network calls",
    errors: Series | None = None,
) -> None:
    """A metric against the number of calls, or another cost, both on log axes.

    The metric's axis is linear where a value is not positive.

    Args:
        path: of the PNG.
        series: by name, values by number of calls; single points are drawn as stars.
        title, label: of the figure and of the metric's axis.
        background: more series, in grey and dashed, with the best of them at each number of calls.
        levels: horizontal lines by name.
        across: label of the x axis.
        errors: half the length of an error bar, by name and number of calls.
    """
    figure = Figure(figsize=(8.6, 4.6), dpi=130, layout="constrained")
    axes = figure.subplots()
    for i, (name, points) in enumerate(series.items()):
        bars = [(errors or {}).get(name, {}).get(n, 0.0) for n in sorted(points)]
        axes.errorbar(
            *_columns(points), yerr=bars if any(bars) else None, capsize=3, elinewidth=1.2,
            label=name, color=COLOURS[i % len(COLOURS)],
            marker=MARKERS[(i + i // len(COLOURS)) % len(MARKERS)], markersize=6, linewidth=1.8,
            markeredgecolor="white", markeredgewidth=0.7,
            linestyle=("-", "--", ":")[i // len(COLOURS) % 3],
        )  # fmt: skip
    if background:
        _draw_background(axes, background)
    for (name, value), style in zip((levels or {}).items(), ("-.", ":"), strict=False):
        axes.axhline(value, color="0.45", linewidth=1.2, linestyle=style, label=name, zorder=0)
    everything = [
        v for lines in (series, background or {}) for p in lines.values() for v in p.values()
    ]
    scale = "log" if min(everything) > 0 else "linear"
    axes.set(xscale="log", yscale=scale, xlabel=across, ylabel=label)
    _label_ticks(axes, sorted({n for points in series.values() for n in points}))
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(True, which="major", color="0.9", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    with writing(path):
        figure.savefig(path)


def envelope(series: Series) -> dict[float, float]:
    """The least value at each number of calls."""
    calls = sorted({n for points in series.values() for n in points})
    return {n: min(points[n] for points in series.values() if n in points) for n in calls}


def _columns(points: Points) -> tuple[list[float], list[float]]:
    ordered = sorted(points.items())
    return [n for n, _ in ordered], [value for _, value in ordered]


def _draw_background(axes: Axes, series: Series) -> None:
    for points in series.values():
        axes.plot(*_columns(points), color="0.8", linewidth=0.8, zorder=0)
    axes.plot(
        *_columns(envelope(series)), color="0.35", linestyle="--", linewidth=1.8, zorder=1,
        label="best of diffusers,\nany class and grid",
    )  # fmt: skip


def _label_ticks(axes: Axes, calls: Sequence[float]) -> None:
    """Numbers of calls on x; numbers between powers of ten on y where they do not crowd."""
    axes.xaxis.set_major_locator(FixedLocator(_spaced(calls)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_locator(NullLocator())
    y = axes.yaxis
    if axes.get_yscale() != "log":
        return
    low, high = axes.get_ylim()
    if high / low < 300:
        y.set_major_locator(FixedLocator(round_numbers(low, high)))
        y.set_major_formatter(lambda value, _: f"{value:g}")
    y.set_minor_formatter(NullFormatter())


def _spaced(calls: Sequence[float]) -> list[float]:
    """As many as stand apart on an axis of logarithms, the first and from there on."""
    apart = (calls[-1] / calls[0]) ** 0.035 if calls[0] > 0 else 1.0
    chosen = [calls[0]]
    for n in calls[1:]:
        if n > apart * chosen[-1]:
            chosen.append(n)
    return chosen


def round_numbers(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between two numbers, and more of them in a short range."""
    digits = (1, 2, 5) if high / low > 6 else (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
    powers = range(int(np.floor(np.log10(low))) - 1, int(np.ceil(np.log10(high))) + 1)
    return [m * 10.0**p for p in powers for m in digits if low <= m * 10.0**p <= high]


def draw_images(
    path: Path,
    rows: "Mapping[str, Tensor | Pixels]",
    *,
    title: str,
    columns: Sequence[str] = (),
    scale: int = 2,
) -> None:
    """Rows of images under each other: one row a sampler, one column a seed.

    Args:
        path: of the PNG.
        rows: by label, (n, c, h, w) images in [-1, 1], grey or RGB; every row has the same n.
        title: above everything.
        columns: a label for each column.
        scale: whole factor on the pixels.
    """
    tiles = (np.stack([as_array(images) for images in rows.values()]).clip(-1, 1) + 1) / 2
    count, across, depth, height, width = tiles.shape
    gap = 2  # white pixels between images
    size = (count * (height + gap) - gap, across * (width + gap) - gap, depth)
    canvas = np.ones(size, np.float32)
    for r in range(count):
        for c in range(across):
            top, left = r * (height + gap), c * (width + gap)
            canvas[top : top + height, left : left + width] = tiles[r, c].transpose(1, 2, 0)
    inches = np.array([canvas.shape[1], canvas.shape[0]]) * scale / 100
    figure = Figure(
        figsize=(float(inches[0]) + 2.6, float(inches[1]) + 1.2), dpi=130, layout="constrained"
    )
    axes = figure.subplots()
    # One channel is drawn in grey; the map and its limits do nothing to RGB.
    shown = canvas[:, :, 0] if depth == 1 else canvas
    axes.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_yticks([r * (height + gap) + height / 2 for r in range(count)], list(rows))
    axes.set_xticks([c * (width + gap) + width / 2 for c in range(across)][: len(columns)], columns)
    axes.xaxis.tick_top()
    axes.tick_params(length=0, labelsize=9)
    for tick in axes.get_xticklabels():
        tick.set(rotation=30, ha="left", rotation_mode="anchor")
    axes.spines[:].set_visible(False)
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    with writing(path):
        figure.savefig(path)
