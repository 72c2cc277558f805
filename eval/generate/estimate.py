"""What a generation will take: calls, disk, memory and time, from a few calls of the network.

However many calls and samples are asked for, no more than two calls are made at each level where
guidance may be dearer than before, and the images of one unit are decoded.
"""

import math
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fewstep.eval.common.amounts import bytes_text, seconds_text
from fewstep.eval.common.clock import peak_memory
from fewstep.eval.common.image_sets import quantised
from fewstep.eval.generate.generation import CHECKPOINT_UNITS
from fewstep.eval.generate.shards import CONFIG, ShardFolder
from fewstep.eval.generate.units import Generation
from fewstep.eval.problems.guides import Meter
from fewstep.models.ode import level_at
from fewstep.schedules.breaks import within
from fewstep.types import Level

# Where the calls of a unit would take longer, those of one sample tell about how long.
PATIENCE = 20.0
# Bytes, measured: of a unit in the journal; of a file, there and in its header; of the settings.
RECORD, FILE, SETTINGS = 230, 370, 1500


@dataclass(frozen=True)
class Estimate:
    """What is left to do.

    Attributes:
        samples: of the whole run.
        units: of the whole run.
        there: units that are finished.
        calls: of the network, in a unit.
        rows: of those calls, for a sample; at most so many where guidance is switched on and off.
        disk: bytes of the whole run.
        memory: bytes that a process has held; on CUDA of the device.
        seconds: of the units that are left.
        world: processes among which they are shared out.
        whole: whether a whole unit was timed; else the time is that of one sample, times all.
    """

    samples: int
    units: int
    there: int
    calls: int
    rows: float
    disk: int
    memory: int
    seconds: float
    world: int
    whole: bool

    def lines(self, folder: Path) -> list[str]:
        """As text, with what is free where the folder will be."""
        there = folder.absolute()
        while not there.exists():
            there = there.parent
        how = "from calls of one unit" if self.whole else "at most, from calls of one sample"
        many = f" on {self.world} processes" if self.world > 1 else ""
        return [
            f"samples: {self.samples} in {self.units} units, {self.there} of them there",
            f"network: {self.calls} calls, {self.rows:g} rows a sample",
            f"disk: {bytes_text(self.disk)}, {bytes_text(shutil.disk_usage(there).free)} free",
            f"memory: {bytes_text(self.memory)} a process",
            f"time: {seconds_text(self.seconds)}{many} ({how})",
        ]


def estimate(run: Generation, folder: str | Path, world: int = 1) -> Estimate:
    """Makes a few calls, and nothing else.

    Args:
        run: what to generate.
        folder: where to; it may hold a part of it.
        world: processes.

    Raises:
        ValueError: if the folder holds samples of other settings.
    """
    there, units = 0, run.units
    if (Path(folder) / CONFIG).exists():
        shards = ShardFolder(folder)
        shards.check(run.config)
        there = len(shards.finished(range(units)).records)
    calls, rows = run.plan.calls, 1
    seconds, call_rows = _unit(run, rows)
    if whole := seconds / calls * run.unit_size <= PATIENCE:
        rows = run.unit_size
        seconds, call_rows = _unit(run, rows)
    left = math.ceil((units - there) / world)
    return Estimate(
        len(run.seeds), units, there, calls, calls * call_rows / rows, _disk(run, world),
        peak_memory(run.problem.device), left * seconds * run.unit_size / rows, world, whole,
    )  # fmt: skip


@torch.no_grad()
def _unit(run: Generation, count: int) -> tuple[float, int]:
    """Seconds of a unit of so many samples, by one call of each kind, and rows of the dearest."""
    problem = run.problem
    noise, guidance = problem.initial_noise(count, dtype=problem.dtype), run.expression
    breaks = () if guidance is None else guidance.breakpoints()
    inside = within((problem.process.rho_max, problem.process.rho_min), breaks)
    levels = [problem.start_level, *(level_at(problem.process, rho) for rho in inside)]
    seconds, rows = max((_call(run, noise, level) for level in levels), key=lambda call: call[1])
    begun = time.perf_counter()
    images = quantised(problem.images(noise / problem.start_scale).cpu())
    if run.extractor is not None:
        float(run.extractor(images).flatten()[0])
    return run.plan.calls * seconds + time.perf_counter() - begun, rows


def _call(run: Generation, noise: Tensor, level: Level) -> tuple[float, int]:
    """Seconds and rows of the second call; the first warms up, and some guidance waits for it."""
    seeds, meter = list(range(len(noise))), Meter(run.expression)
    labels = run.problem.labels(len(noise))
    guided, begun, before = meter.wrap(run.problem.denoiser, seeds), 0.0, 0
    for _ in range(2):
        begun, before = time.perf_counter(), meter.counters.rows
        float(guided(noise, level, labels).flatten()[0])  # the device has finished
    return time.perf_counter() - begun, meter.counters.rows - before


def _disk(run: Generation, world: int) -> int:
    dim = 0 if run.extractor is None else run.extractor.dim
    if run.keep == "none":
        # Each copy of a rank's sums takes the place of the last, and names all its units anew.
        copies = math.ceil(run.units / world / CHECKPOINT_UNITS)
        sums = 8 * (dim * dim + dim + 1) + FILE * copies
        return SETTINGS + world * sums + RECORD * run.units * (copies + 1) // 2
    pixels = math.prod(run.problem.image_shape) if run.keep == "images" else 0
    label = 8 if run.problem.num_classes else 0
    tensors = (pixels + label + 4 * dim) * len(run.seeds)
    return SETTINGS + tensors + (RECORD + FILE) * run.units
