"""How a command is stopped: by Ctrl-C, or by SIGTERM, as launchers and schedulers send it.

Of several processes only rank 0 says so. A terminal sends Ctrl-C to all of them, and their launcher
a signal more; and when one is gone, the others lose their connections. None of that is news.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """A signal asked for the end.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Left(SystemExit):
    """The end of an interrupted command, as :func:`leave` makes it."""


def world() -> tuple[int, int]:
    """Rank and number of processes as a launcher told them, without torch."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


class Stop:
    """The signals of a command.

    Attributes:
        number: of the one that asked for the end; 0 before.
    """

    def __init__(self) -> None:
        self.number = 0

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Within, both signals are exceptions, of which a process among several gets one only."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._stop) for number in SIGNALS}
        try:
            yield
        finally:
            if not self.among_others:  # the others' launcher may send more
                for number, handler in before.items():
                    signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        if self.among_others:
            for each in SIGNALS:
                signal.signal(each, signal.SIG_IGN)
        raise Stopped(number)

    @property
    def among_others(self) -> bool:
        """Whether this process was stopped with its peers, whose end may be an error here."""
        return self.number != 0 and world()[1] > 1


def leave(text: str, number: int) -> NoReturn:
    """Ends the process with the status of a signal, 128 and its number; rank 0 says ``text``.

    Raises:
        Left: always; but of several processes, which end at once: their group would wait for
            each other, and tell of lost connections.
    """
    status, (rank, count) = 128 + (number or signal.SIGINT), world()
    if rank == 0:
        print(text, file=sys.stderr)
    if count > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    raise Left(status)
