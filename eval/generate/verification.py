"""Whether a folder of generated samples is whole, and whether it can be made again."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep.eval.common.cache import digest
from fewstep.eval.generate.generation import Progress
from fewstep.eval.generate.seeds import read_seeds
from fewstep.eval.generate.shards import Finished, Piece, ShardFolder, UnitRecord, config_hash
from fewstep.eval.generate.units import Generation, pixel_hash


@dataclass(frozen=True)
class Verification:
    """What was found.

    Attributes:
        config_sha256: of the settings.
        records: finished units by number, in order.
        missing: units that are not there.
        damaged: files that are not sound, and why.
        recomputed: units that were made again.
        differing: those of them that came out otherwise.
    """

    config_sha256: str
    records: dict[int, UnitRecord]
    missing: list[int]
    damaged: list[str]
    recomputed: list[int]
    differing: list[int]

    @property
    def ok(self) -> bool:
        """Whether the folder is complete, and what was made again was the same."""
        return not self.missing and not self.differing

    @property
    def hash(self) -> str | None:
        """SHA-256 over images and labels of all units in order, whatever of them is kept.

        None unless the folder is complete.
        """
        if self.missing:
            return None
        return digest([record.pixels for record in self.records.values()])

    @property
    def rows(self) -> int:
        """Samples that are there."""
        return sum(record.rows for record in self.records.values())

    @property
    def seconds_by(self) -> dict[str, float]:
        """Of making the units, over all ranks and starts, by phase."""
        total: dict[str, float] = {}
        for record in self.records.values():
            for phase, seconds in record.seconds.items():
                total[phase] = total.get(phase, 0.0) + seconds
        return total

    @property
    def seconds(self) -> float:
        """The same in all."""
        return sum(self.seconds_by.values())


def verify(
    folder: str | Path,
    *,
    recompute: int = 0,
    run: Generation | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Verification:
    """Reads every file of a folder and checks it against its checksum, and images themselves.

    Without images, their hashes are those that the journal has; ``recompute`` checks these too.

    Args:
        folder: where samples were generated.
        recompute: how many finished units to make again, chosen at random.
        run: what was generated; needed for ``recompute``.
        seed: of that choice.
        progress: told how many units were made again, and of how many.

    Raises:
        FileNotFoundError: if nothing was generated there.
        ValueError: if ``run`` is not what was generated there, or is missing.
    """
    if recompute and run is None:
        raise ValueError("recompute needs run=, the Generation to make units with")
    shards = ShardFolder(folder)
    config = shards.config()
    if run is not None:
        shards.check(run.config)
    expected = range(units_of(config))
    finished = _with_sound_images(shards, shards.finished(expected))
    records, chosen, differing = finished.records, list[int](), list[int]()
    if run is not None and recompute:
        generator = np.random.default_rng(seed)
        count = min(recompute, len(records))
        chosen = sorted(generator.choice(list(records), count, replace=False).tolist())
        for done, unit in enumerate(chosen):
            if progress is not None:
                progress(done, len(chosen))
            if _differs(shards, finished, run, unit):
                differing.append(unit)
    missing = [unit for unit in expected if unit not in records]
    return Verification(config_hash(config), records, missing, finished.damaged, chosen, differing)


def units_of(config: dict[str, Any]) -> int:
    """How many units a run of these settings has."""
    return -(-len(read_seeds(config["seeds"])) // int(config["unit_size"]))


def complete(shards: ShardFolder) -> Finished:
    """All sound files.

    Raises:
        FileNotFoundError: if nothing was generated there.
        ValueError: if a unit is missing.
    """
    units = units_of(shards.config())
    finished = shards.finished(range(units))
    if len(finished.records) < units:
        raise ValueError(
            f"{shards.path} has {len(finished.records)} of {units} units; generate the rest first: "
            "the same call goes on where it ended"
        )
    return finished


def _with_sound_images(shards: ShardFolder, finished: Finished) -> Finished:
    """Without files whose images are not those of the journal."""
    sound, damaged = [], list(finished.damaged)
    for piece in finished.pieces:
        tensors = shards.load(piece)
        images, labels = tensors.get("images"), tensors.get("labels")
        if images is not None and pixel_hash(images, labels) != piece.units[0].pixels:
            damaged.append(f"{piece.file}: other images than the journal says")
        else:
            sound.append(piece)
    return Finished(sound, damaged)


def _differs(shards: ShardFolder, finished: Finished, run: Generation, number: int) -> bool:
    unit, record = run.make(number), finished.records[number]
    if unit.pixels != record.pixels:
        return True
    piece = next(piece for piece in finished.pieces if record in piece.units)
    return run.keep != "none" and not _equal(shards, piece, unit.kept(run.keep))


def _equal(shards: ShardFolder, piece: Piece, tensors: dict[str, Tensor]) -> bool:
    stored = shards.load(piece)
    return stored.keys() == tensors.keys() and all(
        torch.equal(stored[name], value) for name, value in tensors.items()
    )
