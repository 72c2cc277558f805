"""The front doors: every name that users need, once, and no other way in the documentation."""

import ast
import importlib
import inspect
import json
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fewstep.late import public_imports

ROOT = Path(__file__).resolve().parents[2]
DOORS = (
    "fewstep", "fewstep.samplers", "fewstep.schedules", "fewstep.guidance", "fewstep.models",
    "fewstep.eval",
)  # fmt: skip
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# Its blocks are files of the package and what is added to others, not code that users run.
OF_THE_PACKAGE = {"adding_a_solver.md"}


def code_of(path: Path) -> list[str]:
    """The Python of a page or a notebook."""
    if path.suffix == ".md":
        return re.findall(r"^```python\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)
    cells = json.loads(path.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def imports(code: str) -> Iterator[tuple[str, str | None]]:
    """(module, name) of every import of fewstep; the name is None for ``import module``."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found = [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found = [(str(node.module), alias.name) for alias in node.names]
        else:
            continue
        yield from (entry for entry in found if entry[0].split(".")[0] == "fewstep")


@pytest.mark.parametrize("page", PAGES + NOTEBOOKS, ids=lambda path: path.name)
def test_documentation_comes_in_by_the_doors(page: Path) -> None:
    if page.name in OF_THE_PACKAGE:
        return
    for code in code_of(page):
        for module, name in imports(code):
            assert module in DOORS, f"{module} is no front door"
            assert name is None or name in importlib.import_module(module).__all__


def test_documentation_has_imports() -> None:
    """The test above looks at something: pages and notebooks are read, imports are seen."""
    pages = [ROOT / "README.md", ROOT / "docs/getting_started.md", *NOTEBOOKS]
    assert all(any([*imports(code)] for code in code_of(page)) for page in pages)
    assert [*imports("import fewstep.a\nfrom fewstep.b import c\nimport os")] == [
        ("fewstep.a", None),
        ("fewstep.b", "c"),
    ]


@pytest.mark.parametrize("door", DOORS)
def test_every_name_opens_and_is_explained(door: str) -> None:
    package = importlib.import_module(door)
    names = package.__all__
    assert names == sorted(set(names))
    assert set(names) <= set(dir(package))
    for name in names:
        value = getattr(package, name)
        assert not inspect.ismodule(value)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__name__ == name
            # Without a docstring a dataclass has one made of its fields: "Name(field: ...".
            assert value.__doc__
            assert not value.__doc__.startswith(f"{name}(")


def test_a_name_is_one_object() -> None:
    """A name that two doors have, as ``Plan``, is the same behind both."""
    objects: dict[str, object] = {}
    for door in DOORS:
        package = importlib.import_module(door)
        for name in package.__all__:
            assert objects.setdefault(name, getattr(package, name)) is getattr(package, name), name


@pytest.mark.parametrize("door", DOORS)
def test_no_room_stands_before_a_name(door: str) -> None:
    """Importing a submodule sets it as an attribute, and no name of a door may be hidden so."""
    package = importlib.import_module(door)
    rooms = {module.name for module in pkgutil.iter_modules(package.__path__)}
    assert not rooms & set(package.__all__)


@pytest.mark.parametrize("door", DOORS)
def test_each_name_has_one_line(door: str) -> None:
    """An import without ``as``, or outside the block, would be public to nobody, or to some."""
    package = importlib.import_module(door)
    source = inspect.getsource(package)
    block = [node for node in ast.parse(source).body if isinstance(node, ast.If)][-1]
    lines = [line for line in block.body if isinstance(line, ast.ImportFrom)]
    names = [(alias.name, alias.asname) for line in lines for alias in line.names]
    assert all(name == public for name, public in names)
    assert len(names) == len(public_imports(source)) == len(package.__all__)


@pytest.mark.parametrize("door", DOORS)
def test_doors_are_a_map(door: str) -> None:
    """Lines of its docstring, "- room, room: what they hold", name every room and no other."""
    package = importlib.import_module(door)
    modules = [*pkgutil.iter_modules(package.__path__)]
    rooms = {module.name for module in modules if module.ispkg}
    headings = re.findall(r"^- (.*?): ", str(package.__doc__), re.MULTILINE)
    assert rooms
    named = set(re.findall(r"\w+", " ".join(headings))) - {"here", "mod", "fewstep"}
    assert rooms <= named <= {module.name for module in modules}


def test_doors_are_light(tmp_path: Path) -> None:
    """Standing in a door loads nothing heavy, nor does looking around."""
    heavy = "{'torch', 'diffusers', 'numpy', 'scipy', 'matplotlib', 'transformers'}"
    code = (
        f"import sys, {', '.join(DOORS)}\n"
        f"[dir(sys.modules[door]) for door in {DOORS}]\n"
        f"print(sorted({heavy} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_solvers_are_there_whatever_was_imported_first(tmp_path: Path) -> None:
    """A spec names its solver by the registry, which is full before anyone can read it."""
    code = (
        "from fewstep.samplers.solvers.spec import SAMPLERS, parse_spec\n"
        "print(parse_spec('restart'), len(SAMPLERS) > 10)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "restart True\n"
