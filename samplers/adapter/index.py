"""Where a trajectory stands, and the noise it draws."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.compiler import is_compiling

SHARED = "pass each entry once and in order, and use one scheduler for each trajectory: clone()"


class Runs:
    """``timesteps`` of a scheduler's last runs and their values, to recognise entries of them by.

    A copy of a scheduler shares no run with it, so a copy of this is empty.
    """

    def __init__(self) -> None:
        self._last: deque[tuple[Tensor, frozenset[float]]] = deque(maxlen=64)

    def __deepcopy__(self, memo: object) -> "Runs":
        return Runs()

    def __getstate__(self) -> dict[str, Any]:
        return {"_last": deque(maxlen=64)}

    def add(self, timesteps: Tensor, values: Tensor) -> None:
        self._last.append((timesteps, frozenset(values.tolist())))

    def know(self, timestep: Any) -> bool:
        """Whether it is an entry of one of them: a view, or a number of its value."""
        runs = list(self._last)  # other threads append
        tensors = [own for own, _ in runs] if isinstance(timestep, Tensor) else []
        if any(_entry_in(own, timestep) is not None for own in tensors):
            return True
        value = _plain(timestep)
        return value is not None and any(value in values for _, values in runs)


class Position:
    """A counter over the entries of ``timesteps``.

    It starts at ``begin`` if that was set, else at the entry that the first timestep is a view of,
    else at the first entry of its value. Only that last way reads a tensor, once.

    Args:
        timesteps: the entries, as pipelines see them.
        values: the same numbers on the CPU.
        runs: of the same scheduler.

    Attributes:
        begin: the entry to start at, if somebody has said so.
        start: the entry of the first step, once it was taken.
        why: who set ``begin``, where it was not ``set_begin_index``; for messages.
    """

    def __init__(self, timesteps: Tensor, values: Tensor, runs: Runs) -> None:
        self.values = values
        self.follow(timesteps)
        self.begin: int | None = None
        self.start: int | None = None
        self.why = ""
        self._runs = runs
        runs.add(timesteps, values)
        # One token a step. ``pop`` is a single operation of the interpreter, so that two threads
        # never take the same step.
        self._turns = list(range(len(timesteps)))[::-1]

    def follow(self, timesteps: Tensor) -> None:
        """Counts the entries of the same times in another tensor."""
        self.timesteps = timesteps
        # Where they lie, since asking a tensor costs more than the rest of a step's index.
        self._place = timesteps.data_ptr(), timesteps.element_size(), timesteps.nbytes

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_place"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.follow(self.timesteps)  # a copy lies elsewhere

    @property
    def index(self) -> int | None:
        """The entry that the next step takes; None before the first."""
        done = len(self.timesteps) - len(self._turns)
        return None if self.start is None or not done else self.start + done

    def peek(self, timestep: Any) -> int:
        """The entry that the next step takes."""
        index = self.index
        return self._first(timestep) if index is None else index

    def take(self, timestep: Any) -> int:
        """The entry of this step; the first one taken is ``start``.

        Raises:
            ValueError: if ``timestep`` is another entry, or one of an earlier run, or all are used
                up.
        """
        try:
            turn = self._turns.pop()
        except IndexError:
            raise ValueError(self._done()) from None
        if turn and self.start is not None and self.view(timestep) == self.start + turn:
            return self.start + turn
        try:
            return self._entry(turn, timestep)
        except ValueError:
            self._turns.append(turn)  # a refusal moves nothing
            raise

    def undo(self) -> None:
        """Takes back the last step, which failed."""
        self._turns.append(len(self.timesteps) - len(self._turns) - 1)
        if self._turns[-1] == 0:
            self.start = None

    def view(self, timestep: Any) -> int | None:
        """The entry that ``timestep`` shares its memory with."""
        if not isinstance(timestep, Tensor) or is_compiling():
            return None
        place, size, room = self._place
        offset = timestep.data_ptr() - place
        inside = 0 <= offset < room and timestep.dtype == self.timesteps.dtype
        return offset // size if inside else None

    def _entry(self, turn: int, timestep: Any) -> int:
        if turn == 0:
            self.start = self._first(timestep)
        elif self.start is None:
            raise ValueError(f"another thread is at the first step of this run: {SHARED}")
        entry = self.start + turn
        if entry >= len(self.timesteps):
            raise ValueError(self._done())
        seen = self.view(timestep)
        if seen is None:
            self._check_value(timestep, entry)
        elif seen != entry:
            raise ValueError(
                f"step() got entry {seen} of timesteps, expected entry {entry}{self.why}: {SHARED}"
            )
        return entry

    def _first(self, timestep: Any) -> int:
        if self.begin is not None:
            return self.begin
        seen = self.view(timestep)
        if seen is not None:
            return seen
        if timestep is None or not len(self.timesteps):
            return 0
        if isinstance(timestep, Tensor) and timestep.numel() > 1:
            raise ValueError(
                f"step() takes one entry of timesteps for the whole batch, got {timestep.numel()} "
                "values; for samples at different steps use fewstep.BatchedPlan"
            )
        distance = (self.values - float(timestep)).abs()
        nearest = int(distance.argmin())
        if _plain(timestep) != float(self.values[nearest]):
            self._check_value(timestep, nearest)
        return nearest

    def _check_value(self, timestep: Any, entry: int) -> None:
        """Refuses what is no view and yet plainly another entry, as far as no device is read.

        Whole numbers pass: they are times of a table that are cut, or of no schedule at all.
        """
        if is_compiling():
            return
        value = _plain(timestep)
        same = [] if value is None else (self.values == value).nonzero().flatten().tolist()
        if same and entry not in same:
            raise ValueError(
                f"step() got the time {value:g} of entry {same[0]}, expected entry "
                f"{entry}{self.why}: {SHARED}"
            )
        if not same and self._runs.know(timestep):
            raise ValueError(
                "step() got a time that timesteps held before set_timesteps(), or add_noise() from "
                f"an image, was called again: read timesteps after it, {SHARED}"
            )

    def _done(self) -> str:
        return f"all {len(self.timesteps)} steps are done; call set_timesteps(n) for another run"


def _plain(timestep: Any) -> float | None:
    """A floating-point number that can be looked at without waiting for a device."""
    if isinstance(timestep, Tensor):
        cheap = timestep.is_cpu and timestep.numel() == 1 and timestep.is_floating_point()
    else:
        cheap = isinstance(timestep, float | np.floating)
    return float(timestep) if cheap else None


def _entry_in(own: Tensor, timestep: Tensor) -> int | None:
    offset = timestep.data_ptr() - own.data_ptr()
    size = own.element_size()
    inside = 0 <= offset < size * len(own) and timestep.dtype == own.dtype
    return offset // size if inside else None


Generators = torch.Generator | Sequence[torch.Generator] | None


def noise_source(
    draws: int, batch: int, generator: Generators, given: Tensor | None
) -> Callable[[Tensor], Tensor]:
    """Where the unit noise of a step comes from: ``given``, or drawn where the generator lives.

    With one generator for each sample, sample i depends on generator i alone.

    Raises:
        TypeError: if the generator is none (a tensor that another class takes in its place).
        ValueError: if a list of generators is not as long as the batch, or noise is given for a
            step that needs it twice.
    """
    if generator is not None and not isinstance(generator, (torch.Generator, list, tuple)):
        raise TypeError(
            "generator must be a torch.Generator or a list of them, got "
            f"{type(generator).__name__}: pass what comes after the sample by name, and keep the "
            "pipeline's own scheduler if it passes more there (RePaint, CogVideoX DPM)"
        )
    if draws and isinstance(generator, list | tuple) and len(generator) != batch:
        raise ValueError(
            f"{len(generator)} generators for a batch of {batch}: pass one for each sample, or a "
            "single one"
        )
    if draws > 1 and given is not None:
        raise ValueError(
            f"this step adds noise {draws} times: pass generator= instead of variance_noise="
        )

    def draw(like: Tensor) -> Tensor:
        if given is not None:
            return given.to(device=like.device, dtype=like.dtype)
        if isinstance(generator, list | tuple):
            return torch.stack([_draw(like.shape[1:], one, like) for one in generator])
        return _draw(like.shape, generator, like)

    return draw


def _draw(shape: Sequence[int], generator: Any, like: Tensor) -> Tensor:
    place = generator.device if generator is not None else like.device
    noise = torch.randn(tuple(shape), generator=generator, device=place, dtype=like.dtype)
    return noise.to(like.device)
