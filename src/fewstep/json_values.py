"""JSON from files that anybody may have written: bounded, and with one value for each name.

Python's reader takes the last of two values of a name, ``NaN`` and ``1e400``, gives up with a
RecursionError below thousands of brackets, and reads whatever there is. Each of that is refused
here, in one line with the file.
"""

import json
import math
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

MAX_BYTES = 32 * 2**20  # a plan of 4,000 calls of a fourth-order solver takes 3
LARGEST = 3.4e38  # of a number, since samples may be float32
MAX_DEPTH = 64  # a plan that keeps the one it came from is 14 deep


def read_bounded(path: Path) -> bytes:
    """The content of a file.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it is larger than ``MAX_BYTES``, or no file.
    """
    if not path.is_file() and path.exists():
        raise ValueError(f"{path} is no file")
    with path.open("rb") as file:
        large = path.stat().st_size > MAX_BYTES
        content = b"" if large else file.read(MAX_BYTES + 1)
    if large or len(content) > MAX_BYTES:
        raise ValueError(
            f"{path} is larger than {MAX_BYTES // 2**20} MiB, the limit of such files, and was not "
            "read"
        )
    return content


def parse_json(text: str | bytes, where: str) -> Any:
    """The value of a JSON text; numbers are finite, and no name of an object is there twice.

    Args:
        text: of a file; UTF-8 if bytes.
        where: what it is called in messages.

    Raises:
        ValueError: in one line, for anything else.
    """
    try:
        whole = text.decode() if isinstance(text, bytes) else text
        value = json.loads(
            whole, parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_object
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is not JSON: {error}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not JSON: it is no text in UTF-8") from error
    except RecursionError as error:
        raise ValueError(f"{where} is nested more than {MAX_DEPTH} times") from error
    except ValueError as error:  # ours, and that of int() about thousands of digits
        raise ValueError(f"{where}: {error}") from error
    _check_depth(value, where)
    return value


def _no_constant(text: str) -> float:
    raise ValueError(f"JSON has no {text}: write a number, or leave it out")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(
            f"{text[:40]} is beyond the range of numbers, and not finite: write another"
        )
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise ValueError(f"{twice[:40]!r} is there twice in one object: leave one out")
    return found


def _check_depth(value: Any, where: str) -> None:
    level: list[Any] = [[value]]
    for _ in range(MAX_DEPTH + 1):
        inner = (one.values() if isinstance(one, dict) else one for one in level)
        level = [one for values in inner for one in values if isinstance(one, dict | list)]
        if not level:
            return
    raise ValueError(f"{where} is nested more than {MAX_DEPTH} times")


def check_keys(value: Mapping[str, Any], at: str, names: Sequence[str]) -> None:
    """Passes an object that has these names and no other; raises ValueError."""
    if unknown := [key for key in value if key not in names]:
        raise ValueError(f"{at} has an unknown entry {unknown[0]!r}; known: {', '.join(names)}")
    if missing := [name for name in names if name not in value]:
        raise ValueError(f"{at} lacks {missing[0]!r}")


def as_object(value: Any, at: str) -> Mapping[str, Any]:
    """The value, if it is an object with names; ``at`` is its place in messages."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{at} must be an object with names, got {_short(value)}")
    return value


def as_list(value: Any, at: str, most: int) -> Sequence[Any]:
    """The value, if it is a list of at most so many entries."""
    if not isinstance(value, list | tuple):
        raise ValueError(f"{at} must be a list, got {_short(value)}")
    if len(value) > most:
        raise ValueError(f"{at} must have at most {most:,} entries, got {len(value):,}")
    return value


def as_number(value: Any, at: str) -> float:
    """The value as a float, if it is a number within float32."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{at} must be a number, got {_short(value)}")
    number: Any = value  # whole ones may be beyond the range of floats
    if not -LARGEST <= number <= LARGEST:  # NaN, too
        raise ValueError(
            f"{at} is not finite in float32: it must lie within +-{LARGEST:g}, got {_short(value)}"
        )
    return float(value)


def as_whole(value: Any, at: str) -> int:
    """The value, if it is a whole number of 0 to 2^31."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0 or value > 2**31:
        raise ValueError(f"{at} must be a whole number >= 0, got {_short(value)}")
    return value


def as_text(value: Any, at: str) -> str:
    """The value, if it is a text."""
    if not isinstance(value, str):
        raise ValueError(f"{at} must be a text, got {_short(value)}")
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}..."
