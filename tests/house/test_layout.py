"""The root folders are the package, in an editable install and in a wheel; the docs keep up."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import types
import venv
import zipfile
from pathlib import Path

import pytest
import tiny_pipelines
import torch

import fewstep
from fewstep.samplers import SAMPLERS, build_plan, parse_spec
from fewstep.samplers.solvers.auto import BANDS
from fewstep.samplers.solvers.spec import Sampler
from fewstep.schedules import GRIDS, Flow, discrete_vp

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("samplers", "schedules", "guidance", "models", "eval")
MODULES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
DATA = (
    "models/weights/fashion.safetensors", "models/weights/classifier.safetensors",
    "models/weights/fashion_weak.safetensors", "models/weights/minority.safetensors",
    "eval/data/mix8.json", "eval/data/ring2.json", "eval/data/fashion16.npz",
    "eval/data/fashion_stats.npz", "eval/reports/templates/report.html.jinja",
    "eval/reports/templates/macros.html.jinja", "eval/reports/templates/report.css",
    "eval/reports/templates/report.js",
)  # fmt: skip


def python(code: str, folder: Path, *, executable: str | Path = sys.executable) -> str:
    """What ``code`` prints in a fresh interpreter that stands in ``folder``."""
    done = subprocess.run(
        [executable, "-c", code],
        cwd=folder,
        env=clean_environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("fewstep", *(part for part in parts if part != "__init__")))


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_modules_are_the_root_files(path: Path) -> None:
    spec = importlib.util.find_spec(module_name(path))
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).resolve() == path


@pytest.mark.parametrize("folder", FOLDERS)
def test_root_names_are_refused(folder: str) -> None:
    """A second copy of a class, under another name, would break isinstance silently."""
    done = subprocess.run(
        [sys.executable, "-c", f"import {folder}"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"ImportError: import fewstep.{folder}, not {folder}"


def test_links_are_relative_and_complete() -> None:
    links = {path.name: os.readlink(path) for path in (ROOT / "src/fewstep").iterdir()
             if path.is_symlink()}  # fmt: skip
    assert links == {folder: f"../../{folder}" for folder in FOLDERS}


HEAVY = "{'torch', 'diffusers', 'numpy', 'scipy', 'matplotlib', 'transformers'}"


def test_import_is_light(tmp_path: Path) -> None:
    code = f"import sys, fewstep; dir(fewstep); print(sorted({HEAVY} & set(sys.modules)))"
    assert python(code, tmp_path) == "[]\n"


def test_help_is_light(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom fewstep.__main__ import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as done:\n"
        f"    print(done.code, sorted({HEAVY} & set(sys.modules)))"
    )
    assert python(code, tmp_path).splitlines()[-1] == "0 []"


def test_public_names_exist() -> None:
    for name in fewstep.__all__:
        assert getattr(fewstep, name) is not None
    for entry in SAMPLERS.values():
        assert entry.scheduler in fewstep.__all__
        assert getattr(fewstep, entry.scheduler).__module__ == "fewstep"
    with pytest.raises(AttributeError, match="no attribute 'UniPCC'"):
        fewstep.UniPCC  # noqa: B018


# The documentation


def test_solvers_page_names_every_solver_option_and_grid() -> None:
    text = (ROOT / "docs/solvers.md").read_text()
    sections = dict(re.findall(r"^### `(\w+)`\n(.*?)(?=^##)", text, re.MULTILINE | re.DOTALL))
    sections.pop("softlog")
    assert list(sections) == list(SAMPLERS)
    for name, entry in SAMPLERS.items():
        assert f"Class `{entry.scheduler}`" in sections[name]
        assert entry.paper in sections[name]
        assert not [option for option in entry.options() if f"`{option}=" not in sections[name]]
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == ["auto", *GRIDS]


def test_readme_table_names_every_solver() -> None:
    """The table whose first heading is "sampler" has one row for each, in order."""
    text = (ROOT / "README.md").read_text()
    table = re.search(r"^\| *sampler *\|.*\n\|[-:| ]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert table is not None, "README.md has no table with the heading 'sampler'"
    assert re.findall(r"^\| *`(\w+)` *\|", table.group(1), re.MULTILINE) == list(SAMPLERS)


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.stem)
def test_links_in_docs_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text())
    assert not [link for link in links if not (page.parent / link).exists()]


def python_blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("page", ["getting_started", "plan_format", "gpu", "tuning"])
def test_python_in_docs_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All blocks of a page, one after the other, as a reader would run them."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "page"}
    for block in python_blocks(f"docs/{page}.md"):
        exec(compile(block, page, "exec"), names)
    printed = capsys.readouterr().out
    if page == "plan_format":
        assert printed.startswith(str(names["plan"]) + "\n")
        assert f"```text\n{names['plan']}\n```" in (ROOT / "docs/plan_format.md").read_text()


def test_python_of_the_readme_runs() -> None:
    """The blocks that need no download and no GPU; the other's names exist."""
    with_diffusers, without, guided = python_blocks("README.md")
    names: dict[str, object] = {"pipe": tiny_pipelines.with_scheduler("sd", fewstep.IPNDM)[0]}
    exec(compile(guided, "README", "exec"), names)
    exec(compile(without, "README", "exec"), names)
    images = names["images"]
    assert isinstance(images, torch.Tensor)
    assert images.shape == (10, 1, 28, 28)
    assert "from fewstep import IPNDM" in with_diffusers
    assert hasattr(fewstep, "IPNDM")


