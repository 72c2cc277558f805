"""How a problem is loaded by name: bundled, a pipeline of diffusers, or what Python code makes."""

import inspect
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import torch
from torch import nn

from fewstep.checks import fits, named
from fewstep.eval.problems.fingerprints import (
    WEIGHTS,
    fingerprint_of,
    model_fingerprint,
    own_code,
    written,
)
from fewstep.eval.problems.pipelines import pipeline_problem
from fewstep.eval.problems.problem import Problem
from fewstep.eval.problems.registry import FORMS, PROBLEMS, ProblemDtype
from fewstep.eval.problems.user_code import imported, told_of
from fewstep.samplers.sampling import given

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in get_args(ProblemDtype)}
# Attributes of the denoisers of fewstep.models that change what they return.
SETTINGS = ("prediction_type", "time_scale", "passes", "uncond", "null_class")
RETURNS = "a Problem, or a denoiser with .process and .shape"


def load_problem(
    name: str,
    device: str = "cpu",
    *,
    prompts: Path | None = None,
    dtype: str = "float32",
) -> Problem:
    """A problem, its denoiser on ``device``.

    Prompts act as classes: of K, label i is prompt i, and the null class is the empty prompt, so
    guidance and the choice of labels work as for classes.

    Args:
        name: a key of ``PROBLEMS``; a diffusers pipeline, as a folder or as a hub id "org/name";
            ``module:attribute`` or ``path/file.py:attribute``, which is a problem, or a function
            that returns one and takes nothing, or a ``device``.
        device: a torch device.
        prompts: a text file, one a line, for text-to-image pipelines.
        dtype: of a pipeline's network, ``float32``, ``float16`` or ``bfloat16``; sampling stays in
            float32.

    Raises:
        ValueError: for an unknown name, or one that cannot be loaded, in one line.
        FileNotFoundError: if the bundled weights are missing, or the prompts.
    """
    if not isinstance(name, str | Path):
        raise TypeError(f"name must be that of a problem, as 'fashion', got {named(name)}")
    name = str(name)
    given.check_place(device, None)
    if name not in PROBLEMS:
        return load_other(name, device, prompts, dtype)
    refuse_settings(name, prompts, dtype)
    return PROBLEMS[name](name, device)


def load_other(name: str, device: str, prompts: Path | None, dtype: str) -> Problem:
    """What ``load_problem`` loads beside the bundled problems.

    Raises:
        ValueError: if it cannot be had, in one line.
        FileNotFoundError: if there are no prompts at their path.
    """
    folder = Path(name).is_dir()
    if not folder and all(name.rpartition(":")):
        refuse_settings(name, prompts, dtype)
        return imported_problem(name, device)
    if folder or (HUB_ID.fullmatch(name) and not name.endswith(".py")):
        if dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
        return pipeline_problem(name, device, prompts, DTYPES[dtype])
    if name.endswith(".py"):
        raise ValueError(f"name what is to be taken from {name}: {name}:ATTRIBUTE, {RETURNS}")
    raise ValueError(f"unknown problem {name!r}; known: {', '.join(PROBLEMS)}; or {FORMS}")


def refuse_settings(name: str, prompts: Path | None, dtype: str) -> None:
    """Raises ValueError for settings that only pipelines have."""
    if prompts is not None:
        raise ValueError(
            f"{name} takes no prompts, only text-to-image pipelines do; leave them out"
        )
    if dtype != "float32":
        raise ValueError(
            f"{name} decides on its own dtype, only pipelines take one, got {dtype}; leave it out"
        )


