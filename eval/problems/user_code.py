"""Python code that a user names on the command line."""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from fewstep.eval.common.imports import file_of, is_own
from fewstep.eval.common.source_code import LOADED

_NEIGHBOURS: set[str] = set()  # modules that files below imported from their own folders


@contextmanager
def imported(name: str) -> Iterator[tuple[ModuleType, str]]:
    """The module and the attribute that ``module:attribute`` or ``path/file.py:attribute`` names.

    Modules are looked for where Python finds them and in the working directory; beside a file, the
    files of its folder can be imported. A file is run anew each time, and so are those that it
    imports from its folder. Within, so that functions may import late.

    Raises:
        ValueError: if there is no such module or file, or its code fails.
    """
    place, _, attribute = name.rpartition(":")
    path = Path(place) if place.endswith(".py") else None
    folder = Path.cwd() if path is None else path.resolve().parent
    with _importable(folder):
        yield _module(name, place) if path is None else _file(name, path), attribute


def failed(name: str, doing: str, error: BaseException) -> ValueError:
    """An error of a user's code in one line."""
    reason = " ".join(str(error).split()) or "no message"
    if isinstance(error, SystemExit):
        reason = f"it ends the program, with status {error.code}"
    return ValueError(f"{name}: {doing} failed with {type(error).__name__}: {reason}; correct it")


@contextmanager
def told_of(name: str, doing: str) -> Iterator[None]:
    """Within, an error of a user's code becomes one line, and so does an end of the program.

    Ctrl-C stays what it is.

    Raises:
        ValueError: for any other exception, ``SystemExit`` among them.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise failed(name, doing, error) from error


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Within, modules of the folder can be imported, as they can by a script that lies there."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))


def _module(name: str, place: str) -> ModuleType:
    with told_of(name, "importing it"):
        try:
            return importlib.import_module(place)
        except ModuleNotFoundError as error:
            if not (error.name and f"{place}.".startswith(f"{error.name}.")):
                raise
            lacking = error.name
    raise ValueError(
        f"{name}: there is no module {lacking!r}; write module:attribute for one that can be "
        "imported here, or path/file.py:attribute"
    )


def _file(name: str, path: Path) -> ModuleType:
    if not path.is_file():
        raise ValueError(f"{name}: there is no file {path}; write path/file.py:attribute")
    # A name of its own, so that it hides no module, and the real one for pickles and dataclasses.
    own = f"{LOADED}{path.stem}"
    spec = importlib.util.spec_from_file_location(own, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Those of another folder may have the same names, and those of this one may have been edited.
    for neighbour in _NEIGHBOURS:
        sys.modules.pop(neighbour, None)
    _NEIGHBOURS.clear()
    before, sys.modules[own] = set(sys.modules), module
    try:
        with told_of(name, "importing it"):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[own]
        raise
    finally:
        _NEIGHBOURS.update(_within(path.resolve().parent, set(sys.modules) - before))
    return module


def _within(folder: Path, names: set[str]) -> set[str]:
    """Those modules of the user's own whose files lie in a folder."""
    files = {name: file_of(name) for name in names if not name.startswith(LOADED)}
    return {
        name for name, path in files.items()
        if path is not None and path.resolve().is_relative_to(folder) and is_own(name, path)
    }  # fmt: skip
