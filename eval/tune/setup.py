"""What a tuning begins with: the model under its guidance, noises, and what the file will say."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewstep.eval.common.folders import check_writable
from fewstep.eval.common.keys import checked_field
from fewstep.eval.common.processes import resolve_device
from fewstep.eval.problems import Problem, load_problem
from fewstep.eval.problems.guides import WrittenGuidance, read_guidance
from fewstep.eval.tune.feature_space import load_features
from fewstep.eval.tune.featured import Featured
from fewstep.eval.tune.settings import TuneSettings
from fewstep.eval.tune.teachers import Split, split_noises
from fewstep.samplers.adapter.process_config import scheduler_config
from fewstep.types import Denoiser


@dataclass(frozen=True)
class Setup:
    """What was read and checked before anything is sampled.

    Attributes:
        settings: what was asked for.
        problem: the model.
        guidance: as it was written, and what it is.
        breakpoints: ratios where it is switched on or off.
        denoiser: the model under it.
        splits: noises and labels by purpose.
        config: of a scheduler for the model; None if none has its noise process.
        prediction_type: what that scheduler takes the network's output for.
        featured: the objective, if it is of features.
    """

    settings: TuneSettings
    problem: Problem
    guidance: WrittenGuidance
    breakpoints: tuple[float, ...]
    denoiser: Denoiser
    splits: Mapping[str, Split]
    config: dict[str, Any] | None
    prediction_type: str
    featured: Featured | None

    @classmethod
    def of(cls, settings: TuneSettings) -> "Setup":
        """Reads and checks all of it.

        Raises:
            ValueError: in one line, for what is not there, does not fit or cannot be written.
            FileNotFoundError: for weights or prompts that are missing.
        """
        device = resolve_device(settings.device)
        problem = load_problem(
            settings.problem, device, prompts=settings.prompts, dtype=settings.dtype
        )
        guidance = read_guidance(settings.guidance, problem)
        breakpoints = _tunable(guidance)
        featured = None
        if settings.objective != "sample":
            featured = Featured(settings.objective, load_features(settings.features, problem))
        kind = prediction_type(problem)
        config = _config(problem, kind, settings.out)
        if settings.out is not None:
            single = settings.out.suffix.lower() == ".json"
            check_writable(settings.out.absolute().parent if single else settings.out)
        counts = dict(zip(("tune", "select", "report"), settings.counts(problem), strict=True))
        return cls(
            settings, problem, guidance, breakpoints, guided(problem, guidance),
            split_noises(problem, settings.seed, counts), config, kind, featured,
        )  # fmt: skip


def guided(problem: Problem, guidance: WrittenGuidance) -> Denoiser:
    """The denoiser of a problem under guidance."""
    expression = guidance.expression
    return problem.denoiser if expression is None else expression.wrap(problem.denoiser)


def prediction_type(problem: Problem) -> str:
    """What the network predicts; ``sample`` where a model hands out the data prediction itself."""
    inner = getattr(problem.denoiser, "_inner", problem.denoiser)  # of prompts
    return str(getattr(inner, "prediction_type", "sample"))


def _tunable(guidance: WrittenGuidance) -> tuple[float, ...]:
    try:
        return checked_field(guidance.expression)
    except ValueError as error:
        raise ValueError(
            f"nothing can be tuned under guidance {guidance.text!r}: {error}"
        ) from error


def _config(problem: Problem, kind: str, out: Path | None) -> dict[str, Any] | None:
    """The scheduler's config; None for a process that no config has, which a file can do without.

    Raises:
        ValueError: if a folder is to be written all the same.
    """
    try:
        return scheduler_config(problem.process, kind)
    except ValueError as error:
        if out is None or out.suffix.lower() == ".json":
            return None
        raise ValueError(
            f"no scheduler has the noise process of {problem.name!r}, so that it cannot have a "
            "folder: name a .json file"
        ) from error
