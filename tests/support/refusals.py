"""What is made, or the line by which it is refused."""

from collections.abc import Callable
from typing import Any


def attempt(make: Callable[[], Any]) -> tuple[Any, str]:
    """What ``make`` gives and "", or None and the message of its ValueError or OSError."""
    try:
        return make(), ""
    except (ValueError, OSError) as error:
        return None, str(error) or type(error).__name__
