"""Where the seconds of a run go: network, solver, decoding, features, saving.

At every beginning and end of a phase a mark is set, and the time between two marks belongs to the
innermost phase that is open. On CUDA a mark is an event on the current stream, which is read long
after: no step waits for the device, and the phases add up to the time that passed. On the CPU a
mark is a time, and other devices (mps) are taken to be done when the call returns.
"""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewstep.types import Denoiser, Level


class Clock:
    """Adds up the seconds of phases.

    Args:
        device: where the work is done; on CUDA, on its current stream.
    """

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self._device = torch.device(device)
        self._cuda = self._device.type == "cuda"
        self._open: list[str] = []
        self._totals: dict[str, float] = {}
        self._last: float | None = None  # the last mark on the CPU
        # On CUDA: marks, and the phase behind each; none while no phase is open.
        self._events: list[tuple[torch.cuda.Event, str | None]] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Within, time counts as ``name``, but for phases opened inside."""
        self._open.append(name)
        self._mark(before=self._open[-2] if len(self._open) > 1 else None, behind=name)
        try:
            yield
        finally:
            self._open.pop()
            self._mark(before=name, behind=self._open[-1] if self._open else None)

    def timed(self, denoiser: Denoiser) -> "TimedDenoiser":
        """The denoiser with its calls as phase ``network``."""
        return TimedDenoiser(denoiser, self)

    def seconds(self) -> dict[str, float]:
        """Seconds of each phase so far, in the order of their first end.

        On CUDA this waits for the device, so call it when a run is over.
        """
        if self._open:
            self._mark(before=self._open[-1], behind=self._open[-1])
        if self._events:
            self._events[-1][0].synchronize()
            marks = self._events
            for (begun, name), (ended, _) in pairwise(marks):
                if name is not None:
                    self._count(name, begun.elapsed_time(ended) / 1e3)
            self._events = marks[-1:]
        return dict(self._totals)

    def _mark(self, before: str | None, behind: str | None) -> None:
        """Ends the time of phase ``before`` and begins that of ``behind``."""
        if self._cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record(torch.cuda.current_stream(self._device))
            self._events.append((event, behind))
            return
        now = time.perf_counter()
        if before is not None and self._last is not None:
            self._count(before, now - self._last)
        self._last = now

    def _count(self, name: str, seconds: float) -> None:
        self._totals[name] = self._totals.get(name, 0.0) + seconds


class TimedDenoiser:
    """A denoiser whose calls a clock counts as ``network``; in all else it is the inner one.

    What guidance does around them - other models, backward passes - stays with the phase outside.
    """

    def __init__(self, denoiser: Denoiser, clock: Clock) -> None:
        self.denoiser, self._clock = denoiser, clock
        self.process = denoiser.process

    def __call__(self, x: Tensor, level: Level, cond: Any = None) -> Tensor:
        with self._clock.phase("network"):
            return self.denoiser(x, level, cond)

    def __getattr__(self, name: str) -> Any:
        """What guidance may ask for: null_cond, num_classes, network, ..."""
        return getattr(self.denoiser, name)


def peak_memory(device: str | torch.device = "cpu") -> int:
    """Most bytes that this process has held: tensors on CUDA, else its resident set."""
    found = torch.device(device)
    if found.type == "cuda":
        return torch.cuda.max_memory_allocated(found)
    # getrusage's peak begins with that of the parent process; the kernel's own mark does not.
    status = Path("/proc/self/status")
    if status.exists():
        marks = (line.split() for line in status.read_text().splitlines())
        return next(int(words[1]) * 1024 for words in marks if words and words[0] == "VmHWM:")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
