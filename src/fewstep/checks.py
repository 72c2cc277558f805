"""Arguments of public classes against their annotations, so that a wrong kind is one line.

Values are checked where they are used, by the classes themselves; here it is only that a number is
a number, before a comparison of it fails somewhere else.
"""

import inspect
import operator
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from os import PathLike
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Self, Union, get_args, get_origin, get_type_hints

PLAIN = {int: "a whole number", float: "a number", bool: "True or False", str: "a text",
         Path: "a pathlib.Path", NoneType: "None"}  # fmt: skip
LONGEST = 60  # characters of a value in a message


class Checked:
    """Base of classes whose arguments are looked at before anything is made of them."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Raises TypeError for an argument of another kind than its annotation."""
        check_call(cls, args, kwargs)
        return super().__new__(cls)


def check_call(cls: type, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Raises TypeError for an argument of a constructor that is of another kind."""
    signature, hints = _constructor(cls)
    try:
        given = signature.bind_partial(None, *args, **kwargs).arguments
    except TypeError:
        return  # Python says it when it makes the call
    for name, value in given.items():
        hint = hints.get(name, Any)
        if name in hints and not fits(value, hint):
            raise TypeError(f"{name} of {cls.__name__} takes {words(hint)}, got {named(value)}")


@cache
def _constructor(cls: type) -> tuple[inspect.Signature, dict[str, Any]]:
    init = inspect.getattr_static(cls, "__init__")
    return inspect.signature(init), get_type_hints(init)


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of the kind that an annotation names; what is not plain always is."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return any(fits(value, part) for part in get_args(hint))
    if origin is Literal:
        return any(fits(value, type(one)) for one in get_args(hint))
    if origin is Callable or (origin is not None and origin.__name__ == "Callable"):
        return callable(value)
    if origin in (Sequence, tuple, list):
        return _fits_each(value, get_args(hint))
    if hint is bool or hint is NoneType:
        return value is None if hint is NoneType else isinstance(value, bool)
    if hint in (int, float):
        return _is_number(value, hint)
    if hint in (str, Path):
        return isinstance(value, PathLike) or (hint is str and isinstance(value, str))
    return True


def words(hint: Any) -> str:
    """An annotation in words."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(map(words, get_args(hint))))
    if origin is Literal:
        return "one of " + ", ".join(map(repr, get_args(hint)))
    if origin in (Sequence, tuple, list):
        parts = get_args(hint)
        count = f" of {len(parts)}" if len(parts) > 1 and ... not in parts else ""
        return f"a list{count}, each {PLAIN[parts[0]]}" if parts[0] in PLAIN else "a list"
    return PLAIN.get(hint, "a function" if origin is not None else getattr(hint, "__name__", "it"))


def _fits_each(value: Any, parts: tuple[Any, ...]) -> bool:
    """Whether it is a list of one kind, or has the kinds of its places."""
    listed = hasattr(value, "__len__") and hasattr(value, "__getitem__")
    if not listed or isinstance(value, str | bytes | Mapping):
        return False
    if len(parts) > 1 and ... not in parts:
        return len(value) == len(parts) and all(map(fits, value, parts))
    return all(fits(entry, parts[0]) for entry in value)


def _is_number(value: Any, kind: type) -> bool:
    if isinstance(value, bool | str | bytes):
        return False
    try:
        return abs(operator.index(value)) <= sys.float_info.max or kind is int
    except TypeError:
        return kind is float and hasattr(value, "__float__")


def named(value: Any) -> str:
    """What a wrong argument is, in a few words."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, int) and abs(value) > sys.float_info.max:
        return "a number beyond the range of float"
    if value is None or isinstance(value, bool | int | float | str):
        text = repr(value)
        return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    return type(value).__name__


def whole(value: Any, otherwise: str) -> int:
    """A whole number of any kind as an int: a truth value and 8.0 are none.

    Raises:
        TypeError: with ``otherwise`` and what it is.
    """
    got = TypeError(f"{otherwise}, got {named(value)}")
    if isinstance(value, bool):
        raise got
    try:
        return operator.index(value)
    except TypeError:
        raise got from None
