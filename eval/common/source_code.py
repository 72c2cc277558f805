"""The code that a result depends on, found from the objects that compute it and listed nowhere.

Objects are walked for their classes and for the functions that they hold. Each stands for its
module, and that for whatever it imports (:func:`fewstep.eval.common.imports.source_files`); code of
an installed package stands for the package's version. What a user's function reads beside its
arguments, from its closure or from globals, counts with its value.
"""

import ast
import dataclasses
import functools
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.eval.common.cache import digest
from fewstep.eval.common.imports import file_of, is_ours, is_own, meaning, source, source_files

# The libraries of arithmetic: other versions of them round differently, and mean the same.
_ARITHMETIC = ("numpy", "torch")
SCRIPT = "__main__"
LOADED = "_fewstep_"  # begins the names of modules that were loaded from a file
_PLAIN = (bool, int, float, complex, str, bytes, type(None), Tensor, torch.dtype, torch.device)


class Code:
    """The code behind objects, and the data that their functions read.

    Attributes:
        modules: that hold their classes and functions.
        packages: installed ones, with versions.
        data: label and value of what functions of the user's read beside their arguments.
    """

    def __init__(self) -> None:
        self.modules: set[str] = set()
        self.packages: set[str] = set()
        self.data: list[tuple[str, Any]] = []
        self._seen: dict[int, Any] = {}  # the objects themselves, lest an id be used again
        self._functions: list[FunctionType] = []
        self._strict = True

    def add(self, *values: Any) -> None:
        """Walks objects, classes and functions.

        Raises:
            TypeError: for one whose code cannot be read: of a notebook, of ``exec``, or compiled.
        """
        for value in values:
            if isinstance(value, _PLAIN) or id(value) in self._seen:
                continue
            self._seen[id(value)] = value
            self._one(value)

    def add_readable(self, *values: Any) -> None:
        """Walks objects that are known by a fingerprint: code that cannot be read is left out."""
        other = Code()
        other._strict = False
        other.add(*values)
        self.modules |= other.modules
        self.packages |= other.packages
        self.data += other.data

    def function(self, value: Any) -> str:
        """A name for a function: where it is in its module, and which of those met so far it is.

        Raises:
            TypeError: for anything else, and for a function whose code cannot be read.
        """
        if isinstance(value, BuiltinFunctionType):
            return f"{value.__module__}.{value.__qualname__}"
        if not isinstance(value, FunctionType):
            raise TypeError(f"{type(value).__qualname__} has neither settings nor weights")
        self.add(value)
        if not any(value is known for known in self._functions):
            self._functions.append(value)
        number = [value is known for known in self._functions].index(True)
        return f"{_module(value)}.{value.__qualname__} {number} {_place_of(value.__code__)}"

    def texts(self) -> list[str]:
        """What all modules do, and the versions of packages, in an order of names."""
        sources = self.sources()
        return [*sorted(self.packages), *(f"{name}\n{sources[name]}" for name in sorted(sources))]

    def sources(
        self, wanted: Callable[[str], bool] = lambda name: True, packages: Collection[str] = ()
    ) -> dict[str, str]:
        """By name of a module the code that was found and all that it imports, without comments.

        A module that was loaded from its file alone has that file's name, as it has by import.

        Args:
            wanted: of which modules.
            packages: installed ones that are read like the user's own.
        """
        files = source_files(sorted(self.modules), packages)
        return {
            path.stem if name == SCRIPT or name.startswith(LOADED) else name:
            meaning(source(name, path), script=name == SCRIPT)
            for name, path in files.items() if wanted(name)
        }  # fmt: skip

    def _one(self, value: Any) -> None:
        if isinstance(value, type):
            self._class(value)
        elif isinstance(value, FunctionType):
            self._function(value)
        elif isinstance(value, MethodType):
            self.add(value.__self__, value.__func__)
        elif isinstance(value, functools.partial):
            self.add(value.func, *value.args, *value.keywords.values())
        elif isinstance(value, Mapping):
            self.add(*value.keys(), *value.values())
        elif isinstance(value, list | tuple | set | frozenset):
            self.add(*value)
        elif not isinstance(value, ModuleType | BuiltinFunctionType):
            self.add(type(value), *_parts(value))

    def _class(self, kind: type) -> None:
        for base in kind.__mro__:
            self._place(base.__module__, base)
            if base.__module__ in self.modules and not is_ours(base.__module__):
                path = file_of(base.__module__)
                for method in _methods(base):
                    if Path(method.__code__.co_filename) == path:  # not those that dataclass made
                        self.add(method)

    def _function(self, function: FunctionType) -> None:
        name, code = _module(function), function.__code__
        self._place(name, function)
        self.add(getattr(function, "__wrapped__", None))
        values = _closure(function)
        if name in self.modules:
            if Path(code.co_filename) != file_of(name):
                self._unreadable(function)
            elif not is_ours(name):
                values = values | _globals(function)
        for label, value in values.items():
            if isinstance(value, type | FunctionType | BuiltinFunctionType | ModuleType):
                self.add(value)
            if not isinstance(value, type | BuiltinFunctionType | ModuleType):
                self.data.append((f"{name}.{function.__qualname__} {label}", value))

    def _place(self, name: str, what: Any) -> None:
        top = name.partition(".")[0]
        if top in _ARITHMETIC or top in sys.stdlib_module_names:
            return
        path = file_of(name)
        if path is not None and is_own(name, path):
            self.modules.add(name)
            return
        version = getattr(sys.modules.get(top), "__version__", None)
        if version is None:
            self._unreadable(what)
        else:
            self.packages.add(f"{top} {version}")

    def _unreadable(self, what: Any) -> None:
        if self._strict:
            raise TypeError(f"the code of {getattr(what, '__qualname__', what)} cannot be read")


