"""Commands that only read and write text start at once: neither torch nor diffusers is imported."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from report_results import sample_results

from fewstep.eval.cli.device import torch_build
from fewstep.eval.networks.inception_weights import _checkpoints
from fewstep.eval.reports.report import write_report
from fewstep.samplers import build_plan
from fewstep.schedules import discrete_vp

HEAVY = ("torch", "diffusers", "transformers", "matplotlib", "scipy")
LIGHT = {
    "version": ["--version"],
    "help": ["--help"],
    "help of a command": ["bench", "--help"],
    "list": ["list"],
    "one entry": ["list", "gfcg"],
    "doctor": ["doctor"],
    "plan": ["plan", "unipc:order=2,grid=karras", "--nfe", "8", "--save", "p.json"],
    "saved plan": ["plan", "saved.json"],
    "plan of a problem": ["plan", "heun", "--problem", "fashion"],
}
CODE = """
import sys
from fewstep.eval.cli import main
try:
    main(sys.argv[1:])
except SystemExit as done:
    print(*sorted({HEAVY} & set(sys.modules)), file=sys.stderr)
    raise
"""


def cpu(*arguments: str, folder: Path) -> tuple[float, "subprocess.CompletedProcess[str]"]:
    """Seconds of CPU time that python takes, which other work on the machine does not lengthen."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "FEWSTEP_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, env=environment
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done


@pytest.mark.parametrize("name", LIGHT)
def test_what_is_text_needs_no_torch(name: str, tmp_path: Path) -> None:
    build_plan("dpmpp", discrete_vp("linear"), 5).save(tmp_path / "saved.json")
    code = CODE.replace("{HEAVY}", repr(set(HEAVY)))
    _, done = cpu("-c", code, *LIGHT[name], folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == ""
    assert done.stdout


def test_reports_are_drawn_without_torch(tmp_path: Path) -> None:
    """Images included; reading them back and drawing them needs numpy alone."""
    results = sample_results(samplers=("ddim",), guidance=("none",))
    write_report(results, tmp_path / "there")
    code = CODE.replace("{HEAVY}", repr({*HEAVY} - {"matplotlib"}))
    _, done = cpu("-c", code, "report", "there", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == ""


@pytest.mark.parametrize("name", ["list", "doctor", "plan"])
def test_it_starts_in_a_moment(name: str, tmp_path: Path) -> None:
    """1.5 s where importing numpy and typer takes .35 s; the least of four counts."""
    base = min(cpu("-c", "import numpy, typer, rich.table", folder=tmp_path)[0] for _ in range(4))
    own = min(cpu("-m", "fewstep", *LIGHT[name], folder=tmp_path)[0] for _ in range(4))
    assert own < 1.5 / 0.35 * base


def test_torch_is_described_without_importing_it() -> None:
    build = torch_build()
    assert build["cuda"] == torch.version.cuda
    assert build["hip"] == torch.version.hip
    assert build["__version__"] == torch.__version__


@pytest.mark.parametrize(
    "environment", [{}, {"TORCH_HOME": "~/here"}, {"XDG_CACHE_HOME": "/there"}]
)
def test_weights_are_looked_for_where_torch_would(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    expected = Path(torch.hub.get_dir()) / "checkpoints"
    assert _checkpoints() == expected
    monkeypatch.delitem(sys.modules, "torch.hub")
    assert _checkpoints() == expected
