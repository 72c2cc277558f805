"""What modules import, read from their files: nothing is imported, so the answer never varies."""

import ast
import importlib.util
import sys
import sysconfig
import tokenize
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from types import ModuleType

OURS = "fewstep"
_INSTALLED = tuple(
    Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")
)
Import = tuple[str, str, str]  # module, name in it ("" for the module itself), name here
_READ: dict[str, tuple[ModuleType, Path, str]] = {}  # by name: a loaded module, its file and text


def source_files(modules: Iterable[str], packages: Collection[str] = ()) -> dict[str, Path]:
    """The files of modules and, in turn, of all that they import, by module.

    Followed are the modules of this package and those that no installer put where they are. A name
    from a package's front door leads to the module that defines it. Imports within functions are
    followed too, except in this package, where they load and write files.

    Args:
        modules: dotted names.
        packages: installed ones that are followed like the user's own.

    Raises:
        TypeError: for one of ``modules`` without a file of Python code.
    """
    found: dict[str, Path] = {}
    todo = []
    for name in modules:
        path = file_of(name)
        if path is None:
            raise TypeError(f"the code of module {name} cannot be read")
        todo.append((name, path))
    while todo:
        name, path = todo.pop()
        if name in found or _is_door(name, path):
            continue
        found[name] = path
        for module, attribute, _ in _imports(name, path):
            target = _definition(module, attribute, path)
            if target is None:
                continue
            if is_own(*target) or target[0].partition(".")[0] in packages:
                todo.append(target)
    return found


def source(name: str, path: Path) -> str:
    """The text of a module as it was when first asked for: of what runs, not of what was edited.

    A file that is edited during a run changes nothing in the run, so its new text must not vouch
    for the old code's results. A module that is loaded again is read again.

    Args:
        name: dotted; one that is not loaded is read each time.
        path: of its file.
    """
    module = sys.modules.get(name)
    held = _READ.get(name)
    if module is not None and held is not None and held[:2] == (module, path):
        return held[2]
    with tokenize.open(path) as file:
        text = file.read()
    if module is not None:
        _READ[name] = (module, path, text)
    return text


@lru_cache(maxsize=1024)
def meaning(text: str, *, script: bool = False) -> str:
    """Python code without comments, docstrings, layout, and what runs in scripts alone.

    Written anew from its syntax tree, so that whatever is left may change what the code does. Code
    that is no Python stays as it is.

    Args:
        text: of a file.
        script: whether it is the one that Python was started with.
    """
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return text
    for node in list(ast.walk(tree)):
        body = getattr(node, "body", None)
        if isinstance(body, list):  # that of a lambda or a conditional is an expression
            kept = [entry for entry in body if not _does_nothing(entry, script)]
            node.body = kept or [ast.Pass()]  # type: ignore[attr-defined]
    return ast.unparse(tree)


def _does_nothing(node: ast.stmt, script: bool) -> bool:
    """Whether it is a text that nothing takes, as docstrings are, or runs in scripts alone."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    if script or not isinstance(node, ast.If) or node.orelse:
        return False
    return ast.unparse(node.test) == "__name__ == '__main__'"


def is_ours(name: str) -> bool:
    """Whether a module belongs to this package."""
    return name.partition(".")[0] == OURS


def is_own(name: str, path: Path) -> bool:
    """Whether a module belongs to this package or to the user's own files."""
    if is_ours(name):
        return True
    installed = any(path.is_relative_to(folder) for folder in _INSTALLED)
    return not installed and not {"site-packages", "dist-packages"} & set(path.parts)


def file_of(name: str, beside: Path | None = None) -> Path | None:
    """The file of a module's Python code; None if it has none.

    Args:
        name: dotted.
        beside: a file that imports it, in whose folder it is looked for at last.
    """
    known = sys.modules.get(name)
    place = _found(name) if known is None else getattr(known, "__file__", None)
    if place is None and beside is not None:
        place = _in_folder(beside.parent, name.split("."))
    path = None if place is None else Path(place)
    return path if path is not None and path.suffix == ".py" and path.is_file() else None


def _found(name: str) -> str | Path | None:
    """Where Python would find a module, without importing its parents as ``find_spec`` does."""
    top, *rest = name.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # a module made by hand, which has no spec
        return None
    if spec is None or not rest:
        return None if spec is None else spec.origin
    places = [_in_folder(Path(at), rest) for at in spec.submodule_search_locations or ()]
    return next((place for place in places if place is not None), None)


def _in_folder(folder: Path, parts: list[str]) -> Path | None:
    near = folder.joinpath(*parts)
    files = (near.with_name(f"{near.name}.py"), near / "__init__.py")
    return next((file for file in files if file.is_file()), None)


def _is_door(name: str, path: Path) -> bool:
    """Whether a module is a front door of this package: it defines nothing that computes."""
    return is_ours(name) and path.name == "__init__.py"


def _definition(module: str, attribute: str, beside: Path) -> tuple[str, Path] | None:
    """The module that a name was defined in, through front doors."""
    for _ in range(10):  # doors behind doors; a circle of them ends, too
        path = file_of(module, beside)
        if path is None or not attribute or path.name != "__init__.py":
            break
        part = _in_folder(path.parent, [attribute])
        if part is not None:
            return f"{module}.{attribute}", part
        forwarded = [entry for entry in _imports(module, path) if entry[2] == attribute]
        if not forwarded:
            break
        (module, attribute, _), beside = forwarded[-1], path
    return None if path is None else (module, path)


def _imports(name: str, path: Path) -> tuple[Import, ...]:
    return _parsed(name, path.name == "__init__.py", source(name, path))


@lru_cache(maxsize=1024)
def _parsed(name: str, is_package: bool, text: str) -> tuple[Import, ...]:
    try:
        tree = ast.parse(text)
    except SyntaxError:  # what cannot be imported imports nothing
        return ()
    package = name if is_package else name.rpartition(".")[0]
    late = not is_ours(name)
    found: list[Import] = []
    for node in _statements(tree, late):
        if isinstance(node, ast.Import):
            found += [(entry.name, "", entry.asname or entry.name) for entry in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            found += [(base, entry.name, entry.asname or entry.name) for entry in node.names]
    return tuple(found)


def _statements(tree: ast.AST, late: bool) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        yield node
        if late or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _statements(node, late)
