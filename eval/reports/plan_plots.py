"""Pictures of plans: where they call the network, and what of its outputs their steps take."""

import math
from collections.abc import Mapping
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fewstep.eval.reports.figures import COLOURS, MARKERS
from fewstep.eval.reports.plan_numbers import nodes, step_weights
from fewstep.samplers.core.plan import Plan
from fewstep.schedules.process import Array
from fewstep.writing import writing

TITLE = 48  # letters of a line above a picture of weights


def draw_plans(path: Path, plans: Mapping[str, Plan], title: str) -> None:
    """The levels of plans on one logarithmic axis, and the weights of their steps.

    Args:
        path: of the PNG.
        plans: by name; one or a few, deterministic.
        title: above everything.

    Raises:
        ValueError: as :func:`step_weights`.
    """
    weights = {name: step_weights(plan) for name, plan in plans.items()}
    size = max(matrix.shape[1] for matrix in weights.values())
    across = max(4.2, 0.62 * size + 1.2) * len(plans)
    figure = Figure(
        figsize=(across, 1.5 + 0.3 * len(plans) + max(2.6, 0.42 * size + 1)),
        dpi=130, layout="constrained",
    )  # fmt: skip
    parts: Any = figure.subfigures(2, 1, height_ratios=[1.2 + 0.3 * len(plans), 0.42 * size + 1])
    levels, below = parts
    _draw_nodes(levels.subplots(), plans)
    limit = max(float(np.abs(matrix).max()) for matrix in weights.values())
    axes = np.atleast_1d(below.subplots(1, len(plans)))
    for one, (name, matrix) in zip(axes, weights.items(), strict=True):
        _draw_weights(one, matrix, limit, f"weights, {name}")
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    with writing(path):
        figure.savefig(path)


def _draw_nodes(axes: Axes, plans: Mapping[str, Plan]) -> None:
    for i, (name, plan) in enumerate(plans.items()):
        drawn = [node for node in nodes(plan) if math.isfinite(node.rho)]
        colour, height = COLOURS[i % len(COLOURS)], -float(i)
        axes.plot(
            [node.rho for node in drawn], [height] * len(drawn), color=colour, linewidth=1.0,
            marker=MARKERS[i], markersize=6, label=name,
        )  # fmt: skip
        for node in drawn:
            axes.annotate(
                node.name, (node.rho, height), xytext=(0, 6), textcoords="offset points",
                ha="center", fontsize=7, color=colour,
            )  # fmt: skip
    silent = any(math.isinf(node.rho) for plan in plans.values() for node in nodes(plan))
    where = "sigma / alpha of each call" + (", but for call 0 without signal" if silent else "")
    for i, name in enumerate(plans):  # below its line: beside it, a long name would take the room
        axes.text(
            0, -i - 0.22, name, transform=axes.get_yaxis_transform(), fontsize=8, va="top",
            color=COLOURS[i % len(COLOURS)],
        )  # fmt: skip
    axes.set(xscale="log", xlabel=where, yticks=[])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_ylim(0.3 - len(plans), 0.6)
    axes.invert_xaxis()  # a run goes from left to right
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(True, axis="x", color="0.9", linewidth=0.8)


def _draw_weights(axes: Axes, matrix: Array, limit: float, title: str) -> None:
    steps, outputs = matrix.shape
    known = np.tri(steps, outputs, outputs - steps) > 0  # later outputs are not there yet
    axes.imshow(
        np.where(known, matrix, np.nan), cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto"
    )
    for i in range(steps):
        for j in range(outputs - steps + i + 1):
            dark = abs(matrix[i, j]) > 0.6 * limit
            axes.text(
                j, i, f"{matrix[i, j]:.2f}", ha="center", va="center", fontsize=7,
                color="white" if dark else "0.2",
            )  # fmt: skip
    axes.set_title(fill(title, TITLE), loc="left", fontsize=9)
    axes.set(xlabel="clean sample predicted by call", ylabel="step")
    axes.set_xticks(range(outputs), [str(j - outputs + steps) for j in range(outputs)])
    axes.set_yticks(range(steps))
    axes.tick_params(length=0, labelsize=8)
