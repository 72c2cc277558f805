"""What a generation will take: calls, disk, memory and time, from one unit that is thrown away."""

import math
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

from fewstep.eval.amounts import bytes_text, seconds_text
from fewstep.eval.clock import peak_memory
from fewstep.eval.generate.generation import CHECKPOINT_UNITS
from fewstep.eval.generate.shards import CONFIG, ShardFolder
from fewstep.eval.generate.units import Generation, Unit

# A unit that takes longer is not made whole: one sample tells about how long it would take.
PATIENCE = 60.0
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
        rows: of those calls, for a sample.
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
        how = "from one unit" if self.whole else "at most, from one sample at a time"
        many = f" on {self.world} processes" if self.world > 1 else ""
        return [
            f"samples: {self.samples} in {self.units} units, {self.there} of them there",
            f"network: {self.calls} calls, {self.rows:g} rows a sample",
            f"disk: {bytes_text(self.disk)}, {bytes_text(shutil.disk_usage(there).free)} free",
            f"memory: {bytes_text(self.memory)} a process",
            f"time: {seconds_text(self.seconds)}{many} ({how})",
        ]


def estimate(run: Generation, folder: str | Path, world: int = 1) -> Estimate:
    """Makes one unit, and nothing else.

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
    unit, seconds, whole = _timed(run)
    rows = unit.network_rows / (run.unit_size if whole else 1)
    left = math.ceil((units - there) / world)
    return Estimate(
        len(run.seeds), units, there, unit.calls, rows, _disk(run, world),
        peak_memory(run.problem.device), left * seconds, world, whole,
    )  # fmt: skip


def _timed(run: Generation) -> tuple[Unit, float, bool]:
    """A unit, the seconds of one as large as the run's, and whether it is one."""
    first = replace(run, seeds=run.seeds[:1], unit_size=1)
    first.make(0)  # warm-up
    unit, seconds = _stopped(first)
    if seconds * run.unit_size > PATIENCE:
        return unit, seconds * run.unit_size, False
    return *_stopped(run), True


def _stopped(run: Generation) -> tuple[Unit, float]:
    begun = time.perf_counter()
    unit = run.make(0)  # its results are on the CPU, so the device is done
    return unit, time.perf_counter() - begun


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
