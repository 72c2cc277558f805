"""Keys of cached references follow the code that made them, in whatever file that is."""

import ast
import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fewstep.eval.common.imports import source_files
from fewstep.eval.common.keys import reference_key
from fewstep.eval.common.source_code import Code
from fewstep.eval.problems import Problem, load_problem
from fewstep.guidance import CFG, EnergyGuidance, Expression, ScaleSchedule
from fewstep.guidance.parse import MODIFIERS, SOURCES
from fewstep.models.exact import MixtureDenoiser
from fewstep.models.ode import reference_solution
from fewstep.samplers.core.execute import Executor

ROOT = Path(__file__).resolve().parents[3]
# A source whose formula is in one file, a helper in a second, a constant behind a front door.
FILES = {
    "mine.py": """
from dataclasses import dataclass

import torch

import helper
from fewstep.guidance import CFG, EnergyGuidance, Modifier, ScaleSchedule
from parts import pull


@dataclass(frozen=True)
class Mine(CFG):
    def plan(self, ctx):
        from late import soft

        return helper.formula(pull, soft)


@dataclass(frozen=True)
class Shaped(Modifier):
    by: float = 1.0

    def shape(self, base, direction, ctx):
        return direction


TABLE = torch.tensor([1.0, 2.0])
guidance = Mine(2.0) | Shaped()
energy = EnergyGuidance(lambda x, level: TABLE.sum() * x.flatten(1).square().sum(1), 1)
""",
    "helper.py": "def formula(pull, soft):\n    return pull + soft\n",
    "late.py": "soft = 1.0\n",
    "parts/__init__.py": "from .forces import PULL as pull\n",
    "parts/forces.py": "PULL = 1.0\n",
    "unrelated.py": "VALUE = 1\n",
}
ASK = """
import sys
from fewstep.eval.common.keys import reference_key
from fewstep.eval.problems import load_problem
from fewstep.models.ode import reference_solution
import mine, unrelated

problem = load_problem("mix8")
for guidance in (mine.guidance, mine.energy):
    print(reference_key(problem, guidance, by=reference_solution))
"""
EDITS = {
    "the source's own file": (
        "mine.py",
        "helper.formula(pull, soft)",
        "2 * helper.formula(0, 1)",
        2,
    ),
    "a modifier's formula": ("mine.py", "return direction", "return None", 2),
    "data that an energy reads": ("mine.py", "[1.0, 2.0]", "[1.0, 3.0]", 2),
    "a module that it imports": ("helper.py", "pull + soft", "pull - soft", 2),
    "an import in a function": ("late.py", "1.0", "2.0", 2),
    "a constant behind a front door": ("parts/forces.py", "1.0", "2.0", 2),
    "what it does not import": ("unrelated.py", "1", "2", 0),
    "a comment": ("helper.py", "return", "# why it is a sum\n    return", 0),
    "a docstring": ("helper.py", "return", '"""The sum."""\n    return', 0),
    "layout": ("helper.py", "pull + soft", "(\n        pull + soft\n    )", 0),
    "what scripts alone do": (
        "late.py",
        "1.0\n",
        "1.0\nif __name__ == '__main__':\n    soft = 2\n",
        0,
    ),
    "a branch of it": ("late.py", "1.0\n", "1.0\nif __name__ != '__main__':\n    soft = 2\n", 2),
}


