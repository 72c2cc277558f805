"""``fewstep tune``: from a model to a file that says how good it is, and keeps its word."""

import contextlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from fewstep import __version__, sample
from fewstep.eval import cli
from fewstep.eval.problems import load_problem
from fewstep.eval.tune import run as tune_run
from fewstep.eval.tune import teachers
from fewstep.eval.tune.judge import FIXED
from fewstep.eval.tune.run import run_tune
from fewstep.eval.tune.settings import FAMILIES, TuneSettings, parse_family
from fewstep.eval.tune.teachers import cached_teacher, split_noises
from fewstep.guidance import CFG
from fewstep.samplers import SAMPLERS, Plan
from fewstep.samplers.core.plan import CONFIG
from fewstep.samplers.gaussian.class_gaussians import START, ClassGaussians, load_start

# Two classes of points in the plane, and images of 4x4 pixels.
PROBLEMS = """
import torch
from fewstep.eval.problems import Problem
from fewstep.models.exact import MixtureDenoiser
from fewstep.schedules import discrete_vp

def made(name, means, labels):
    process = discrete_vp("scaled_linear", beta_start=0.00085, beta_end=0.012)
    denoiser = MixtureDenoiser(process, means, 0.3, labels=labels)
    return Problem(name, denoiser, denoiser.shape, name, denoiser.num_classes)

def classes():
    means = torch.tensor([[1.0, 0.2], [0.4, 0.9], [-1.0, -0.3], [-0.2, -1.1]]).double()
    return made("classes", means, torch.tensor([0, 0, 1, 1]))

def images():
    means = torch.linspace(-1, 1, 64, dtype=torch.float64).sin().view(4, 1, 4, 4)
    return made("images", means, None)

def squares(x):
    return x.flatten(1) ** 2
"""
SMALL = ("--noises", "64,64,128")


