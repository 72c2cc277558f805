"""The plots and tables of a tuning, laid out for its page and the terminal."""

import base64
import tempfile
from collections.abc import Mapping
from pathlib import Path

from fewstep.eval.common.amounts import number_text
from fewstep.eval.reports.cost_tables import Entry, Grid
from fewstep.eval.reports.plan_plots import draw_plans
from fewstep.eval.reports.plots import Plot, Value, lay_out
from fewstep.eval.tune.judge import Error
from fewstep.eval.tune.tuning import Tuning, calls_text

Row = tuple[str, Mapping[int, Error]]


def error_rows(tuning: Tuning) -> list[Row]:
    """Samplers and their errors by network calls: the tuned one, then fixed ones, the best first.

    Fixed ones are in the order of their best error at the calls of the tuned one.
    """
    n = tuning.nfe
    fixed = [(_named(tuning, spec), found) for spec, found in tuning.fixed.items()]
    none = Error(float("inf"), float("inf"))
    fixed.sort(key=lambda row: row[1].get(n, none).rms)
    tuned = "tuned" if tuning.found.improved else "tuned (the start, nothing was gained)"
    return [(tuned, {n: tuning.error}), *fixed]


def _named(tuning: Tuning, spec: str) -> str:
    return f"{spec} (start)" if spec == tuning.found.spec else spec


def error_grid(tuning: Tuning) -> Grid:
    """The errors as a table; with the median sample's of exact problems, and those in features."""
    parts = {"": "rms"}
    if tuning.setup.problem.exact:
        parts["median, "] = "median"
    if tuning.setup.featured is not None:
        parts["features, "] = "features"
    columns = (tuning.nfe, 2 * tuning.nfe)
    heads = [f"{told}{calls_text(n)}" for told in parts for n in columns]
    rows = []
    for name, found in error_rows(tuning):
        errors = [found.get(n) for n in columns]
        values = [getattr(error, part, None) for part in parts.values() for error in errors]
        rows.append([Entry(name), *map(_entry, values)])
    rows.append([Entry("teacher"), _entry(tuning.teacher), *[_entry(None)] * (len(heads) - 1)])
    return Grid(["sampler", *heads], rows)


def _entry(value: float | None) -> Entry:
    return Entry("") if value is None else Entry(number_text(float(f"{value:.3g}")), value)


def error_plot(tuning: Tuning) -> Plot:
    """Errors against network calls, from N to 2N."""
    series = {}
    for name, found in error_rows(tuning):
        line = [Value(float(n), error.rms, text=f"{name}: {error.rms:.4g} at {calls_text(n)}")
                for n, error in sorted(found.items())]  # fmt: skip
        if line:
            series[name] = line
    return lay_out(series, x_label="network calls", y_label="RMSE to the teacher", exact=True)


def curve_plot(tuning: Tuning) -> Plot | None:
    """The losses of the steps on both sets of noises; None if there was no step."""
    history = tuning.found.history
    if len(history) < 2:
        return None
    series: dict[str, list[Value]] = {"noises to tune on": [], "fresh noises": []}
    for step, entry in enumerate(history):
        losses = (entry.tune, entry.select)
        for (name, line), loss in zip(series.items(), losses, strict=True):
            line.append(Value(float(step), loss, text=f"step {step}: {loss:.4g} on the {name}"))
    return lay_out(series, x_label="step", y_label="loss")


def plans_png(tuning: Tuning) -> str:
    """Nodes and weights of the plan beside the start's, a PNG in base64; empty if they are equal.

    Steps that are no weights of data predictions, as those of scaled noise, are left out.
    """
    found = tuning.found
    shown = {"tuned": found.plan, f"start {found.spec}": found.start}
    if not found.improved:
        return ""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plans.png"
        try:
            draw_plans(path, shown, f"{found.plan.name} and the plan that it started from")
        except ValueError:
            return ""
        return base64.b64encode(path.read_bytes()).decode()