def keys(folder: Path) -> list[str]:
    """Those of the two guidances, in a fresh process."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    found = subprocess.run(
        [sys.executable, "-c", ASK], cwd=folder, env=environment, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    return found.stdout.split()


def write(folder: Path) -> None:
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture(scope="module")
def problem() -> Problem:
    return load_problem("ring2")


def key(problem: Problem, guidance: Expression | None, by: Callable[..., object] = Executor):
    return reference_key(problem, guidance, by=by)


def test_the_key_is_the_same_in_every_process_and_another_after_an_edit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    first = keys(tmp_path)
    assert "None" not in first
    # Another process has the same, and sees the edits below once it has loaded them.
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # which goes by whole seconds
    problem = load_problem("mix8")

    def now() -> list[str | None]:
        forget()
        mine = importlib.import_module("mine")
        return [key(problem, one, reference_solution) for one in (mine.guidance, mine.energy)]

    try:
        assert now() == first
        for what, (name, old, new, changed) in EDITS.items():
            text = FILES[name]
            assert old in text
            (tmp_path / name).write_text(text.replace(old, new))
            apart = [a != b for a, b in zip(now(), first, strict=True)]
            assert sum(apart) == changed, what
            (tmp_path / name).write_text(text)
            assert now() == first
        (tmp_path / "helper.py").write_text(FILES["helper.py"].replace("+", "-"))
        assert all(a != b for a, b in zip(keys(tmp_path), first, strict=True))
    finally:
        forget()


def forget() -> None:
    for name in ("mine", "helper", "late", "parts", "parts.forces", "unrelated"):
        sys.modules.pop(name, None)


def test_an_edit_in_the_middle_of_a_run_does_not_vouch_for_the_old_code(
    tmp_path: Path, problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what the old code computes after it would be the answer of the new code's first run."""
    write(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    mine = importlib.import_module("mine")
    try:
        before = key(problem, mine.guidance)
        for name in ("mine.py", "helper.py", "parts/forces.py"):
            (tmp_path / name).write_text("raise RuntimeError\n")
        assert key(problem, mine.guidance) == before
    finally:
        forget()


def test_functions_are_told_apart_by_place_and_by_what_they_read(problem: Problem) -> None:
    def scaled(by: object) -> Callable[[float], float]:
        return lambda u: float(by) * u  # type: ignore[arg-type]

    pair = (lambda u: u, lambda u: 2 * u)
    functions = [*pair, scaled(1.0), scaled(2.0), scaled(torch.tensor(2.0))]
    found = [key(problem, CFG(2) | ScaleSchedule(function)) for function in functions]
    assert None not in found
    assert len(set(found)) == len(found)
    assert key(problem, CFG(2) | ScaleSchedule(scaled(1.0))) == found[2]
    # Which of two equal places has which value counts, too.
    a, b = EnergyGuidance(scaled2(1.0), 1), EnergyGuidance(scaled2(2.0), 1)
    assert key(problem, a + replace(b, site="b")) != key(problem, b + replace(a, site="b"))


def scaled2(by: float) -> Callable[..., torch.Tensor]:
    return lambda x, level: by * x.flatten(1).sum(1)


NETWORK = torch.nn.Linear(2, 1)


def test_the_weights_of_a_network_that_a_function_reads_count(problem: Problem) -> None:
    guidance = EnergyGuidance(lambda x, level: NETWORK(x)[:, 0], 1)
    before = key(problem, guidance)
    assert before is not None
    with torch.no_grad():
        NETWORK.weight.add_(1)
    assert key(problem, guidance) not in (None, before)


def test_what_cannot_be_read_has_no_key(problem: Problem) -> None:
    space: dict[str, object] = {"CFG": CFG, "__name__": "__notebook__"}
    exec("class Mine(CFG):\n    pass\nmine = Mine(2.0)", space)
    assert key(problem, space["mine"]) is None  # type: ignore[arg-type]
    handle = object()
    assert key(problem, CFG(2) | ScaleSchedule(lambda u: u if handle else 0)) is None


def test_every_registered_part_stands_for_its_module_and_for_what_that_imports() -> None:
    for kind in (*SOURCES.values(), *MODIFIERS.values()):
        code = Code()
        code.add(kind)
        files = source_files(code.modules)
        assert {kind.__module__, "fewstep.guidance.driver", "fewstep.guidance.rows"} <= set(files)
        assert "fewstep.guidance.pipelines.attachment" not in files


def test_the_model_the_process_and_the_solver_count(problem: Problem) -> None:
    names = set()
    for text in _texts(problem, reference_solution):
        names.add(text.partition("\n")[0])
    for kind in (MixtureDenoiser, type(problem.process), reference_solution):
        assert kind.__module__ in names
    # Tables of other samplers, the command line and reports do not.
    assert not {name for name in names if name.startswith(("fewstep.eval", "fewstep.samplers"))}
    assert key(problem, None, reference_solution) != key(problem, None, Executor)


def _texts(problem: Problem, by: Callable[..., object]) -> list[str]:
    code = Code()
    code.add_readable(problem.denoiser, problem.process, by)
    return code.texts()


def test_late_imports_of_ours_load_files_only() -> None:
    """The walk leaves them out, so nothing that computes may be imported within a function."""
    late = set()
    folders = ("guidance", "models", "schedules", "samplers")
    for path in (file for folder in folders for file in (ROOT / folder).rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef):
                for node in ast.walk(function):
                    if isinstance(node, ast.ImportFrom) and str(node.module).startswith("fewstep"):
                        late.add(path.relative_to(ROOT).as_posix())
    # Weights and texts are read.
    assert late == {"models/bundled.py", "guidance/parse.py", "samplers/sampling/given.py"}


def test_front_doors_of_ours_define_nothing() -> None:
    for path in (ROOT / "guidance", ROOT / "models", ROOT / "schedules", ROOT / "samplers"):
        for door in path.rglob("__init__.py"):
            body = ast.parse(door.read_text()).body
            assert not [n for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef)], door