def run(*arguments: str) -> tuple[int, str, str]:
    """Exit status of the command line, and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as caught,
    ):
        cli.main(arguments)
    assert isinstance(caught.value.code, int)
    return caught.value.code, out.getvalue(), err.getvalue()


@dataclass(frozen=True)
class Made:
    """A folder with ``m4.json`` of mix8, and what the command printed."""

    folder: Path
    printed: str
    files: frozenset[str]

    @property
    def plan(self) -> Plan:
        return Plan.load(self.folder / "m4.json")

    @property
    def tuned(self) -> dict[str, Any]:
        found: dict[str, Any] = self.plan.provenance["tuned"]
        return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    folder = tmp_path_factory.mktemp("tune")
    (folder / "problems.py").write_text(PROBLEMS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEWSTEP_CACHE", str(folder / "cache"))
        patch.setenv("COLUMNS", "160")
        patch.chdir(folder)
        status, printed, errors = run(
            "tune", "--problem", "mix8", "--nfe", "4", *SMALL, "-o", "m4.json"
        )
        assert (status, errors) == (0, "")
        yield Made(folder, printed, frozenset(path.name for path in folder.iterdir()))


@pytest.fixture
def no_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("the teacher was made again")

    # Not teach() itself, whose code is part of a teacher's key.
    monkeypatch.setattr(teachers, "_solved", refuse)


def tiny(**given: Any) -> TuneSettings:
    return replace(TuneSettings(problem="mix8", nfe=3, noises=(32, 32, 32)), **given)


def test_what_is_written_and_said(made: Made) -> None:
    assert made.files == {"problems.py", "cache", "m4.json", "m4.html"}
    assert made.plan.calls == 4
    lines = made.printed.splitlines()
    assert lines[0].startswith("calls of the network take about ")
    assert "which m4.json cannot hold" in lines[1]  # no start by a Gaussian
    assert lines[2].startswith("the teacher's own error: ")
    for text in ("\ntuned ", "(start)", "8 calls", "median, 4 calls",
                 "on fresh noises the error is",
                 "of the best fixed sampler at 8", "plan: m4.json", "report: m4.html"):  # fmt: skip
        assert text in made.printed
    assert all(f"\n{spec} " in made.printed for spec in FIXED)


def test_provenance_is_complete(made: Made) -> None:
    tuned = made.tuned
    problem = load_problem("mix8")
    assert set(tuned) == {
        "version", "model", "prediction_type", "problem", "guidance", "nfe", "family", "improved",
        "size", "objective", "seed", "seeds", "noises", "start", "error", "curve", "calls",
        "seconds", "fixed",
    }  # fmt: skip
    assert tuned["version"] == __version__
    assert tuned["model"] == problem.fingerprint
    assert (tuned["problem"], tuned["guidance"], tuned["nfe"]) == ("mix8", "none", 4)
    assert tuned["noises"] == {"tune": 64, "select": 64, "report": 128}
    assert len(set(tuned["seeds"].values())) == 3
    assert tuned["improved"]
    assert tuned["error"]["select"] < tuned["error"]["select_before"]
    assert 0 < tuned["error"]["teacher"] < tuned["error"]["report"] / 5
    start = Plan.from_table(tuned["start"]["plan"])
    assert start.calls == 4
    assert "tuned" not in start.provenance
    fixed = tuned["fixed"]
    assert set(FIXED) <= fixed.keys()
    assert fixed[tuned["start"]["spec"]].keys() == {"4", "8"}
    json.dumps(tuned, allow_nan=False)


def test_errors_are_those_of_sample(made: Made) -> None:
    """To rounding: sums over batches of another order change the last digits, of 1e-16."""
    problem, tuned = load_problem("mix8"), made.tuned
    split = split_noises(problem, 0, {"report": 128})["report"]
    goal = cached_teacher(problem, split.noise, split.labels).end

    def error(sampler: str | Plan, nfe: int) -> float:
        x = sample(problem.denoiser, sampler, nfe, noise=split.noise / problem.start_scale)
        return float((x - goal).square().mean().sqrt())

    assert error(str(made.folder / "m4.json"), 4) == pytest.approx(tuned["error"]["report"])
    start = Plan.from_table(tuned["start"]["plan"])
    assert error(start, 4) == pytest.approx(tuned["error"]["report_before"])
    for nfe in (4, 8):
        assert error("deis", nfe) == pytest.approx(tuned["fixed"]["deis"][str(nfe)])


@pytest.mark.usefixtures("no_teacher")
def test_a_second_run_needs_no_teacher_and_finds_the_same(made: Made) -> None:
    options = ["--problem", "mix8", "--nfe", "4", *SMALL]
    assert run("tune", *options, "-o", "again.json")[0] == 0
    first, second = (
        json.loads((made.folder / name).read_text()) for name in ("m4.json", "again.json")
    )
    for table in (first, second):
        assert table["plans"][0]["provenance"]["tuned"].pop("seconds") > 0
    assert first == second


def test_an_interrupt_leaves_no_file_and_the_teacher(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(task: object) -> None:
        raise KeyboardInterrupt

    options = ["--problem", "mix8", "--nfe", "2", "--noises", "8,8,8", "--seed", "5"]
    with monkeypatch.context() as patch:
        patch.setattr(tune_run, "tune_family", interrupt)
        status, _, errors = run("tune", *options, "-o", "stopped.json")
    assert (status, errors) == (130, "interrupted; what is finished is kept\n")
    assert not list(made.folder.glob("stopped*"))
    monkeypatch.setattr(teachers, "_solved", lambda *args: pytest.fail("made again"))
    assert run("tune", *options, "-o", "stopped.json")[0] == 0


def test_bench_and_gen_take_the_file(made: Made) -> None:
    status, _, errors = run(
        "bench", "--problem", "mix8", "-s", "m4.json", "-s", "unipc", "--nfe", "4", "--n", "64",
        "--out", "bench",
    )  # fmt: skip
    assert (status, errors) == (0, "")
    rows = json.loads((made.folder / "bench/results.json").read_text())["rows"]
    found = {row["sampler"]: row["metrics"]["rmse"] for row in rows}
    assert found["m4.json"] < found["unipc"]  # noises of the benchmark took no part in tuning
    assert run("gen", "-s", "m4.json", "-m", "mix8", "--seeds", "0-7", "-o", "gen")[0] == 0


def test_another_model_is_warned_of_and_another_process_refused(made: Made) -> None:
    assert made.plan.calls == 4
    options = ["bench", "-s", "m4.json", "--n", "4", "--nfe", "4", "--out", "other"]
    status, _, errors = run(*options, "--problem", "ring2")
    assert status == 0
    assert "was tuned on another model" in errors
    status, _, errors = run(*options, "--problem", "mix8-flow")
    assert status == 2
    assert "another noise process" in errors


def test_classes_guidance_and_a_start_by_a_gaussian(made: Made) -> None:
    """Fits by class, labels in every stage, and a folder that holds what the plan starts from."""
    name, out = "problems.py:classes", made.folder / "folder"
    status, printed, errors = run(
        "tune", "--problem", name, "--guidance", "cfg:2", "--nfe", "2", *SMALL, "-o", "folder"
    )
    assert (status, errors) == (0, "")
    assert "no guidance" not in printed
    plan = Plan.load(out)
    tuned = plan.provenance["tuned"]
    assert tuned["guidance"] == "cfg:2"
    assert {path.name for path in out.iterdir()} == {CONFIG, START, "report.html"}
    assert isinstance(load_start(out), ClassGaussians)
    assert "solved in one step down to sigma/alpha" in printed
    problem = load_problem(name)
    split = split_noises(problem, 0, {"report": 128})["report"]
    goal = cached_teacher(problem, split.noise, split.labels, CFG(2.0)).end
    x = sample(
        problem.denoiser, out, 2, noise=split.noise / problem.start_scale, cond=split.labels,
        guidance=CFG(2.0),
    )  # fmt: skip
    error = float((x - goal).square().mean().sqrt())
    assert error == pytest.approx(tuned["error"]["report"])
    assert error < tuned["error"]["report_before"]
    bench = ["bench", "--problem", name, "-s", "folder", "-g", "cfg:2", "--n", "16", "--nfe", "2"]
    assert run(*bench, "--out", "bench-folder")[0] == 0


def test_nodes_stay_where_guidance_is_switched(made: Made) -> None:
    text = "cfg:2|interval:0.3,3"
    settings = tiny(problem="problems.py:classes", guidance=text, nfe=5, family="least-squares")
    found = run_tune(replace(settings, teleport=False))
    levels = found.plan.sigmas(native=False)
    for edge in (0.3, 3.0):
        assert min(abs(level / edge - 1) for level in levels[:-1]) < 1e-6  # TOLERANCE of breaks
    assert found.setup.breakpoints


def test_nothing_to_gain_returns_the_start(made: Made) -> None:
    """One call has no node between its ends, and no earlier output to weigh."""
    said: list[str] = []
    found = run_tune(tiny(nfe=1, teleport=False, out=Path("one.json")), say=said.append)
    assert not found.found.improved
    assert "nothing was gained" in said[-1]
    tuned = Plan.load(made.folder / "one.json").provenance["tuned"]
    assert not tuned["improved"]
    assert tuned["error"]["report"] == tuned["error"]["report_before"]
    assert found.plan.evaluations == found.found.start.evaluations


SEARCHES = ("klub=1", "gits=1.1", "teacher=2", "search")


@pytest.mark.parametrize(
    "family", ["coefficients", "least-squares", "grid", "compensation", "epsilon",
               *(f"grid:{way}" for way in SEARCHES)],
)  # fmt: skip
def test_every_family_is_no_worse_than_the_start(family: str, made: Made) -> None:
    found = run_tune(tiny(family=family, teleport=False))
    tuned = found.plan.provenance["tuned"]
    assert tuned["family"] == family
    assert found.plan.calls == 3
    assert tuned["error"]["select"] <= tuned["error"]["select_before"]
    assert tuned["improved"] == (found.plan.evaluations != found.found.start.evaluations)
    sizes = {"coefficients": 3, "least-squares": 3, "epsilon": 2}
    assert found.found.size == sizes.get(family, 2)


def test_features_can_be_what_is_tuned(made: Made) -> None:
    found = run_tune(tiny(objective="features", features="problems.py:squares", teleport=False))
    assert found.error.features is not None
    assert found.before.features is not None
    assert found.found.improved
    assert found.plan.provenance["tuned"]["objective"]["features"] == "problems.py:squares"
    # Of other noises than those it was tuned on, few as they were.
    assert found.error.features < found.before.features


def test_progress_never_goes_back(made: Made) -> None:
    told: list[tuple[float, float, str]] = []
    run_tune(tiny(family="least-squares"), lambda *now: told.append(now))
    done = [now[0] for now in told]
    assert done == sorted(done)
    assert done[-1] == pytest.approx(told[-1][1])
    texts = " ".join(text for _, _, text in told)
    for stage in ("teacher: noises to tune", "Gaussian", "scan", "report"):
        assert stage in texts


def test_more_report_noises_change_no_plan(made: Made) -> None:
    few, more = (run_tune(tiny(noises=(32, 32, n), family="least-squares")) for n in (32, 48))
    assert few.found.plan == more.found.plan
    assert few.error != more.error


def test_families_are_told_by_their_texts() -> None:
    assert parse_family("grid:klub=2") == ("klub", 2.0)
    assert parse_family("grid:gits") == ("gits", 1.0)
    assert parse_family("grid:search") == ("search", 0.0)
    for name in FAMILIES:
        if "=" not in name:
            parse_family(name)
    for text in ("grid:klub=-1", "grid:klub=P", "grid:teacher=5", "grid:foo", "tied:1", ""):
        with pytest.raises(ValueError, match=r"takes a number|unknown family"):
            parse_family(text)
    assert {spec.partition(":")[0] for spec in FIXED} <= set(SAMPLERS)


MISTAKES = {
    "nfe": (["--nfe", "0"], "nfe must be at least 1 call, got 0"),
    "family": (["--family", "bespoke"], "unknown family 'bespoke'; known: tied, "),
    "search": (["--family", "grid:gits=0"], "takes a number (above 0), as in grid:gits=1.0"),
    "objective": (["--objective", "fid"], "objective must be one of sample, features, both"),
    "features": (["--objective", "both"], "name a function of your own"),
    "features of a search": (
        ["--objective", "both", "--family", "epsilon"], "tuned on errors of samples",
    ),
    "minutes": (["--minutes", "0"], "minutes must be a number above 0"),
    "seed": (["--seed", "-1"], "seed must not be negative"),
    "two noises": (["--noises", "10,10"], "noises are three numbers of at least 2"),
    "no noises": (["--noises", "many"], "--noises takes three whole numbers"),
    "problem": (["--problem", "mix9"], "unknown problem 'mix9'"),
    "two guidances": (["-g", "none;cfg:2"], "tuned under one guidance"),
    "no classes": (["-g", "cfg:2"], "which has no classes"),
    "random guidance": (
        ["--problem", "problems.py:classes", "-g", "icg:1.4"],
        "nothing can be tuned under guidance 'icg:1.4': there is no reference under ICG",
    ),
    "teleport to a file": (["--teleport"], "kept in a folder, and out.json is a file"),
    "teleport of a search": (
        ["--teleport", "--family", "epsilon", "-o", "o"], "no start of the family 'epsilon'",
    ),
    "path": (["-o", "/dev/null/x.json"], "cannot write to /dev/null"),
    "folder's path": (["-o", "problems.py"], "problems.py is a file"),
    "device": (["--device", "abacus"], "try --device auto"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_one_line(case: str, made: Made) -> None:
    before = set(made.folder.rglob("*"))
    arguments, message = MISTAKES[case]
    options = {"--problem": "mix8", "--nfe": "3", "-o": "out.json"}
    others = [text for pair in options.items() if pair[0] not in arguments for text in pair]
    status, printed, errors = run("tune", *others, *arguments)
    assert (status, printed) == (2, "")
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert message in errors
    assert set(made.folder.rglob("*")) == before


def test_help_needs_no_torch_and_names_every_family() -> None:
    status, printed, _ = run("tune", "--help")
    assert status == 0
    text = " ".join(printed.replace("│", " ").split())
    for name in FAMILIES:
        assert name.partition("=")[0] in text
    assert "1024,2048,4096" in text


@pytest.mark.slow
def test_a_network_under_guidance(made: Made) -> None:
    """The bundled model with four noises: labels, images in the report, a folder."""
    status, printed, errors = run(
        "tune", "--nfe", "2", "--guidance", "cfg:3", "--noises", "4,4,4", "--minutes", "0.2",
        "--no-teleport", "-o", "network",
    )  # fmt: skip
    assert (status, errors) == (0, "")
    assert {path.name for path in (made.folder / "network").iterdir()} == {CONFIG, "report.html"}
    assert "Samples of teacher" in (made.folder / "network/report.html").read_text()
    assert "2 calls" in printed