def imported_problem(name: str, device: str) -> Problem:
    """The problem that ``module:attribute`` or ``path/file.py:attribute`` names.

    It is a problem, a denoiser with ``.process`` and ``.shape``, or a function that returns one of
    them and takes nothing, or a ``device``. Modules are looked for where Python finds them and in
    the working directory; beside a file, the files of its folder can be imported.

    Raises:
        ValueError: if there is no such thing, if it is something else, on another device, or the
            code fails; the message names the exception.
    """
    with imported(name) as (module, attribute):
        place = name.rpartition(":")[0]
        if not hasattr(module, attribute):
            raise ValueError(f"{name}: {place} has no attribute {attribute!r}; name {RETURNS}")
        made = _problem(name, _made(name, getattr(module, attribute), device), device)
        return _with_code(made, module)


def _with_code(problem: Problem, module: ModuleType) -> Problem:
    """A problem that is known by its code, too: the named file, and its own behind the model.

    It is read now, so that an edit in the middle of a run does not count as the model of the run.
    """
    given = problem.parts or {"fingerprint": problem.fingerprint}
    used = (problem.denoiser, problem.decode, *problem.models.values())
    parts = {**given, **own_code(*used, beside=[module])}
    return replace(problem, fingerprint=fingerprint_of(parts), parts=parts)


def _made(name: str, found: Any, device: str) -> Any:
    """What a function returns; anything else is taken as it is."""
    if isinstance(found, Problem) or _is_denoiser(found) or not callable(found):
        return found
    try:
        parameters = inspect.signature(found).parameters
        arguments = {"device": device} if "device" in parameters else {}
        inspect.signature(found).bind(**arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} cannot be called ({error}); it may take device, and must need nothing else"
        ) from error
    with told_of(name, "calling it"):
        return found(**arguments)


def _is_denoiser(found: Any) -> bool:
    return not isinstance(found, type) and hasattr(found, "process") and hasattr(found, "shape")


def _problem(name: str, found: Any, device: str) -> Problem:
    if isinstance(found, Problem):
        problem = found
        _check_sizes(name, problem.shape, problem.num_classes)
    else:
        if not _is_denoiser(found):
            made = not isinstance(found, type) and hasattr(found, "process")
            lacks = " without .shape" if made else ""
            raise ValueError(
                f"{name} must be, or return, {RETURNS}, got {type(found).__name__}{lacks}; wrap a "
                "network in DiffusersDenoiser, EDMDenoiser or CallableDenoiser of fewstep.models, "
                "and give it .shape, that of one sample"
            )
        problem = _of_denoiser(name, found, device)
    if torch.device(problem.device) != torch.device(device):
        raise ValueError(
            f"{name} is on device {problem.device!r}, and {device!r} was asked for; make it a "
            "function that takes device, or choose that device"
        )
    return problem


def _check_sizes(name: str, shape: Any, num_classes: Any) -> None:
    """Raises ValueError unless they are a shape and a number, before they fail somewhere else."""
    sizes = fits(shape, Sequence[int]) and len(shape) > 0
    if not sizes or min(shape) < 1:
        raise ValueError(
            f".shape of {name} must be that of one sample, whole numbers of at least 1 such as "
            f"(1, 28, 28), got {shape!r:.60}"
        )
    if not fits(num_classes, int) or num_classes < 0:
        raise ValueError(
            f".num_classes of {name} must be a whole number, 0 or None without classes, got "
            f"{num_classes!r:.60}"
        )


def _of_denoiser(name: str, denoiser: Any, device: str) -> Problem:
    network = getattr(denoiser, "network", None)
    if not isinstance(network, nn.Module):
        raise ValueError(
            f"{name} has no .network, a torch module, by whose weights its results could be told "
            "from others; return a Problem with a fingerprint"
        )
    known = {key: getattr(denoiser, key) for key in SETTINGS if hasattr(denoiser, key)}
    weights = model_fingerprint({"network": network}, type(denoiser).__name__, written(known))
    count = getattr(denoiser, "num_classes", None) or 0
    _check_sizes(name, denoiser.shape, count)
    shape = tuple(int(size) for size in denoiser.shape)
    return Problem(
        name, denoiser, shape, weights, count, exact=False, device=device,
        parts={WEIGHTS: weights},
    )  # fmt: skip
