"""What ``fewstep list`` shows."""

import inspect
import re
from collections.abc import Callable
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fewstep.eval.problems import PROBLEMS
from fewstep.eval.problems.loading import FORMS
from fewstep.guidance.parse import MODELS, MODIFIERS, SOURCES
from fewstep.samplers import DEFAULT_SPECS, SAMPLERS
from fewstep.schedules import NAMED_GRIDS, VE, Flow, NoiseProcess, discrete_vp

PROCESSES: dict[str, Callable[[], NoiseProcess]] = {
    "vp-linear": lambda: discrete_vp("linear"),
    "vp-scaled": lambda: discrete_vp("scaled_linear", beta_start=0.00085, beta_end=0.012),
    "vp-cosine": lambda: discrete_vp("squaredcos_cap_v2"),
    "edm": lambda: VE(0.002, 80.0),
    "flow": lambda: Flow(),
}


def show_lists() -> None:
    """Tables of samplers and of guidance, and the names of grids and problems."""
    console = Console()
    console.print(_samplers())
    for line in (
        "* run by default; a spec is NAME or NAME:OPTION=VALUE,...",
        f"grids (grid=): auto, {', '.join(NAMED_GRIDS)}",
        "options of grids: final=zero|sigma_min, power= (karras), shift= (flow)\n",
    ):
        console.print(line, markup=False, highlight=False)
    console.print(_guidance())
    for line in (
        "NAME:VALUE,... or NAME:KEY=VALUE; + adds sources, | applies a modifier to its left:",
        "(icg:1.4|interval:0.28,2.9)+tsg\n",
        f"problems: {', '.join(PROBLEMS)},",
        f"or {FORMS}",
        f"processes: {', '.join(PROCESSES)}",
    ):
        console.print(line, markup=False, highlight=False)


def _samplers() -> Table:
    table = Table(title="Samplers", title_justify="left", box=SIMPLE_HEAD)
    for column in ("name", "what it is", "options and defaults", "class", "paper"):
        table.add_column(column, no_wrap=column in ("name", "class", "paper"))
    for name, entry in SAMPLERS.items():
        options = "\n".join(f"{key}={value}" for key, value in entry.options().items())
        star = "*" if name in DEFAULT_SPECS else ""
        table.add_row(name + star, entry.summary, escape(options), entry.scheduler, entry.paper)
    return table


def _guidance() -> Table:
    table = Table(title="Guidance", title_justify="left", box=SIMPLE_HEAD)
    for column in ("name", "kind", "what it is", "arguments in order", "needs", "paper"):
        table.add_column(column, no_wrap=column in ("name", "kind", "paper"))
    kinds: dict[str, Any] = {**SOURCES, **MODIFIERS}
    for name, kind in kinds.items():
        model, needed = MODELS.get(name, ("", ""))
        summary = inspect.getdoc(kind) or ""
        arguments = [
            key if p.default is p.empty else f"{key}={p.default}"
            for key, p in inspect.signature(kind).parameters.items()
            if key not in (model, "distance", "site", "weak")
        ]
        table.add_row(
            name, "source" if name in SOURCES else "modifier",
            escape(summary.split("\n\n")[0].replace("\n", " ")), escape("\n".join(arguments)),
            needed, _paper(kind),
        )  # fmt: skip
    return table


def _paper(kind: type) -> str:
    """The first arXiv number of a class's docstring, or of its module's."""
    texts = (inspect.getdoc(kind), inspect.getdoc(inspect.getmodule(kind)))
    for text in texts:
        if found := re.search(r"arXiv:\d{4}\.\d{5}", text or ""):
            return found.group()
    return ""
