"""The rooms of the package stand on floors: what is above may import what is below, never back."""

import ast
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOPS = ("samplers", "schedules", "guidance", "models", "eval")
# Lowest first. A room is a folder; rooms of one floor do not import each other.
FLOORS = (
    {""},  # the package's own files: protocols, errors, names that are imported late
    {"schedules"},
    {"schedules.diffusers", "samplers.core", "models"},
    {"samplers.solvers", "guidance", "models.training"},
    {"samplers.gaussian", "guidance.sources"},
    {"samplers.adapter", "samplers.sampling", "guidance.modifiers"},
    {"samplers.tuning", "guidance.pipelines"},
    {"eval.common"},
    {"eval.networks"},
    {"eval.problems"},
    {"eval.metrics"},
    {"eval.generate", "eval.reports"},
    {"eval.images"},
    {"eval.bench"},
    {"eval.tune"},
    {"eval.cli"},
)
HEIGHT = {room: height for height, floor in enumerate(FLOORS) for room in floor}
Sources = Mapping[str, str]  # of every module, by its dotted name without ``fewstep.``


def sources_of(root: Path) -> dict[str, str]:
    paths = {".".join(path.relative_to(root).with_suffix("").parts): path
             for top in TOPS for path in (root / top).rglob("*.py")}  # fmt: skip
    paths |= {path.stem: path for path in (root / "src/fewstep").glob("*.py")}
    return {name: path.read_text() for name, path in paths.items()}


@cache
def imports(text: str, annotations: bool) -> tuple[tuple[str, str], ...]:
    """(module, name) of what is imported from the package, at the top or within functions."""
    todo: list[ast.AST] = [ast.parse(text)]
    pairs = []
    while todo:
        node = todo.pop()
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "fewstep":
            module = str(node.module).removeprefix("fewstep").removeprefix(".")
            pairs += [(module, entry.name) for entry in node.names]
        for_checkers = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        todo += [] if for_checkers and not annotations else ast.iter_child_nodes(node)
    return tuple(pairs)


def origin(sources: Sources, module: str, name: str) -> str:
    """The module that a name is imported from, through front doors."""
    inside = f"{module}.{name}".removeprefix(".")
    if inside in sources:
        return inside
    door = f"{module}.__init__".removeprefix(".")
    if door not in sources:
        return module
    forwarded = [place for place, entry in imports(sources[door], True) if entry == name]
    return origin(sources, forwarded[0], name) if forwarded else door


def arrows(sources: Sources) -> set[tuple[str, str]]:
    """(importing module, imported module); front doors import from everywhere, and do not count."""
    return {
        (here, origin(sources, module, name))
        for here, text in sources.items()
        if not here.endswith("__init__") and here != "__main__"
        for module, name in imports(text, False)
    }


def faults(sources: Sources) -> set[str]:
    """What breaks the floors, and circles of modules."""
    edges = arrows(sources)
    found = {f"{name} is in a circle" for name in in_circles(edges)}
    for name, target in edges:
        here, there = (place.rpartition(".")[0] for place in (name, target))
        if target == "__init__":  # the version, for the command line
            continue
        if here not in HEIGHT or there not in HEIGHT:
            found.add(f"{name} imports {target}: {here} or {there} is on no floor")
        elif here != there and HEIGHT[there] >= HEIGHT[here]:
            found.add(f"{name} imports {target}, which is above it or beside it")
    return found


def in_circles(edges: set[tuple[str, str]]) -> set[str]:
    """The modules that are left when those without arrows in, or out, are taken away in turn."""
    while True:
        starts, ends = {start for start, _ in edges}, {end for _, end in edges}
        left = {(start, end) for start, end in edges if start in ends and end in starts}
        if left == edges:
            return {name for edge in edges for name in edge}
        edges = left


@pytest.fixture(scope="module")
def sources() -> dict[str, str]:
    return sources_of(ROOT)


def test_no_import_leads_up_or_around(sources: dict[str, str]) -> None:
    assert faults(sources) == set()


def test_the_core_knows_neither_solvers_nor_diffusers() -> None:
    for path in (ROOT / "samplers/core").glob("*.py"):
        tree = ast.parse(path.read_text())
        heads = {entry.name for node in ast.walk(tree) if isinstance(node, ast.Import)
                 for entry in node.names}  # fmt: skip
        heads |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not {head for head in heads if head.startswith(("diffusers", "fewstep.samplers.so"))}


def test_the_core_can_be_read_in_an_evening() -> None:
    lines = sum(len(path.read_text().splitlines()) for path in ROOT.glob("samplers/core/*.py"))
    assert lines <= 1100
    entries = [path for path in (ROOT / "samplers").iterdir() if path.name != "__pycache__"]
    assert len(entries) <= 9


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("samplers.core.ops", "from fewstep.samplers.solvers.spec import SAMPLERS"),
        ("samplers.core.execute", "from fewstep.samplers import SAMPLERS"),  # through a door
        ("schedules.grids", "def late():\n    from fewstep.samplers.core.plan import Plan"),
        ("eval.common.clock", "from fewstep.eval.cli import app"),
        ("samplers.core.ops", "from fewstep.samplers.core.plan import Plan"),  # a circle
        ("guidance.sources.gfcg", "from fewstep.guidance.modifiers.shaping import Project"),
    ],
)
def test_an_import_that_breaks_a_floor_is_seen(
    module: str, line: str, sources: dict[str, str]
) -> None:
    new = faults({**sources, module: f"{sources[module]}\n{line}\n"}) - faults(sources)
    assert any(fault.startswith(module) for fault in new)
