"""Small runs for the tests of generation, and processes that make them."""

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewstep.eval.bench import runner, units
from fewstep.eval.bench.setup import Bench
from fewstep.eval.generate.generation import generate_images
from fewstep.eval.generate.units import Generation
from fewstep.eval.networks.extractors import PixelExtractor
from fewstep.eval.problems import Problem
from fewstep.models.exact import MixtureDenoiser
from fewstep.schedules import discrete_vp
from fewstep.types import Level

SHAPE = (1, 4, 4)


class Blobs:
    """Ten tiny images in two classes, mixed with a little of what depends on the batch's size.

    Args:
        shape: of a sample.
        log: a file that is told of each run's first call, for counting what was begun.
        pause: seconds of a call.
    """

    def __init__(self, shape: tuple[int, ...], log: Path | None, pause: float) -> None:
        generator = torch.Generator().manual_seed(0)
        means = torch.rand(10, *shape, generator=generator, dtype=torch.float64) * 2 - 1
        self.process = discrete_vp("linear")
        self._inner = MixtureDenoiser(self.process, means, 0.1, labels=torch.arange(10) % 2)
        self._log, self._pause, self.num_classes = log, pause, 2

    def __call__(self, x: Tensor, level: Level, cond: Any = None) -> Tensor:
        # Before a run, guidance is tried out on two samples, which are four rows.
        if self._log is not None and level.index == 0 and len(x) > 4:
            with self._log.open("a") as file:
                file.write("begun\n")
        time.sleep(self._pause)
        # As a network's rounding does, only much more.
        return self._inner(x, level, cond) * (1 - 0.05 / len(x))

    def null_cond(self, cond: Tensor) -> Tensor:
        return self._inner.null_cond(cond)


def blobs(shape: tuple[int, ...] = SHAPE, log: Path | None = None, pause: float = 0.0) -> Problem:
    return Problem("blobs", Blobs(shape, log, pause), shape, "blobs-1", num_classes=2)


def small_run(n: int = 22, **changes: Any) -> Generation:
    """Of 22 samples in units of 4; a sampler and guidance that draw at every step."""
    run: dict[str, Any] = {
        "problem": blobs(), "sampler": "euler_a", "nfe": 3, "seeds": range(100, 100 + n),
        "guidance": "icg:1.4", "unit_size": 4,
    }  # fmt: skip
    return Generation(**{**run, **changes})


def logged_run(log: Path, keep: str) -> Generation:
    extractor = None if keep == "images" else PixelExtractor(SHAPE)
    return small_run(80, problem=blobs(log=log, pause=0.002), keep=keep, extractor=extractor)


# Eight batches of 8 through a reference and four samplers, each of about 0.02 s.
KILLED = Bench(problem="mix8", samplers=("ddim", "euler_a"), nfe=(5, 20), n=64, device="cpu")


def bench(out: Path, log: Path) -> None:
    """A benchmark in small units, each of them kept at once, as a process of its own runs it."""
    torch.set_num_threads(1)
    units.BATCH_ELEMENTS, runner.SAVE_SECONDS = 8 * 8, 0
    run = units.BatchRun._run

    def logged(self: Any, *arguments: Any) -> Any:
        with log.open("a") as file:
            file.write("begun\n")
        time.sleep(0.01)
        return run(self, *arguments)

    units.BatchRun._run = logged  # type: ignore[method-assign]
    runner.run_bench(KILLED, out)


def work(folder: Path, log: Path, keep: str, rank: int, world: int) -> None:
    """What a process of its own does."""
    torch.set_num_threads(1)
    generate_images(logged_run(log, keep), folder, rank=rank, world=world, checkpoint_units=1)
