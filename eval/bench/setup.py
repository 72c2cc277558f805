"""The settings of a benchmark, and the facts that its results depend on."""

import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import fewstep
from fewstep.checks import Checked
from fewstep.eval.common.limits import MAX_SAMPLES, check_repeats, check_seed
from fewstep.eval.metrics.choices import EXACT, METRIC_CHOICES
from fewstep.eval.problems import Problem
from fewstep.eval.problems.guides import split_guidance
from fewstep.models.adapters import EDMDenoiser
from fewstep.samplers import DEFAULT_SPECS
from fewstep.schedules.limits import MAX_CALLS, at_most


@dataclass(frozen=True)
class Bench(Checked):
    """What to run.

    Args:
        problem: a model, as ``fewstep.eval.problems.load_problem`` reads it.
        samplers: specs, paths of saved plans, ``dopri5``, or ``all``.
        nfe: network calls, each 1 to 4,000; None for 5, 8, 10 and 20, and of a saved plan its own.
            With numbers, a plan must make one of them.
        n: samples, 2 to 10 million.
        seed: of the starting noise, >= 0.
        repeats: how often, with seeds ``seed``, ``seed + 1`` and so on, >= 1.
        guidance: as ``parse_guidance`` reads it, one text or several, or several in one separated
            by ``;``. Each sampler runs under each.
        metrics: what sets of images are scored by, of ``fd``, ``kid``, ``prdc``, ``sw2``,
            ``fd_infinity``; and ``exact`` for exact problems. What does not apply is left out.
        extractor: of the features of images, see ``load_extractor``; None for the bundled
            classifier where it applies, and else for no such scores.
        ref: statistics of real images, a file of ``fewstep ref``; None for the bundled ones.
        weights: of the extractor.
        prompts: a file of texts, one a line, for a model that takes text.
        dtype: of a pipeline's network: ``float32``, ``float16``, ``bfloat16``.
        peers: ``none`` or ``diffusers``.
        device: a torch device, or ``auto``: CUDA where there is one.
        compile: whether the network goes through ``torch.compile``.

    Raises:
        ValueError: for a value outside these.
    """

    problem: str = "fashion"
    samplers: Sequence[str] = DEFAULT_SPECS
    nfe: Sequence[int] | None = None
    n: int = 128
    seed: int = 0
    repeats: int = 1
    guidance: str | Sequence[str] = "none"
    metrics: Sequence[str] = ("fd",)
    extractor: str | None = None
    ref: str | None = None
    weights: Path | None = None
    prompts: Path | None = None
    dtype: str = "float32"
    peers: str = "none"
    device: str = "auto"
    compile: bool = False

    def __post_init__(self) -> None:
        if self.nfe is not None and (not self.nfe or min(self.nfe) < 1):
            raise ValueError(f"nfe must be at least 1, got {list(self.nfe)}")
        if self.n < 2:
            raise ValueError(f"n must be at least 2 samples, got {self.n}")
        at_most("nfe", max(self.nfe or (1,)), MAX_CALLS)
        at_most("n, the samples,", self.n, MAX_SAMPLES)
        check_seed(self.seed)
        check_repeats(self.repeats)
        if self.peers not in ("none", "diffusers"):
            raise ValueError(f"peers must be none or diffusers, got {self.peers!r}")
        if not any(text.strip("; ") for text in self.samplers):
            raise ValueError("samplers is empty; write unipc, or for example unipc;deis:order=2")
        if not split_guidance(self.guidance):
            raise ValueError("guidance is empty; write none, or for example cfg:3")
        known = (*METRIC_CHOICES, EXACT)
        if unknown := [name for name in self.metrics if name not in known]:
            raise ValueError(f"metrics must be of {', '.join(known)}, got {unknown[0]!r}")
        if self.extractor is not None and self.ref is None:
            raise ValueError(
                f"extractor {self.extractor!r} needs ref, the statistics of real images; "
                "`fewstep ref` makes them"
            )
        if self.weights is not None and self.extractor is None:
            raise ValueError(f"weights are of an extractor, and none was named; got {self.weights}")


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


def environment(bench: Bench, problem: Problem) -> dict[str, Any]:
    """What a result depends on."""
    env: dict[str, Any] = {
        "fewstep": fewstep.__version__,
        **{name: version(name) for name in ("torch", "diffusers", "numpy")},
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "device": problem.device,
        "threads": torch.get_num_threads(),
        "compile": bench.compile,
        "fingerprint": problem.fingerprint,
        **({"answers": problem.answers} if problem.answers else {}),
        # Units of one size give the same bits again on a CPU; CUDA's own kernels may not.
        "determinism": "bitwise" if torch.device(problem.device).type == "cpu" else "numeric",
    }
    if torch.device(problem.device).type == "cuda":
        env["device_name"] = torch.cuda.get_device_name(problem.device)
    if commit := _commit():
        env["commit"] = commit
    return env


def _commit() -> str | None:
    """The commit of a checkout of fewstep; None where it is installed from a wheel."""
    folder = Path(__file__).resolve().parent
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=folder, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None
