"""What docstrings say of classes and functions, for people to read.

Classes are read from their files, since importing them would load torch, which takes seconds:
dataclasses by their fields, those of their bases first.
"""

import ast
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from fewstep.eval.common.imports import file_of

REQUIRED = inspect.Parameter.empty
SECTIONS = ("Args:", "Attributes:", "Returns:", "Raises:", "Reference:")


@dataclass(frozen=True)
class Described:
    """A class or function.

    Attributes:
        doc: its docstring, without indentation.
        module_doc: that of its module.
        defaults: of its arguments in order, by name; ``REQUIRED`` where there is none.
    """

    doc: str
    module_doc: str
    defaults: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """What comes before the first section, in one line."""
        lines = self.doc.splitlines()
        end = next((i for i, line in enumerate(lines) if line.strip() in SECTIONS), len(lines))
        return plain(" ".join(lines[:end]))

    @property
    def summary(self) -> str:
        """The first paragraph in one line."""
        return plain(self.doc.split("\n\n")[0]).removesuffix(".")

    def meanings(self) -> dict[str, str]:
        """What is said of each argument, with its marks of code."""
        found: dict[str, str] = {}
        names: list[str] = []
        for line in _section(self.doc, "Args:"):
            head, colon, text = line.partition(":")
            if not line.startswith(" ") and colon:
                names = [name.strip() for name in head.split(",")]
                line = text
            for name in names:
                found[name] = f"{found.get(name, '')} {line.strip()}".strip()
        return found


def described_class(module: str, name: str) -> Described:
    """A dataclass of this package by its full module name and its own; nothing is imported."""
    tree = _tree(module)
    node = _class(tree, name)
    positional: dict[str, Any] = {}
    keyword: dict[str, Any] = {}
    for field_name, default, keyword_only in _fields(module, node):
        (keyword if keyword_only else positional)[field_name] = default
    return Described(
        ast.get_docstring(node) or "", ast.get_docstring(tree) or "", {**positional, **keyword}
    )


def described_function(function: Callable[..., Any]) -> Described:
    """A function by its own signature; the defaults are those of its keywords."""
    parameters = inspect.signature(function).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    module = inspect.getmodule(function)
    return Described(inspect.getdoc(function) or "", inspect.getdoc(module) or "", defaults)


def plain(text: str) -> str:
    """A docstring's text in one line, without its marks of code and cross references."""
    for mark in (":func:", ":class:", ":mod:", ":data:", "``", "`"):
        text = text.replace(mark, "")
    return " ".join(text.replace("::", ":").split())


def _section(doc: str, title: str) -> Iterator[str]:
    """The lines below a title, without their indentation."""
    lines = iter(doc.splitlines())
    for line in lines:
        if line == title:
            break
    for line in lines:
        if line and not line.startswith("    "):
            return
        if line:
            yield line[4:]


@cache  # bases of many classes lie in one module
def _tree(module: str) -> ast.Module:
    path = file_of(module)
    if path is None:
        raise TypeError(f"the code of module {module} cannot be read")
    return ast.parse(path.read_text())


def _class(tree: ast.Module, name: str) -> ast.ClassDef:
    return next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)


def _fields(module: str, node: ast.ClassDef) -> Iterator[tuple[str, Any, bool]]:
    """Name, default, and whether it is a keyword only, of each field of a dataclass."""
    for base in node.bases:
        home = _home(module, base.id) if isinstance(base, ast.Name) else None
        if home is not None:
            yield from _fields(home, _class(_tree(home), ast.unparse(base)))
    decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
    decorated = next((text for text in decorators if text.startswith("dataclass")), None)
    if decorated is None:
        return
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            default, keyword = _default(statement.value)
            yield statement.target.id, default, keyword or "kw_only=True" in decorated


def _home(module: str, name: str) -> str | None:
    """The module of this package in which a name of a module is defined as a class."""
    tree = _tree(module)
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return module
        if isinstance(node, ast.ImportFrom) and any(entry.name == name for entry in node.names):
            return node.module if (node.module or "").startswith("fewstep.") else None
    return None


def _default(value: ast.expr | None) -> tuple[Any, bool]:
    """The default of a field, and whether ``field(...)`` makes it a keyword only."""
    if value is None:
        return REQUIRED, False
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "field":
        given = {keyword.arg: keyword.value for keyword in value.keywords}
        keyword_only = "kw_only" in given and bool(ast.literal_eval(given["kw_only"]))
        return _default(given.get("default"))[0], keyword_only
    try:
        return ast.literal_eval(value), False
    except ValueError:  # a name, such as a function's
        return ast.unparse(value), False
