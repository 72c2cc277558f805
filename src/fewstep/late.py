"""Packages whose names are imported when they are first asked for (PEP 562).

torch takes seconds to import, and diffusers as many again; what only needs a name, a table of
numbers or a docstring does without.
"""

import ast
import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def late(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package.

    Args:
        package: its full name.
        homes: the module of each name, by the name.
    """

    def getattr_(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(homes[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    def dir_() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return getattr_, dir_


def door(
    package: str, hidden: Mapping[str, str] | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """``__getattr__``, ``__dir__`` and ``__all__`` of a package that users import from.

    The imports that stand under ``if TYPE_CHECKING`` in the package's ``__init__.py`` are its one
    list of names. Type checkers and editors read them as code, and this function reads them as
    text: none is run before its name is asked for. Each must be written ``from module import Name
    as Name``, which is how a type checker is told that the name is public (PEP 484). The call
    stands under ``else``: a type checker that saw ``__getattr__`` would take any name for one.

    Args:
        package: its full name.
        hidden: modules of further names, by the name, which are served and not listed in
            ``__all__``.

    Raises:
        ImportError: if the package lies there without its source.
    """
    get_source = getattr(sys.modules[package].__loader__, "get_source", None)
    source = get_source and get_source(package)
    if not source:
        raise ImportError(f"{package} reads its names from its __init__.py, which is not there")
    homes = public_imports(source)
    return *late(package, {**homes, **(hidden or {})}), sorted(homes)


def public_imports(source: str) -> dict[str, str]:
    """The module of each name that is imported under ``if TYPE_CHECKING``, by the name."""
    blocks = [
        node.body
        for node in ast.parse(source).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    return {
        name.name: str(line.module)
        for block in blocks
        for line in block
        if isinstance(line, ast.ImportFrom)
        for name in line.names
        if name.asname == name.name
    }
