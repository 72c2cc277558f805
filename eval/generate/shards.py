"""A folder of files that survives a crash at any moment.

A file is written under a temporary name, forced to the disk and renamed; then a line of the rank's
journal says which units it holds, its length and its SHA-256. What has no line, or does not match
it, does not count. Each rank has its own journal, so lines of two processes cannot mix.
"""

import fcntl
import hashlib
import json
import platform
from collections.abc import Container, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from fewstep.eval.common.cache import digest
from fewstep.eval.common.differences import difference, differing
from fewstep.eval.common.durable import append_durably, write_durably

CONFIG = "config.json"
BARE = 2  # up to this format the checksum was of the settings alone


@dataclass(frozen=True)
class UnitRecord:
    """A finished unit.

    Attributes:
        unit: its number.
        pixels: SHA-256 of its images and labels.
        rows: its samples.
        calls: of the network.
        network_rows: rows of those calls, filling included.
        seconds: of making it, by phase.
    """

    unit: int
    pixels: str
    rows: int
    calls: int
    network_rows: int
    seconds: dict[str, float]


@dataclass(frozen=True)
class Piece:
    """A file, as its journal has it, and the finished units that it holds."""

    file: str
    size: int
    sha256: str
    units: tuple[UnitRecord, ...]


@dataclass(frozen=True)
class Finished:
    """What a folder holds.

    Attributes:
        pieces: sound files; no unit is in two of them.
        damaged: names of files that are not sound, whose units are in no other, and why.
    """

    pieces: list[Piece]
    damaged: list[str]

    @property
    def records(self) -> dict[int, UnitRecord]:
        """The finished units by number, in order."""
        found = {record.unit: record for piece in self.pieces for record in piece.units}
        return dict(sorted(found.items()))


