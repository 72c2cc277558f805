"""The file of a tuned plan, its page, and the table for the terminal."""

import base64
import hashlib
import json
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from fewstep.eval.common.amounts import seconds_text
from fewstep.eval.common.folders import all_or_nothing
from fewstep.eval.reports.html import SMALL, TEMPLATES
from fewstep.eval.reports.thumbnails import from_thumbnails, strip, to_thumbnails
from fewstep.eval.tune.plots import curve_plot, error_grid, error_plot, plans_png
from fewstep.eval.tune.tuning import Tuning, calls_text
from fewstep.samplers.adapter.files import save_tuned
from fewstep.writing import write_whole


def write_tuning(tuning: Tuning, out: Path) -> list[Path]:
    """Writes the plan and its page.

    Args:
        tuning: what was found.
        out: a ``.json`` file, beside which the page has its name, or a folder.

    Returns:
        The plan's path, and the page's.
    """
    page_path = page_of(out)
    text = page(tuning, out)
    if tuning.setup.config is None:
        tuning.plan.save(out)
    else:
        save_tuned(out, [tuning.plan], tuning.setup.config, tuning.gaussian)
    with all_or_nothing(page_path.absolute().parent) as folder:
        write_whole(folder / page_path.name, text)
    return [out, page_path]


def page_of(out: Path) -> Path:
    """Where the page of a plan goes: beside a file, into a folder."""
    return out.with_suffix(".html") if out.suffix.lower() == ".json" else out / "report.html"


def page(tuning: Tuning, out: Path) -> str:
    """The whole page, which asks nothing of the network."""
    script = (TEMPLATES / "report.js").read_text()
    provenance = tuning.provenance()
    provenance["start"] = {"spec": tuning.found.spec}  # whose table is long
    width, pictures = _pictures(tuning)
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("tuning.html.jinja").render(
        title=f"Tuned sampler: {subject(tuning)}",
        lead=lead(tuning),
        summary=_summary(tuning),
        notes=tuning.notes(),
        reported=len(tuning.setup.splits["report"]),
        medians=tuning.setup.problem.exact,
        errors=error_grid(tuning),
        plot=error_plot(tuning),
        curve=curve_plot(tuning),
        plans=plans_png(tuning),
        pictures=pictures,
        width=width,
        provenance=json.dumps(provenance, indent=1, ensure_ascii=False),
        plan=str(tuning.plan),
        path=str(out),
        style=(TEMPLATES / "report.css").read_text(),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def subject(tuning: Tuning) -> str:
    """What was tuned, in a few words."""
    setup, n = tuning.setup, tuning.nfe
    guidance = "no guidance" if setup.guidance.expression is None else setup.guidance.text
    return f"{setup.problem.name}, {guidance}, {calls_text(n)}"


def error_table(tuning: Tuning) -> Table:
    """The errors for the terminal."""
    grid = error_grid(tuning)
    table = Table(box=SIMPLE_HEAD)
    table.add_column(grid.heads[0], no_wrap=True)
    for head in grid.heads[1:]:
        table.add_column(head, justify="right")
    numbers = [row[1].number for row in grid.rows[:-1]]
    best = min((value for value in numbers if value is not None), default=None)
    for row in grid.rows:
        texts = [escape(entry.text) for entry in row]
        if row is grid.rows[-1]:
            texts = [f"[dim]{text}[/dim]" if text else "" for text in texts]
        elif row[1].number == best:
            texts[1] = f"[bold]{texts[1]}[/bold]"
        table.add_row(*texts)
    return table


def lead(tuning: Tuning) -> str:
    """The result in a sentence."""
    n, error, best = tuning.nfe, tuning.error.rms, tuning.best(tuning.nfe)
    text = f"Its error at {calls_text(n)} is {error:.3g}"
    if best is not None:
        text += f", that of the best fixed sampler with as many is {best[1].rms:.3g} ({best[0]})"
    if (more := tuning.best(2 * n)) is not None:
        text += f", and with {calls_text(2 * n)} {more[1].rms:.3g} ({more[0]})"
    return f"{text}."


def _summary(tuning: Tuning) -> dict[str, str]:
    found, setup = tuning.found, tuning.setup
    texts = {
        "family": f"{setup.settings.family}, {found.size} numbers",
        "start": f"{found.spec}, error {tuning.before.rms:.4g}",
        "error on fresh noises over that on those to tune on": (
            f"{found.select / found.tune:.2f}; near 1 it holds for others" if found.tune
            else "no error"
        ),
        "noises to tune on, to choose the step, to report on": ", ".join(
            str(len(split)) for split in setup.splits.values()
        ),
    }  # fmt: skip
    if found.landing is not None:
        texts["first level"] = (
            f"sigma/alpha {found.landing:.4g}, to where a Gaussian fitted to the model's samples "
            "is solved in one step"
        )
    texts["time"] = ", ".join(
        f"{name} {seconds_text(spent)}" for name, spent in tuning.seconds.items()
    )
    return texts


def _pictures(tuning: Tuning) -> tuple[int, list[tuple[str, str]]]:
    """Their width on the page, and PNGs in base64 by name."""
    if not tuning.pictures:
        return 0, []
    made = {
        name: from_thumbnails(to_thumbnails(images)) for name, images in tuning.pictures.items()
    }
    count, _, _, width = next(iter(made.values())).shape
    scale = 2 if width <= SMALL else 1
    return (width + 2) * count * scale, [(name, strip(images)) for name, images in made.items()]
