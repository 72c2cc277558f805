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


def world() -> tuple[int, int]:
    """Rank and number of processes as a launcher told them, without torch."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def stoppable() -> Iterator[None]:
    """Within, both signals are exceptions, of which a process among several has one only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def stop(number: int, frame: FrameType | None) -> None:
        if world()[1] > 1:  # the launcher sends another one
            for each in SIGNALS:
                signal.signal(each, signal.SIG_IGN)
        raise Stopped(number)

    for number in SIGNALS:
        signal.signal(number, stop)
    try:
        yield
    finally:
        if not all(signal.getsignal(number) is signal.SIG_IGN for number in SIGNALS):
            for number, handler in before.items():
                signal.signal(number, handler)


def was_stopped() -> bool:
    """Whether a process among several was asked to end; then its errors are of its peers' end."""
    return world()[1] > 1 and all(signal.getsignal(each) is signal.SIG_IGN for each in SIGNALS)


def leave(error: BaseException, text: str) -> NoReturn:
    """Ends the process with the status of its signal, 128 and its number; rank 0 says ``text``.

    Raises:
        SystemExit: always; but of several processes, which end at once: their group would wait for
            each other, and tell of lost connections.
    """
    status = 128 + (error.number if isinstance(error, Stopped) else signal.SIGINT)
    rank, count = world()
    if rank == 0:
        print(text, file=sys.stderr)
    if count > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    raise SystemExit(status)
