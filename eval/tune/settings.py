"""The settings of ``fewstep tune``, and what follows from them and a problem."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import torch

from fewstep.checks import Checked
from fewstep.eval.common.limits import MAX_MINUTES, MAX_NOISES, MAX_TUNED_CALLS, check_seed
from fewstep.eval.common.paths import check_folder_name
from fewstep.eval.problems import Problem
from fewstep.eval.tune.feature_space import BUNDLED, Kind
from fewstep.samplers.tuning import optimise
from fewstep.samplers.tuning.family import Free
from fewstep.samplers.tuning.polish import BATCH
from fewstep.schedules.limits import at_most

# name -> what is tuned; behind a colon a way to choose the nodes.
FAMILIES = {
    "tied": "nodes, and coefficients that are exact for constant data",
    "coefficients": "those coefficients alone",
    "least-squares": "those coefficients in closed form, step by step",
    "grid": "nodes alone, with the solver rebuilt on them",
    "grid:klub=P": "nodes among fine ones, by KLUB(P) of Align Your Steps",
    "grid:gits=G": "nodes among fine ones, by GITS with discount G",
    "grid:teacher=K": "nodes among fine ones, by the errors of single jumps of order K",
    "grid:search": "nodes among fine ones, by running the solver beside a teacher",
    "compensation": "DC-Solver's ratios",
    "epsilon": "a divisor of the noise for each step, on a line (Epsilon Scaling)",
}
NUMBERED = {"klub": "1", "gits": "1.0", "teacher": "2"}  # searches with a number, its usual value
NUMBER_RANGES = {"klub": "above -1", "gits": "above 0", "teacher": "1, 2, 3 or 4"}
TIED = ("tied", "coefficients", "least-squares", "grid")  # families that may start at a landing
FEATURED = ("tied", "coefficients")  # those that may be tuned in features
EXACT_NOISES, NETWORK_NOISES = (1024, 2048, 4096), (64, 64, 96)
FITTED_EXACT, FITTED_NETWORK = 4096, 512  # samples that a Gaussian is fitted to
CPU_ELEMENTS, GPU_ELEMENTS = 2**18, 2**19  # of the samples in a network call: 334, 668 of 28x28
BAND_FROM, BAND = 8, 3  # from so many calls on a network's steps look back at as much as ipndm


@dataclass(frozen=True)
class TuneSettings(Checked):
    """What to tune, and with what.

    Args:
        problem: a model, as ``fewstep.eval.problems.load_problem`` reads it.
        nfe: network calls of the sampler, 1 to 100.
        guidance: one text, as ``parse_guidance`` reads it.
        family: of :data:`FAMILIES`.
        objective: what is compared with the teacher: ``sample``, ``features`` or ``both``.
        features: of the objective, as ``fewstep.eval.tune.feature_space.load_features`` reads it.
        minutes: of teacher and tuning together, after which no step of the tuning begins; a quarter
            of them is for the tuning in any case. The report comes behind.
        seed: of noises and labels, >= 0.
        noises: how many to tune, to select and to report on, each >= 2; None for 1,024, 2,048 and
            4,096 of an exact problem, and 64, 64 and 96 of a network.
        teleport: whether starts by the jump of a Gaussian are tried; None if ``out`` can hold one.
        prompts: a file of texts, one a line, for a model that takes text.
        dtype: of a pipeline's network: ``float32``, ``float16``, ``bfloat16``.
        device: a torch device, or ``auto``: CUDA where there is one.
        out: a ``.json`` file or a folder to write to; None for nothing.

    Raises:
        ValueError: for a value outside these.
    """

    problem: str = "fashion"
    nfe: int = 5
    guidance: str = "none"
    family: str = "tied"
    objective: Kind = "sample"
    features: str = BUNDLED
    minutes: float = 8.0
    seed: int = 0
    noises: Sequence[int] | None = None
    teleport: bool | None = None
    prompts: Path | None = None
    dtype: str = "float32"
    device: str = "auto"
    out: Path | None = None

    def __post_init__(self) -> None:
        if self.nfe < 1:
            raise ValueError(f"nfe must be at least 1 call, got {self.nfe}")
        if not self.minutes > 0 or math.isinf(self.minutes):
            raise ValueError(f"minutes must be a number above 0, got {self.minutes}")
        at_most("nfe, the calls of a table to tune,", self.nfe, MAX_TUNED_CALLS)
        if self.minutes > MAX_MINUTES:
            raise ValueError(f"minutes must be at most {MAX_MINUTES:,g}, got {self.minutes:g}")
        check_seed(self.seed)
        at_most("noises", max(self.noises or (0,)), MAX_NOISES)
        if self.noises is not None and (len(self.noises) != 3 or min(self.noises) < 2):
            raise ValueError(
                "noises are three numbers of at least 2, to tune, to select and to report on, as "
                f"in 1024,2048,4096; got {','.join(map(str, self.noises))}"
            )
        if not self.guidance.strip() or ";" in self.guidance:
            raise ValueError(
                f"a table is tuned under one guidance, as none or cfg:3, got {self.guidance!r}"
            )
        parse_family(self.family)
        if self.objective not in get_args(Kind):
            raise ValueError(
                f"objective must be one of {', '.join(get_args(Kind))}, got {self.objective!r}"
            )
        if self.objective == "sample" and self.features != BUNDLED:
            raise ValueError(
                f"features ({self.features}) are of another objective than samples: leave out "
                "--features, or add --objective features"
            )
        if self.objective != "sample" and self.family not in FEATURED:
            raise ValueError(
                f"the family {self.family!r} is tuned on errors of samples, not of "
                f"{self.objective}: leave out --objective, or take {' or '.join(FEATURED)}"
            )
        if self.teleport and self.family not in TIED:
            raise ValueError(
                f"no start of the family {self.family!r} comes from a Gaussian: leave out "
                f"--teleport, or take one of {', '.join(TIED)}"
            )
        _check_path(self.out, bool(self.teleport))

    @property
    def lands(self) -> bool:
        """Whether starts by the jump of a Gaussian are tried."""
        if self.teleport is None:
            return self.family in TIED and not (self.out is not None and _is_file(self.out))
        return self.teleport

    def counts(self, problem: Problem) -> tuple[int, int, int]:
        """How many noises to tune, to select and to report on."""
        if self.noises is not None:
            tune, select, report = self.noises
            return tune, select, report
        return EXACT_NOISES if problem.exact else NETWORK_NOISES

    def search(self, problem: Problem) -> optimise.Settings:
        """How tables are tuned on a problem: all of an exact one, as much as pays of a network."""
        kind, _ = parse_family(self.family)
        frees: dict[str, Free] = {"grid": "grid", "coefficients": "coefficients"}
        settings = optimise.Settings(
            free=frees.get(kind, "both"), minutes=self.minutes, batch=batch_of(problem),
            steps=0 if kind == "least-squares" else 40,
        )  # fmt: skip
        if problem.exact:
            return settings
        band = BAND if self.nfe >= BAND_FROM else None
        return replace(settings, starts=2, scan=16, band=band)


def batch_of(problem: Problem) -> int:
    """Samples in a network call, of bounded memory."""
    elements = CPU_ELEMENTS if torch.device(problem.device).type == "cpu" else GPU_ELEMENTS
    # A mixture of 4,000 images takes 32 kB a sample.
    return max(1, min(BATCH, (8 if problem.exact else 1) * elements // math.prod(problem.shape)))


def parse_family(text: str) -> tuple[str, float]:
    """The family or the search of nodes that a text names, and the number of the search, or 0.

    Raises:
        ValueError: for another text.
    """
    name, _, way = text.partition(":")
    kind, _, number = way.partition("=")
    if text in FAMILIES and "=" not in text:
        return way or name, 0.0
    if name == "grid" and kind in NUMBERED:
        try:
            value = float(number or NUMBERED[kind])
        except ValueError:
            value = math.nan
        allowed = {"klub": value > -1, "gits": value > 0, "teacher": value in (1, 2, 3, 4)}
        if not allowed[kind] or math.isinf(value):
            raise ValueError(
                f"{text!r} takes a number ({NUMBER_RANGES[kind]}), as in grid:{kind}="
                f"{NUMBERED[kind]}"
            )
        return kind, value
    raise ValueError(f"unknown family {text!r}; known: {', '.join(FAMILIES)}")


def _is_file(out: Path) -> bool:
    return out.suffix.lower() == ".json"


def _check_path(out: Path | None, teleport: bool) -> None:
    if out is None:
        return
    if _is_file(out) and teleport:
        raise ValueError(
            f"a start by a Gaussian is kept in a folder, and {out} is a file: name a folder, or "
            "leave out --teleport"
        )
    if not _is_file(out):
        check_folder_name(out, "--out", ".json")
    elif out.is_dir():
        raise ValueError(f"{out} is a folder: name a .json file or a folder of another name")
