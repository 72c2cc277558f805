"""What ``fewstep list`` lists: every name that an option or a spec takes, and what it is."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from fewstep.eval.cli.docstrings import (
    REQUIRED,
    Described,
    described_class,
    described_function,
    plain,
)
from fewstep.eval.metrics.choices import OF_FEATURES, OF_SAMPLES
from fewstep.eval.networks.families import EXTRACTORS
from fewstep.eval.problems import PROBLEMS
from fewstep.guidance.parse import MODELS, MODIFIERS, SOURCES
from fewstep.samplers import DEFAULT_SPECS, SAMPLERS
from fewstep.schedules import NAMED_GRIDS, VE, Flow, NoiseProcess, discrete_vp
from fewstep.schedules.published import Published

PROCESSES: dict[str, Callable[[], NoiseProcess]] = {
    "vp-linear": lambda: discrete_vp("linear"),
    "vp-scaled": lambda: discrete_vp("scaled_linear", beta_start=0.00085, beta_end=0.012),
    "vp-cosine": lambda: discrete_vp("squaredcos_cap_v2"),
    "edm": lambda: VE(0.002, 80.0),
    "flow": lambda: Flow(),
}
_OF_PROCESSES = {
    "vp-linear": "DDPM's schedule, betas 1e-4 to 0.02; the default of `fewstep plan`",
    "vp-scaled": "Stable Diffusion's schedule",
    "vp-cosine": "the cosine schedule",
    "edm": "EDM's variance exploding process, sigma from 0.002 to 80",
    "flow": "a flow, x = (1 - sigma) x0 + sigma noise, as of SD3 and FLUX",
}
KINDS = {
    "sampler": "samplers: NAME or NAME:OPTION=VALUE,...; * is run by `fewstep bench` by default",
    "grid": "grids, the option grid= of every sampler, beside grid=auto; with "
    "final=zero|sigma_min, power= (karras) and shift= (flows)",
    "source": "sources of guidance: NAME:VALUE,... in order, or NAME:KEY=VALUE; + adds sources",
    "modifier": "modifiers of guidance: | applies one to what is on its left, as in "
    "(icg:1.4|interval:0.28,2.9)+tsg",
    "problem": "problems, beside a diffusers pipeline (its folder, or its hub id org/name), "
    "module:attribute and path/file.py:attribute",
    "process": "noise processes of `fewstep plan --process`",
    "extractor": "extractors of features: FAMILY:VARIANT",
    "metric": "metrics",
}
# For examples: what arguments without a default may be.
_VALUES = {"scale": "2", "lo": "0.2", "hi": "2", "n": "2", "factor": "linear"}
_UNWRITTEN = ("distance", "weak")  # arguments that only Python can give


@dataclass(frozen=True)
class Option:
    """An option of an entry.

    Attributes:
        name: as it is written.
        default: its value where none is given; ``REQUIRED`` if one must be.
        meaning: what it does, and what it may be.
        choices: the values that it takes, if they are a few names.
    """

    name: str
    default: Any
    meaning: str
    choices: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, default: Any, said: str) -> "Option":
        """From a docstring's text, where values are written as ``"name"``."""
        choices = tuple(dict.fromkeys(re.findall(r'``"([\w-]+)"``', said)))
        choices = ("True", "False") if isinstance(default, bool) else choices
        return cls(name, default, plain(said), choices if len(choices) > 1 else ())

    @property
    def short(self) -> str:
        """Name and default, and the values that it takes if these are few."""
        among = f" ({' | '.join(self.choices)})" if self.choices else ""
        default = "''" if self.default == "" else self.default
        return self.name + ("" if self.default is REQUIRED else f"={default}") + among


@dataclass(frozen=True)
class Entry:
    """Something that has a name.

    Attributes:
        kind: a key of ``KINDS``.
        name: as it is written.
        summary: what it is, in a line.
        home: its class, if it has one in Python.
        options: in order.
        needs: a model that it takes from the problem.
        paper: where it comes from.
        text: more of what it is.
        example: a command.
    """

    kind: str
    name: str
    summary: str
    home: str = ""
    options: tuple[Option, ...] = ()
    needs: str = ""
    paper: str = ""
    text: str = ""
    example: str = ""

    @property
    def starred(self) -> str:
        """The name, with a star if it runs by default."""
        return (
            f"{self.name}*" if self.kind == "sampler" and self.name in DEFAULT_SPECS else self.name
        )


