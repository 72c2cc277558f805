"""The settings of a benchmark, and what it runs on."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import torch

import fewstep
from fewstep.eval.features import fd_floor
from fewstep.eval.problems import Problem
from fewstep.guidance import parse_guidance
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
        guidance: ``none`` or ``cfg:SCALE``.
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
    guidance: str = "none"
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
        parse_guidance(self.guidance)


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
    return replace(
        problem, denoiser=EDMDenoiser(net, denoiser.process, null_class=denoiser.null_class)
    )


def environment(bench: Bench, problem: Problem, reference: dict[str, float]) -> dict[str, Any]:
    """What a result depends on, and the scores of the reference and of real images."""
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
    if reference:
        env["reference"] = reference
        env["floor"] = {"fd_fashion": fd_floor(bench.n)}
    return env
