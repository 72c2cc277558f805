"""The settings of a benchmark, and what it runs on."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import torch

import fewstep
from fewstep.eval.features import fd_floor
from fewstep.eval.guides import split_guidance
from fewstep.eval.problems import Problem
from fewstep.models.adapters import EDMDenoiser
from fewstep.samplers import DEFAULT_SPECS


@dataclass(frozen=True)
class Bench:
    """What to run.

    Args:
        problem: a name in ``fewstep.eval.problems.PROBLEMS``.
        samplers: specs, paths of saved plans, ``dopri5``, or ``all``.
        nfe: network calls, each >= 1.
        n: samples, >= 2.
        seed: of the starting noise.
        guidance: as ``parse_guidance`` reads it, one text or several, or several in one separated
            by ``;``. Each sampler runs under each.
        peers: ``none`` or ``diffusers``.
        device: a torch device, or ``auto``: CUDA where there is one.
        compile: whether the network goes through ``torch.compile``.

    Raises:
        ValueError: for a value outside these.
    """

    problem: str = "fashion"
    samplers: Sequence[str] = DEFAULT_SPECS
    nfe: Sequence[int] = (5, 8, 10, 20)
    n: int = 512
    seed: int = 0
    guidance: str | Sequence[str] = "none"
    peers: str = "none"
    device: str = "auto"
    compile: bool = False

    def __post_init__(self) -> None:
        if not self.nfe or min(self.nfe) < 1:
            raise ValueError(f"nfe must be at least 1, got {list(self.nfe)}")
        if self.n < 2:
            raise ValueError(f"n must be at least 2 samples, got {self.n}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
        if self.peers not in ("none", "diffusers"):
            raise ValueError(f"peers must be none or diffusers, got {self.peers!r}")
        if not split_guidance(self.guidance):
            raise ValueError("guidance is empty; write none, or for example cfg:3")


def resolve_device(name: str) -> str:
    """``auto`` as CUDA or the CPU.

    Raises:
        ValueError: if torch has no such device here.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} cannot be used ({reason}); try --device auto") from error
    return name


def compiled(problem: Problem) -> Problem:
    """The problem with its network compiled.

    Raises:
        ValueError: if it has no network.
    """
    denoiser = problem.denoiser
    if not isinstance(denoiser, EDMDenoiser):
        raise ValueError(f"problem {problem.name!r} has no network to compile; leave out --compile")
    net: Any = torch.compile(denoiser.net)
    wrapped = EDMDenoiser(
        net, denoiser.process, null_class=denoiser.null_class, num_classes=denoiser.num_classes
    )
    return replace(problem, denoiser=wrapped)


def environment(
    bench: Bench, problem: Problem, reference: dict[str, dict[str, float]], *, judged: bool
) -> dict[str, Any]:
    """What a result depends on, and the scores of the references and of real images.

    Args:
        bench, problem: what was run.
        reference: scores by guidance.
        judged: whether there are scores of images.
    """
    env: dict[str, Any] = {
        "fewstep": fewstep.__version__,
        **{name: version(name) for name in ("torch", "diffusers", "numpy")},
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "device": problem.device,
        "threads": torch.get_num_threads(),
        "compile": bench.compile,
        "fingerprint": problem.fingerprint,
    }
    if judged:
        env["reference"] = reference
        env["floor"] = {"fd_fashion": fd_floor(bench.n)}
    return env
