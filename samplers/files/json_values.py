"""JSON from files that anybody may have written: bounded, and with one value for each name.

Python's reader takes the last of two values of a name, ``NaN`` and ``1e400``, gives up with a
RecursionError below thousands of brackets, and reads whatever there is. Each of that is refused
here, in one line with the file.
"""

import json
import math
from pathlib import Path
from typing import Any

MAX_BYTES = 32 * 2**20  # a plan of 4,000 calls of a fourth-order solver takes 3
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
