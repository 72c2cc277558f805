"""The command line: every command, and one line for every mistake."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fewstep import __version__
from fewstep.eval import cli
from fewstep.eval.cli.overhead_guided import GUIDANCE
from fewstep.eval.cli.overhead_schedulers import SHAPES, by_hand, measure_all
from fewstep.eval.networks.inception_weights import ExtractorUnavailableError
from fewstep.samplers import Plan, build_plan
from fewstep.schedules import Flow

HAVE_WEIGHTS = (Path(__file__).parents[3] / "models/weights/fashion.safetensors").exists()
needs_weights = pytest.mark.skipif(not HAVE_WEIGHTS, reason="no bundled weights")


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> int:
    """Exit status of the command line."""
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_help_needs_no_torch() -> None:
    code = (
        "import sys\nfrom fewstep.eval import cli\n"
        "try:\n    cli.main(['bench', '--help'])\nexcept SystemExit as done:\n"
        "    print(done.code, sorted({'torch', 'diffusers', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"
    assert "--samplers" in done.stdout


def test_module_and_version() -> None:
    command = [sys.executable, "-m", "fewstep", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"fewstep {__version__}\n"


@pytest.mark.parametrize("command", [[], ["bench"], ["sample"], ["list"], ["plan"], ["doctor"]])
def test_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*command, "--help") == 0
    assert "Usage: fewstep" in capsys.readouterr().out


def test_plan_prints_and_saves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "deep" / "plan.json"
    assert run("plan", "unipc:order=2", "--nfe", "4", "--process", "flow", "--save", str(path)) == 0
    plan = build_plan("unipc:order=2", Flow(), 4)
    assert capsys.readouterr().out == f"{plan}\nplan: {path}\n"
    assert Plan.load(path) == plan
    assert [entry.name for entry in path.parent.iterdir()] == ["plan.json"]
    assert run("plan", str(path), "--nfe", "4", "--problem", "mix8-flow") == 0
    assert capsys.readouterr().out == f"{plan}\n"


def test_bench_writes_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report"
    options = ["--problem", "mix8", "--n", "32", "--nfe", "4,6", "--out", str(out)]
    assert run("bench", "--samplers", "ddim;unipc", "-s", "heun", *options) == 0
    printed = capsys.readouterr()
    assert printed.err == ""  # no progress bar where there is no terminal
    assert "report.html" in printed.out
    table = json.loads((out / "results.json").read_text())
    assert [(row["sampler"], row["nfe"]) for row in table["rows"]] == [
        (name, nfe) for name in ("ddim", "unipc", "heun") for nfe in (4, 6)
    ]


def test_bench_takes_guidance_in_either_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report"
    options = ["--problem", "fashion-exact", "--n", "4", "--nfe", "6", "--out", str(out)]
    written = ["--guidance", "none; cfg:3|interval:0.2,2", "-g", "icg:1.4", "-g", "none"]
    assert run("bench", "-s", "ddim", *options, *written) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "No RMSE under `icg:1.4`" in printed.out
    assert "network evaluations per sample" in printed.out
    table = json.loads((out / "results.json").read_text())
    texts = [row["guidance"] for row in table["rows"]]
    assert texts == ["none", "cfg:3|interval:0.2,2", "icg:1.4"]
    assert "samples-nfe06-1-cfg-3-interval-0.2,2.png" in {path.name for path in out.iterdir()}


def test_warnings_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--problem", "fashion-exact", "--n", "2", "--nfe", "4", "--out", str(tmp_path)]
    assert run("bench", "-s", "unipc", "-g", "icg:1.4", *options) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: ICG draws anew")


@needs_weights
def test_sample_is_guided_and_says_what_it_cost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--n", "2", "--nfe", "4", "--out", str(tmp_path / "grid.png")]
    assert run("sample", *options, "--guidance", "cfg:2") == 0
    assert "4 calls, 8 network evaluations an image" in capsys.readouterr().out
    assert run("sample", *options, "--guidance", "autoguidance:2") == 0
    assert "4 calls, 8 network evaluations an image" in capsys.readouterr().out
    assert run("sample", *options, "--guidance", "classifier:2") == 2
    assert "needs a noisy classifier" in capsys.readouterr().err


@needs_weights
def test_sample_draws_a_grid(tmp_path: Path) -> None:
    png = tmp_path / "grid.png"
    options = ["--classes", "1,9", "--n", "5", "--nfe", "3", "--out", str(png)]
    assert run("sample", *options) == 0
    first = png.read_bytes()
    assert first[:4] == b"\x89PNG"
    assert run("sample", *options) == 0
    assert png.read_bytes() == first
    assert run("sample", *options, "--seed", "1") == 0
    assert png.read_bytes() != first


@needs_weights
def test_doctor_is_content_and_says_what_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert run("doctor") == 0
    out = capsys.readouterr().out
    assert torch.__version__.split("+")[0] in out
    assert "sha256" in out
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr("fewstep.models.bundled.files", lambda package: tmp_path)
    assert run("doctor") == 1
    out = capsys.readouterr().out
    assert "cannot write" in out
    assert "train_fashion" in out


MISTAKES = {
    "unknown spec": (["bench", "-s", "euler2"], "unknown sampler 'euler2'; known: ddim"),
    "order 0": (["bench", "-s", "dpmpp:order=0", "--problem", "mix8"], "order must be 1, 2 or 3"),
    "bad option": (["plan", "ddim:speed=2"], "unknown option 'speed=2'"),
    "bad grid": (["plan", "ddim:grid=square"], "unknown grid 'square'; known: "),
    "nfe 0": (["plan", "ddim", "--nfe", "0"], "at least 1 call"),
    "nfe list": (["bench", "--nfe", "5,x"], "nfe takes whole numbers"),
    "nfe 0 in bench": (["bench", "--nfe", "5,0"], "nfe must be at least 1"),
    "n": (["bench", "--n", "0"], "n must be at least 2"),
    "not a number": (["bench", "--n", "many"], "Invalid value for '--n'"),
    "problem": (["bench", "--problem", "mix9"], "unknown problem 'mix9'; known: mix8"),
    "process": (["plan", "ddim", "--process", "vp"], "unknown process 'vp'; known: vp-linear"),
    "guidance": (["bench", "--problem", "mix8", "-g", "3"], "unknown guidance '3'; sources: cfg"),
    "guidance without classes": (
        ["bench", "--problem", "mix8", "--guidance", "cfg:3"], "'mix8', which has no classes",
    ),
    "no classifier": (["bench", "--problem", "mix8", "-g", "none;gfcg"], "gfcg needs a classifier"),
    "no network": (["bench", "--problem", "fashion-exact", "-g", "tsg"], "does not fit problem"),
    "guidance and sampler": (
        ["bench", "--problem", "fashion-exact", "-s", "unipc", "-g", "cfg:2|cfgpp"], "sampler ddim",
    ),
    "guidance and dopri5": (
        ["bench", "--problem", "fashion-exact", "-s", "dopri5", "-g", "icg:1.4"], "its own steps",
    ),
    "interval without a level": (
        ["bench", "--problem", "fashion-exact", "-s", "ddim", "-g", "cfg:2|interval:1e5,1e6"],
        "none of the sampler's levels",
    ),
    "peers": (["bench", "--peers", "k-diffusion"], "none or diffusers"),
    "peers of VE": (["bench", "--problem", "fashion-edm", "--peers", "diffusers"], "--peers none"),
    "device": (["bench", "--problem", "mix8", "--device", "abacus"], "try --device auto"),
    "folder": (["bench", "--problem", "mix8", "--out", "/dev/null/x"], "choose another folder"),
    "missing plan": (["bench", "--problem", "mix8", "-s", "gone.json"], "no plan at gone.json"),
    "not a plan": (["plan", "broken.json"], "not a fewstep plan"),
    "plan of another process": (["plan", "edm.json", "--process", "edm"], "another noise process"),
    "class": (["sample", "--classes", "1,10"], "classes are 0 to 9, got 10"),
    "picture": (["sample", "--out", "grid.txt"], "must name a .png file"),
    "save": (["plan", "ddim", "--save", "plan.txt"], "must name a .json file"),
    "repeats": (["overhead", "--repeats", "0"], "repeats must be at least 1"),
    "unknown command": (["bunch"], "No such command"),
    "unknown flag": (["plan", "ddim", "--fast"], "No such option"),
    "missing argument": (["plan"], "Missing argument"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_one_line(
    case: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments, message = MISTAKES[case]
    if "VE" in case and not HAVE_WEIGHTS:
        pytest.skip("no bundled weights")
    (tmp_path / "broken.json").write_text("{}")
    (tmp_path / "edm.json").write_text(build_plan("ddim", Flow(), 4).to_json())
    before = set(tmp_path.rglob("*"))
    assert run(*arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert message in printed.err
    # An empty folder for the report may have been made; no file was.
    assert not [path for path in set(tmp_path.rglob("*")) - before if path.is_file()]


def test_missing_weights_are_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("fewstep.models.bundled.files", lambda package: tmp_path)
    assert run("bench", "--out", str(tmp_path / "out")) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "reinstall fewstep, or train them" in message


def test_a_bug_is_not_called_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fewstep.eval.cli.lists.show_lists", lambda name: {}["gone"])
    with pytest.raises(KeyError):
        cli.main(["list"])


def test_an_interrupt_is_quiet(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(name: str | None) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fewstep.eval.cli.lists.show_lists", interrupt)
    assert run("list") == 130
    assert capsys.readouterr().err == "interrupted; what is finished is kept\n"


@needs_weights
def test_overhead_measures_every_pair(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fewstep.eval.cli.overhead_schedulers.SHAPES", {"small": (1, 2, 4, 4)})
    monkeypatch.setattr("fewstep.eval.cli.overhead_guided.BATCH", 2)
    for timing in measure_all(1):
        assert 0 < timing.ours < 1
        assert 0 < timing.theirs < 1
    assert run("overhead", "--repeats", "1") == 0
    out = capsys.readouterr().out
    assert "UniPCMultistep" in out
    assert all(text in out for text in GUIDANCE)


def test_passes_by_hand_touch_no_input() -> None:
    plan = build_plan("unipc:order=3", Flow(), 6)
    x = torch.ones(SHAPES["small"])
    outputs = [torch.ones_like(x)]
    assert by_hand(plan, x, outputs)() > 0
    assert torch.equal(x, torch.ones_like(x))
    assert torch.equal(outputs[0], torch.ones_like(x))


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "FEWSTEP_DEBUG", "1")
    with pytest.raises(ValueError, match="unknown sampler"):
        cli.main(["plan", "nothing"])


def test_what_cannot_be_had_here_has_its_own_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unavailable(*args: object, **kwargs: object) -> None:
        raise ExtractorUnavailableError("no weights here: put them there")

    monkeypatch.setattr("fewstep.eval.cli.lists.show_lists", unavailable)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["list"])
    assert stopped.value.code == 3
    assert capsys.readouterr().err == "error: no weights here: put them there\n"
