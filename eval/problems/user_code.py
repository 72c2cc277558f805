"""Python code that a user names on the command line."""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType


@contextmanager
def imported(name: str) -> Iterator[tuple[ModuleType, str]]:
    """The module and the attribute that ``module:attribute`` or ``path/file.py:attribute`` names.

    Modules are looked for where Python finds them and in the working directory; beside a file, the
    files of its folder can be imported. Within, so that functions may import late.

    Raises:
        ValueError: if there is no such module or file, or its code fails.
    """
    place, _, attribute = name.rpartition(":")
    path = Path(place) if place.endswith(".py") else None
    with _importable(Path.cwd() if path is None else path.resolve().parent):
        yield _module(name, place) if path is None else _file(name, path), attribute


def failed(name: str, doing: str, error: Exception) -> ValueError:
    """An error of a user's code in one line."""
    reason = " ".join(str(error).split()) or "no message"
    return ValueError(f"{name}: {doing} failed with {type(error).__name__}: {reason}; correct it")


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
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name and f"{place}.".startswith(f"{error.name}."):
            raise ValueError(
                f"{name}: there is no module {error.name!r}; write module:attribute for one that "
                "can be imported here, or path/file.py:attribute"
            ) from error
        raise failed(name, "importing it", error) from error
    except Exception as error:
        raise failed(name, "importing it", error) from error


def _file(name: str, path: Path) -> ModuleType:
    if not path.is_file():
        raise ValueError(f"{name}: there is no file {path}; write path/file.py:attribute")
    # A name of its own, so that it hides no module, and the real one for pickles and dataclasses.
    own = f"_fewstep_{path.stem}"
    spec = importlib.util.spec_from_file_location(own, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[own] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[own]
        raise failed(name, "importing it", error) from error
    return module