def our_code(*values: Any) -> str:
    """SHA-256 of this package's code behind objects and functions, and of packages' versions."""
    code = Code()
    code.add_readable(*values)
    ours = code.sources(is_ours)
    return digest([*sorted(code.packages), *(f"{name}\n{ours[name]}" for name in sorted(ours))])


def code_digest(*values: Any) -> str:
    """SHA-256 of the code behind objects, classes and functions that are known otherwise."""
    code = Code()
    code.add_readable(*values)
    return digest(code.texts())


def function_text(function: Callable[..., Any]) -> str:
    """What one function or class does; what it calls and imports is left aside.

    One without a name, as a lambda, stands for all that it is written in.

    Raises:
        ValueError: if its module has no file of Python code.
    """
    module, path = function.__module__, file_of(function.__module__)
    if path is None:
        raise ValueError(f"the code of {function.__qualname__} cannot be read")
    found: ast.AST = ast.parse(meaning(source(module, path)))
    for name in function.__qualname__.split("."):
        inner = (node for node in ast.walk(found) if getattr(node, "name", None) == name)
        found = next((node for node in inner if node is not found), found)
    return ast.unparse(found)


def _module(function: FunctionType) -> str:
    """That of its code; a decorator may have given it the name of another."""
    return str(function.__globals__.get("__name__"))


def _parts(value: Any) -> Iterator[Any]:
    """What an object of this package's or the user's code holds, and the parts of a network."""
    if isinstance(value, nn.Module):
        yield from map(type, value.modules())
    path = file_of(type(value).__module__)
    if path is not None and is_own(type(value).__module__, path):
        yield from getattr(value, "__dict__", {}).values()
        if dataclasses.is_dataclass(value):  # with slots it has no dictionary
            yield from (getattr(value, field.name) for field in dataclasses.fields(value))


def _methods(kind: type) -> Iterator[FunctionType]:
    for value in vars(kind).values():
        for found in (value, getattr(value, "__func__", None), getattr(value, "fget", None)):
            if isinstance(found, FunctionType):
                yield found


def _closure(function: FunctionType) -> dict[str, Any]:
    """Values from enclosing functions, and defaults."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    # A name may not be bound yet, and its cell empty; the comparison looks at no content.
    found = {name: cell.cell_contents for name, cell in cells if cell != CellType()}
    found |= {f"default {i}": value for i, value in enumerate(function.__defaults__ or ())}
    return found | (function.__kwdefaults__ or {})


def _globals(function: FunctionType) -> dict[str, Any]:
    names = sorted({name for code in _codes(function.__code__) for name in code.co_names})
    known = function.__globals__
    return {name: known[name] for name in names if name in known}


def _codes(code: CodeType) -> Iterable[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _place_of(code: CodeType) -> str:
    """Tells functions of one name and file apart, those on one line too."""
    columns = [place[2] for place in code.co_positions() if place[2] is not None]
    return f"{code.co_firstlineno}:{min(columns, default=0)}-{max(columns, default=0)}"