class ShardFolder:
    """Files of finished units, their journals and the settings they were made with.

    Args:
        path: the folder; made by :meth:`claim`.

    Raises:
        ValueError: for an empty text, which would be the folder that we stand in.
    """

    def __init__(self, path: str | Path) -> None:
        if path == "":
            raise ValueError("got an empty text for a folder; name one, as in runs/mine")
        self.path = Path(path)

    def claim(self, config: dict[str, Any], options: dict[str, Any] | None = None) -> None:
        """Makes it the folder of these settings.

        Args:
            config: all that the content depends on, as JSON values.
            options: how to come by it again, if it can be told; kept of the first start.

        Raises:
            ValueError: if it holds files of others, with a line for each difference.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with self._lock("lock-config", fcntl.LOCK_EX):  # the other ranks wait
            if not (self.path / CONFIG).exists():
                self._write_config(config, options)
        self.check(config)

    def check(self, config: dict[str, Any]) -> None:
        """Raises ValueError if the folder's settings are others, or FileNotFoundError for none."""
        there, now = self.config(), json.loads(json.dumps(config))
        if differing(there, now):
            raise ValueError(difference(self.path, there, now))

    def config(self) -> dict[str, Any]:
        """The settings of the folder.

        Raises:
            FileNotFoundError: if nothing was generated here.
            ValueError: if the file was changed.
        """
        path = self.path / CONFIG
        if not path.exists():
            raise FileNotFoundError(f"no {CONFIG} in {self.path}: nothing was generated there")
        try:
            whole = json.loads(path.read_text())
            config: dict[str, Any] = whole["config"]
            told = whole.pop("sha256")
            sound = told == config_hash(config if config["format"] <= BARE else whole)
        except (ValueError, KeyError, TypeError):
            sound = False
        if not sound:
            raise ValueError(f"{path} was changed by hand or damaged; use another folder")
        return config

    def options(self) -> dict[str, Any]:
        """How the folder was asked for.

        Raises:
            FileNotFoundError, ValueError: as :meth:`config`, or if that was not told.
        """
        options = self.options_or_none()
        if options is None:
            raise ValueError(f"{self.path / CONFIG} does not tell how it was asked for")
        return options

    def options_or_none(self) -> dict[str, Any] | None:
        """As :meth:`options`; None if that was not told."""
        self.config()
        options: dict[str, Any] | None = json.loads((self.path / CONFIG).read_text())["options"]
        return options

    def note(self, rank: int, facts: dict[str, Any]) -> None:
        """Adds a line to the rank's log, which nothing depends on."""
        append_durably(self.path / f"log-{rank}.jsonl", json.dumps(facts))

    @contextmanager
    def locked(self, rank: int) -> Iterator[None]:
        """Within, no other process can be this rank; a crash ends it, too.

        Raises:
            ValueError: if another process is.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(self._lock(f"lock-{rank}", fcntl.LOCK_EX | fcntl.LOCK_NB))
            except BlockingIOError as error:
                raise ValueError(
                    f"another process is at work in {self.path} as rank {rank}; wait for it, or "
                    "give each process its own rank"
                ) from error
            yield

    def commit(self, rank: int, name: str, tensors: dict[str, Tensor],
               units: Iterable[UnitRecord]) -> None:  # fmt: skip
        """Keeps tensors as file ``name``; when this returns, they survive a crash."""
        content = save(tensors)
        write_durably(self.path / name, content)
        sha256 = hashlib.sha256(content).hexdigest()
        line = json.dumps(asdict(Piece(name, len(content), sha256, tuple(units))))
        append_durably(self.path / f"journal-{rank}.jsonl", line)

    def finished(self, wanted: Container[int]) -> Finished:
        """Checks the files of the ``wanted`` units against the journals.

        The newest line of a unit counts, and an older one where that has come to nothing.
        """
        taken: set[int] = set()
        pieces: list[Piece] = []
        bad: list[tuple[str, set[int]]] = []
        for journal in sorted(self.path.glob("journal-*.jsonl")):
            for piece in reversed(read_journal(journal)):
                units = {record.unit for record in piece.units}
                if units & taken or not any(unit in wanted for unit in units):
                    continue
                if problem := self._problem(piece):
                    bad.append((f"{piece.file}: {problem}", units))
                else:
                    pieces.append(piece)
                    taken |= units
        return Finished(pieces, [text for text, units in bad if not units <= taken])

    def load(self, piece: Piece) -> dict[str, Tensor]:
        """The tensors of a file."""
        return load((self.path / piece.file).read_bytes())

    @contextmanager
    def _lock(self, name: str, how: int) -> Iterator[None]:
        with (self.path / name).open("w") as file:
            fcntl.flock(file, how)
            yield

    def _write_config(self, config: dict[str, Any], options: dict[str, Any] | None) -> None:
        if any(self.path.glob("journal-*.jsonl")):
            raise ValueError(
                f"{self.path} has journals but no {CONFIG}, so what they are of is not known; "
                "use another folder, or delete this one"
            )
        made_on = {
            "python": platform.python_version(),
            "platform": platform.platform(terse=True),
            **{name: version(name) for name in ("numpy", "safetensors")},
        }
        covered = {"config": config, "options": options, "made_on": made_on}
        whole = {"sha256": config_hash(covered), **covered}
        write_durably(self.path / CONFIG, (json.dumps(whole, indent=1) + "\n").encode())

    def _problem(self, piece: Piece) -> str:
        try:
            content = (self.path / piece.file).read_bytes()
        except FileNotFoundError:
            return "not there"
        if len(content) != piece.size:
            return f"{len(content)} bytes instead of {piece.size}"
        if hashlib.sha256(content).hexdigest() != piece.sha256:
            return "another checksum than when it was written"
        return ""


def config_hash(config: dict[str, Any]) -> str:
    """SHA-256 of settings, whatever their order."""
    return digest([json.dumps(config, sort_keys=True)])


def read_journal(path: Path) -> list[Piece]:
    """The lines of a journal; one that was cut off by a crash is left out."""
    pieces = []
    for line in path.read_bytes().splitlines():
        try:
            entry = json.loads(line)
            units = tuple(UnitRecord(**record) for record in entry.pop("units"))
            pieces.append(Piece(**entry, units=units))
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
    return pieces
