"""``report.html``: one file that asks nothing of the network, from the results of a benchmark.

The template escapes all text. Its only script is named by its hash in a content security policy,
so that no other would run, and no request would leave the page.
"""

import base64
import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from fewstep.eval.common.amounts import time_text
from fewstep.eval.reports.cost_tables import Entry, Grid, time_grid
from fewstep.eval.reports.parts import parts, short
from fewstep.eval.reports.pictures import comparisons, same_noise
from fewstep.eval.reports.results import Results, metric_entry
from fewstep.eval.reports.sections import metric_of, tables, time_plot
from fewstep.eval.reports.summary import lead, notes, summary
from fewstep.eval.reports.tables import CALLS_EXPLAINED, heading
from fewstep.eval.reports.thumbnails import strip
from fewstep.eval.reports.titles import FRONT, times_note

TEMPLATES = Path(__file__).parent / "templates"
# Whose front is shown first. With few samples a distance between sets hardly tells samplers apart:
# of 64 of the bundled model it differs about as much between two seeds.
HEADLINES = ("fid", "w2_gauss", "rmse", "fd_fashion", "fd")
SMALL = 64  # images up to this many pixels wide are shown twice as large


@dataclass(frozen=True)
class Pictures:
    """The same seeds under every sampler.

    Attributes:
        title: calls, and guidance and seeds where there are several.
        caption: what is the same down a column.
        rows: labels and base64 PNGs of rows of images.
        width: of a row on the page, in pixels.
        names: of the classes of the columns.
    """

    title: str
    caption: str
    rows: list[tuple[str, str]]
    width: int
    names: tuple[str, ...]


def page(results: Results) -> str:
    """The whole page: pictures and the result first, what they depend on last."""
    script = (TEMPLATES / "report.js").read_text()
    metrics = {name: metric_of(results, name) for name in results.metrics}
    headline = next((name for name in (*HEADLINES, *metrics) if name in metrics), "")
    return _template().render(
        title=heading(results),
        lead=lead(results),
        summary=summary(results),
        notes=notes(results),
        metrics=[metrics[name] for name in sorted(metrics, key=lambda name: name != headline)],
        times=[
            (head, time_grid(part, text), time_plot(part, headline, text))
            for head, part, text in tables(results)
        ],
        side_by_side=results.is_side_by_side,
        everything=everything(results),
        pictures=_pictures(results),
        front_explained=FRONT,
        calls_explained=CALLS_EXPLAINED,
        times_explained=times_note(results),
        settings=json.dumps(results.settings, indent=2, ensure_ascii=False),
        environment=json.dumps(results.env, indent=2, ensure_ascii=False),
        style=(TEMPLATES / "report.css").read_text(),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("report.html.jinja")


def everything(results: Results) -> Grid:
    """Every row with every metric."""
    names = results.metrics
    heads = ["sampler", "guidance", "seeds", "calls", "evaluations", *names, "time/image"]
    rows = []
    for row in results.rows:
        values = [(row.metrics.get(name), metric_entry(name)[2]) for name in names]
        starts = Entry(short(row.starts), row.seed)
        rows.append([
            Entry(row.sampler), Entry(row.guidance), starts,
            Entry(f"{row.calls:g}", row.calls), Entry(f"{row.rows:g}", row.rows),
            *(Entry("" if v is None else f"{v:{form}}", v) for v, form in values),
            Entry(time_text(row.seconds / row.n), row.seconds / row.n),
        ])  # fmt: skip
    return Grid(heads, rows)


def _pictures(results: Results) -> list[Pictures]:
    shown = []
    for part in parts(results):
        for found in comparisons(part):
            guided = "no guidance" if found.guidance == "none" else f"guidance {found.guidance}"
            title = [
                f"{found.nfe} network calls",
                guided if len(results.guidance) > 1 else "",
                f"seeds {short(found.seeds)}" if found.seeds else "",
            ]
            count, _, _, width = next(iter(found.rows.values())).shape
            shown.append(Pictures(
                ", ".join(filter(None, title)), same_noise(results, found).capitalize(),
                [(name, strip(images)) for name, images in found.rows.items()],
                (width + 2) * count * (2 if width <= SMALL else 1), found.names,
            ))  # fmt: skip
    return shown
