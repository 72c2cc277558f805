"""Generates images into a folder, on any number of processes, and goes on after a crash.

    run = Generation(load_problem("fashion"), "unipc", 8, range(50_000))
    generate_images(run, "runs/unipc-8")

On several processes, started by torchrun or accelerate, the same lines do the same: rank r of w
takes the units r, r + w, r + 2w ... and waits for nobody. What is finished is found by its
checksum, so a run may be stopped in any way and started again with any number of processes.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fewstep.eval.common.clock import Clock, peak_memory
from fewstep.eval.common.processes import launched
from fewstep.eval.generate.recipe import Recipe
from fewstep.eval.generate.shards import ShardFolder, UnitRecord
from fewstep.eval.generate.units import Generation, Unit
from fewstep.eval.metrics.moments import ExactMoments

# A file of 2048 features' sums takes 32 MiB, and 0.1 s; this is one in thousands of images.
CHECKPOINT_UNITS = 50
Progress = Callable[[int, int], None]  # (units done, units in total), of this rank


@dataclass(frozen=True)
class Summary:
    """What one rank did, or all.

    Attributes:
        made: units that were sampled.
        reused: units of theirs that were there already.
        damaged: files that were there but not sound, and why; their units were made again.
    """

    made: int
    reused: int
    damaged: list[str]

    @classmethod
    def of_all(cls, parts: Sequence["Summary"]) -> "Summary":
        """Of all ranks; two may have found the same damaged file of sums."""
        damaged = dict.fromkeys(text for part in parts for text in part.damaged)
        return cls(sum(p.made for p in parts), sum(p.reused for p in parts), list(damaged))

    def __str__(self) -> str:
        files = f", {len(self.damaged)} damaged file{'s' * (len(self.damaged) > 1)} made again"
        return f"reused {self.reused} units, made {self.made}{files if self.damaged else ''}"


def generate_images(
    run: Generation,
    folder: str | Path,
    *,
    rank: int | None = None,
    world: int | None = None,
    checkpoint_units: int = CHECKPOINT_UNITS,
    progress: Progress | None = None,
    recipe: Recipe | None = None,
) -> Summary:
    """Generates this rank's units that the folder does not hold yet.

    All processes that are at work in a folder must agree on ``world``. Others may still be when
    this returns: :func:`~fewstep.eval.generate.verification.verify` tells whether all is there.

    Args:
        run: what to generate.
        folder: where to; made if needed.
        rank, world: this process and their number; from torch.distributed, accelerate or torchrun's
            environment if None, else 0 of 1.
        checkpoint_units: with ``keep="none"``, units between two copies of the sums on disk, >= 1;
            a crash loses at most as many. Otherwise it loses one.
        progress: told how far this rank is.
        recipe: what the run was made of, for ``run_from_folder``; found out, as far as it can be,
            if None.

    Raises:
        ValueError: if the folder holds samples of other settings, with a line for each difference;
            if another process of this rank is at work in it; for a rank outside its world.
    """
    rank, world = rank_and_world(rank, world)
    if checkpoint_units < 1:
        raise ValueError(f"checkpoint_units must be at least 1, got {checkpoint_units}")
    shards = ShardFolder(folder)
    shards.claim(run.config, (recipe or Recipe.of(run)).options())
    own = range(rank, run.units, world)
    with shards.locked(rank):
        finished = shards.finished(own)
        done = finished.records.keys() & set(own)
        todo = [unit for unit in own if unit not in done]

        def tell(made: int) -> None:
            if progress is not None:
                progress(len(done) + made, len(own))

        tell(0)
        writer = make_writer(run, shards, rank, checkpoint_units)
        saving = generate_units(run, todo, writer, tell)
        summary = Summary(len(todo), len(done), finished.damaged)
        shards.note(rank, _facts(run, world, summary, saving))
    return summary


def generate_units(
    run: Generation,
    units: Iterable[int],
    writer: "UnitWriter",
    progress: Callable[[int], None] = lambda made: None,
) -> float:
    """Generates units in the order given, and returns the seconds that saving them took.

    What was finished is kept if one of them fails.
    """
    clock = Clock()
    try:
        for made, number in enumerate(units, 1):
            unit = run.make(number)
            with clock.phase("save"):
                record = UnitRecord(
                    number, unit.pixels, len(unit.images), unit.calls, unit.network_rows,
                    unit.seconds,
                )  # fmt: skip
                writer.add(record, unit)
            progress(made)
    finally:
        with clock.phase("save"):
            writer.close()
    return clock.seconds()["save"]


def _facts(run: Generation, world: int, summary: Summary, saving: float) -> dict[str, Any]:
    return {
        "world": world, "made": summary.made, "reused": summary.reused,
        "damaged": summary.damaged, "save_seconds": round(saving, 6),
        "peak_memory": peak_memory(run.problem.device),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip


class UnitWriter:
    """Keeps each unit in a file of its own."""

    def __init__(self, run: Generation, shards: ShardFolder, rank: int) -> None:
        self.run, self.shards, self.rank = run, shards, rank

    def add(self, record: UnitRecord, unit: Unit) -> None:
        """Takes in a finished unit."""
        name = f"unit-{record.unit:06d}.safetensors"
        self.shards.commit(self.rank, name, unit.kept(self.run.keep), [record])

    def close(self) -> None:
        """Writes what is still in memory."""


class SumsWriter(UnitWriter):
    """Keeps the exact sums over the units of one start of a rank, in a file that grows.

    Integers add up to the same in any order, so that all files together give what one process
    gives. Files of earlier starts stay as they are: another rank may be reading them.

    Args:
        run, shards, rank: as above.
        every: units between two copies on disk.
    """

    def __init__(self, run: Generation, shards: ShardFolder, rank: int, every: int) -> None:
        super().__init__(run, shards, rank)
        self._every, self._new = every, 0
        self._records: list[UnitRecord] = []
        self._sums: ExactMoments | None = None
        self._file: str | None = None

    def add(self, record: UnitRecord, unit: Unit) -> None:
        extractor, features = self.run.extractor, unit.features
        assert extractor is not None  # Generation sees to it
        assert features is not None
        if self._sums is None:
            self._sums = ExactMoments(features.shape[1], extractor.scale, extractor.bound)
        self._sums.add(features)
        self._records.append(record)
        self._new += 1
        if self._new == self._every:
            self.close()

    def close(self) -> None:
        if self._sums is None or not self._new:
            return
        last = max(record.unit for record in self._records)
        name = f"sums-{self.rank}-{len(self._records)}-{last:06d}.safetensors"
        self.shards.commit(self.rank, name, self._sums.state(), self._records)
        if self._file is not None:
            (self.shards.path / self._file).unlink(missing_ok=True)
        self._file, self._new = name, 0


def make_writer(
    run: Generation, shards: ShardFolder, rank: int, checkpoint_units: int = CHECKPOINT_UNITS
) -> UnitWriter:
    """The writer for what the run keeps."""
    if run.keep == "none":
        return SumsWriter(run, shards, rank, checkpoint_units)
    return UnitWriter(run, shards, rank)


def rank_and_world(rank: int | None = None, world: int | None = None) -> tuple[int, int]:
    """This process's number and how many there are, found out if not given.

    Raises:
        ValueError: if only one is given, or the rank is not in 0 .. world - 1.
    """
    if (rank is None) != (world is None):
        raise ValueError(f"rank and world go together, got rank={rank} and world={world}")
    if rank is None or world is None:
        rank, world = launched()
    if not 0 <= rank < world:
        raise ValueError(f"rank must be in 0 .. world - 1, got rank={rank} and world={world}")
    return rank, world