def test_solver_of_the_docs_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of ``adding_a_solver.md``, without its edits of files."""
    solver, entry, band, scheduler, row = python_blocks("docs/adding_a_solver.md")
    module = types.ModuleType("fewstep.samplers.solvers.gradient")
    exec(solver, module.__dict__)
    assert len(solver.split('"""', 2)[2].strip().splitlines()) <= 25
    names = {"Sampler": Sampler, **module.__dict__}
    for table, line in ((SAMPLERS, entry), (BANDS, band)):
        for name, value in eval("{" + line + "}", names).items():
            monkeypatch.setitem(table, name, value)
    assert str(parse_spec("gradient:gamma=1.5")) == "gradient:gamma=1.5"
    for process in (discrete_vp("linear"), Flow()):
        assert build_plan("gradient", process, 5).nfe == 5  # on its automatic grid
        specs = ("gradient:gamma=1,grid=karras", "euler:grid=karras")
        plan, euler = (build_plan(spec, process, 5).evaluations for spec in specs)
        for ours, known in zip(plan, euler, strict=True):
            (op,), (expected,) = ours.ops, known.ops
            assert (ours.time, op.c_x, op.w[0]) == (known.time, expected.c_x, expected.w[0])
            assert not any(op.w[1:])
    code = (
        "from fewstep.samplers.adapter.base import PlanSchedulerMixin\n"
        "from fewstep.samplers.solvers.registry import SAMPLERS\n"
        "from fewstep.samplers.adapter.settings import with_settings\n"
    )
    exec(code + scheduler, names)
    made = names["Gradient"](gamma=1.5)
    made.set_timesteps(6)
    assert len(made.timesteps) == 6
    assert eval(row) == (("gradient", "logsnr", 1),)


def test_notebooks_are_stripped_and_valid() -> None:
    nbformat = pytest.importorskip("nbformat")
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        nbformat.validate(nbformat.read(path, as_version=4))
        cells = json.loads(path.read_text())["cells"]
        assert len({cell["id"] for cell in cells}) == len(cells)
        code = [cell for cell in cells if cell["cell_type"] == "code"]
        assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


# The wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.slow
def test_wheel_holds_the_package_once(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        entries = {entry.filename: entry.file_size for entry in archive.infolist()}
    expected = {f"fewstep/{path.relative_to(ROOT).as_posix()}" for path in MODULES}
    own = (ROOT / "src/fewstep").iterdir()
    expected |= {f"fewstep/{path.name}" for path in own if path.suffix == ".py"} | {
        "fewstep/py.typed"
    }
    assert expected <= entries.keys()
    assert {f"fewstep/{name}" for name in DATA} <= entries.keys()
    python_files = {name for name in entries if name.endswith(".py")}
    assert python_files <= expected  # no tests, nothing twice
    assert max(entries.values()) <= 10e6
    assert any(name.endswith("/LICENSE") for name in entries)


@pytest.mark.slow
def test_wheel_works_elsewhere(wheel: Path, tmp_path: Path) -> None:
    """In a fresh environment that borrows the dependencies of this one, from another folder."""
    venv.create(tmp_path / "env", with_pip=False)
    bin_folder = tmp_path / "env/bin"
    install = [
        sys.executable, "-m", "pip", "--python", str(bin_folder / "python"), "install", "--quiet",
        "--no-deps", "--no-index", str(wheel),
    ]  # fmt: skip
    subprocess.run(install, check=True, env=clean_environment())
    (own,) = (tmp_path / "env").glob("lib/python*/site-packages")
    # Lines of a .pth file join sys.path, but .pth files in there (ours, editable) are not read.
    (own / "borrowed.pth").write_text(str(Path(torch.__file__).parents[1]) + "\n")
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    code = (
        "import json, torch, fewstep\n"
        "from importlib.resources import files\n"
        "from fewstep import UniPC, sample\n"
        "from fewstep.models.bundled import bundled_classifier, bundled_denoiser\n"
        "x = sample(bundled_denoiser(), 'unipc', 2, shape=(1, 1, 28, 28), cond=torch.tensor([1]))\n"
        "assert bundled_classifier()(x).shape == (1, 10)\n"
        "scheduler = UniPC(); scheduler.set_timesteps(4)\n"
        "print(json.dumps([fewstep.__file__, len(scheduler.timesteps),\n"
        f"    [(files('fewstep') / name).is_file() for name in {DATA!r}]]))"
    )
    where, count, present = json.loads(python(code, folder, executable=bin_folder / "python"))
    assert Path(where).is_relative_to(own)
    assert count == 4
    assert all(present)
    plan = subprocess.run(
        [bin_folder / "fewstep", "plan", "unipc", "--nfe", "3"],
        cwd=folder, env=clean_environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert plan.stdout == f"{build_plan('unipc', discrete_vp('linear'), 3)}\n"
    assert not list(folder.iterdir())