def entries() -> Iterator[Entry]:
    """Everything that ``fewstep list`` knows, kind by kind."""
    yield from _samplers()
    yield from _grids()
    yield from _guidance()
    for name, problem in PROBLEMS.items():
        yield Entry("problem", name, problem.summary, example=f"fewstep bench -m {name} --nfe 5,10")
    for name in PROCESSES:
        example = f"fewstep plan unipc --nfe 8 --process {name}"
        yield Entry("process", name, _OF_PROCESSES[name], example=example)
    for family, load in EXTRACTORS.items():
        known = described_function(load)
        example = f"fewstep calc SAMPLES.zip --ref REF.npz --extractor {family}:VARIANT"
        yield Entry("extractor", family, known.summary, text=known.text, example=example)
    for name, summary in OF_FEATURES.items():
        example = f"fewstep calc SAMPLES.zip --ref REF.npz --metrics {name}"
        yield Entry("metric", name, summary, example=example)
    for name, summary in OF_SAMPLES.items():
        example = f"fewstep bench -m mix8 --nfe 8 --metrics {name}"
        yield Entry("metric", name, summary, example=example)


def _samplers() -> Iterator[Entry]:
    for name, sampler in SAMPLERS.items():
        known = described_function(sampler.build)
        options = _options(known, [*sampler.options()])
        settings = next((f":{o.name}={o.default}" for o in options if o.default is not None), "")
        yield Entry(
            "sampler", name, sampler.summary, sampler.scheduler, options, paper=sampler.paper,
            text=known.text, example=f"fewstep bench -s {name}{settings} -m mix8 --nfe 8",
        )  # fmt: skip


def _grids() -> Iterator[Entry]:
    for name, rule in NAMED_GRIDS.items():
        example = f"fewstep plan dpmpp:grid={name} --nfe 8"
        if isinstance(rule, Published):
            process = "a flow" if rule.flow else "one range of levels"
            summary = f"published levels, tuned to {rule.model}; fits {process} only"
            example = f"fewstep bench -m PIPELINE -s dpmpp:grid={name} --nfe 8"
            yield Entry("grid", name, summary, paper=_paper(rule.source), example=example)
        else:
            known = described_function(rule)
            summary, text = known.summary, known.text
            if name == "softlog":
                summary, text = _softlog()
            paper = _paper(known.doc)
            yield Entry("grid", name, summary, paper=paper, text=text, example=example)


def _softlog() -> tuple[str, str]:
    """What the function says that has softlog's formula."""
    from fewstep.schedules.rules import softlog_levels

    known = described_function(softlog_levels)
    return known.summary, known.text


def _guidance() -> Iterator[Entry]:
    for kind, kinds in (("source", SOURCES), ("modifier", MODIFIERS)):
        for name in kinds:
            known = described_class(*kinds.place(name))
            model, needs = MODELS.get(name, ("", ""))
            written = [key for key in known.defaults if key not in (model, *_UNWRITTEN)]
            options = _options(known, written)
            values = ",".join(_VALUES[o.name] for o in options if o.default is REQUIRED)
            text = f"{name}:{values}" if values else name
            text = text if kind == "source" else f"cfg:3|{text}"
            yield Entry(
                kind, name, known.summary, f"fewstep.guidance.{kinds.place(name)[1]}", options,
                needs=needs, paper=_paper(known.doc) or _paper(known.module_doc), text=known.text,
                example=f'fewstep sample --nfe 8 --guidance "{text}"',
            )  # fmt: skip


def _options(known: Described, names: list[str]) -> tuple[Option, ...]:
    meanings, names = known.meanings(), sorted(names, key="site".__eq__)  # the last to be wanted
    return tuple(Option.of(n, known.defaults[n], meanings.get(n, "")) for n in names)


def _paper(text: str) -> str:
    """The first arXiv number of a text."""
    found = re.search(r"arXiv:\d{4}\.\d{5}", text)
    return plain(found.group()) if found else ""
