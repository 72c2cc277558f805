"""How much may be asked for, so that a mistyped number is refused before anything is built."""

from numbers import Real
from typing import Any

MAX_CALLS = 4000  # of a run, and rows of a plan: as many as the longest tables have training times
MAX_TRAIN_TIMES = 100_000  # entries of a table of betas


def at_most(what: str, value: int, most: int) -> None:
    """Passes a number of things up to a limit.

    Raises:
        ValueError: above it, in a line that has the limit.
    """
    if value > most:
        raise ValueError(f"{what} must be at most {most:,}, got {value:,}")


def check_train_times(value: Any, least: int, name: str = "num_train_timesteps") -> int:
    """A number of training times.

    Args:
        value: whole, maybe as a float.
        least: 2 of a table, 1 of a flow.
        name: what it is called in the message.

    Raises:
        ValueError: for any other value.
    """
    if not isinstance(value, bool) and isinstance(value, Real) and float(value).is_integer():
        count = int(float(value))
        if least <= count <= MAX_TRAIN_TIMES:
            return count
    raise ValueError(
        f"{name} must be a whole number from {least} to {MAX_TRAIN_TIMES:,}, got {value!r}"
    )


def check_calls(n: int) -> None:
    """Passes a number of network calls.

    Raises:
        ValueError: for less than 1, or more than ``MAX_CALLS``.
    """
    if n < 1:
        raise ValueError(f"a sampler needs at least 1 call, got nfe = {n}")
    at_most("nfe, the network calls of a sampler,", n, MAX_CALLS)
