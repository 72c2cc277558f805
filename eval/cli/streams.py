"""The streams that a command writes to: closed, of few characters, full, or read no further."""

import os
import signal
import sys

UNREAD = 128 + getattr(signal, "SIGPIPE", 13)  # the status that a shell gives other programs then


def prepare() -> None:
    """Makes every line printable, wherever it goes.

    Python has None for a stream that was closed (``>&-``, some daemons), and print would fail.
    What an encoding lacks, in the name of a file or the sign of a spread, is written as ``\\xb1``.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  # until Python's end
    if getattr(sys.stdout, "errors", None) == "strict" and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")


def drop_output() -> None:
    """Drops what is not written yet: Python does it at its end, and would fail with a traceback."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def output_is_lost() -> bool:
    """Whether what was printed can go nowhere (a full disk); it is dropped then."""
    try:
        print(flush=True)
    except OSError:
        drop_output()
        return True
    return False


def is_unread(error: BaseException | None) -> bool:
    """Whether a command ended because nobody reads what it prints any more (``| head -1``).

    typer makes an exit of it, of the same status as a model's ``sys.exit(1)``.
    """
    if isinstance(error, SystemExit):
        error = error.__context__
    return isinstance(error, BrokenPipeError) and error.filename is None
