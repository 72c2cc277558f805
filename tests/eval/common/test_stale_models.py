"""A user edits a model and runs again: whatever was kept of the old one is not the new one's."""

import json
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import call

from fewstep.eval.bench.runner import run_bench
from fewstep.eval.bench.setup import Bench
from fewstep.eval.common.differences import differing
from fewstep.eval.common.sketches import agree, sketch
from fewstep.eval.generate.generation import generate_images
from fewstep.eval.generate.units import Generation
from fewstep.eval.problems import Problem, load_problem
from fewstep.eval.problems.fine_solution import fine_reference
from fewstep.eval.tune.landings import model_samples
from fewstep.eval.tune.teachers import cached_teacher
from fewstep.guidance import parse_guidance

MODEL = '''"""A model of a user."""
import os

import torch
from helping import blurred

from fewstep.models import EDMDenoiser
from fewstep.schedules import VE

GLOBAL = float(os.environ.get("GLOBAL", 1))


class Net(torch.nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.mix = torch.nn.Parameter(torch.full((1,), 0.5))
        self.drop, self.hidden = torch.nn.Dropout(0.5), hidden
        self.attribute = float(os.environ.get("ATTRIBUTE", 1))

    def forward(self, x, sigma, labels=None):
        s = sigma.view(-1, 1, 1, 1)
        y = x * 0.25 / (0.25 + s**2)
        told = float(open("told.txt").read()) if os.path.exists("told.txt") else 1.0
        return y + 0.3 * blurred(y) * self.mix * GLOBAL * self.attribute * self.hidden() * told


def load():
    closed = float(os.environ.get("CLOSED", 1))
    denoiser = EDMDenoiser(Net(lambda: closed).eval(), VE(0.002, 80.0), num_classes=2)
    denoiser.null_class, denoiser.shape = 0, (1, 4, 4)
    return denoiser
'''
HELPER = """def blurred(x):
    # a mean of neighbours
    return (x.roll(1, -1) + x) / 2
"""
NAME = "models.py:load"
# what is edited -> file, text, text then, and what a message names; the model is another one
EDITS = {
    "forward": ("models.py", "y + 0.3 *", "y - 0.3 *", "the code of models"),
    "a helper beside": ("helping.py", "x.roll(1, -1) + x", "x.roll(1, -1) - x", "code of helping"),
    "the function that loads": ("models.py", "Net(lambda", "Net(lambda: 2 * closed, lambda", ""),
}
SAME = {
    "a comment": ("helping.py", "# a mean of neighbours", "# neighbours, averaged"),
    "a docstring": ("models.py", '"""A model of a user."""', '"""A model."""\n'),
    "layout": ("models.py", "x * 0.25 / (0.25 + s**2)", "(\n            x * 0.25 / (0.25 + s**2))"),
    "what runs in scripts alone": ("models.py", "    return denoiser\n", "    return denoiser\n\n\n"
                                   "if __name__ == '__main__':\n    print(load())\n"),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "models.py").write_text(MODEL)
    (tmp_path / "helping.py").write_text(HELPER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # which goes by whole seconds
    yield tmp_path
    for name in ("helping", "_fewstep_models"):
        sys.modules.pop(name, None)


def edit(file: str, old: str, new: str) -> None:
    text = Path(file).read_text()
    assert old in text
    Path(file).write_text(text.replace(old, new))


def rmse() -> float:
    results = run_bench(Bench(NAME, samplers=["euler"], nfe=[4], n=4, device="cpu"))
    return results.rows[0].metrics["rmse"]


def gen(*options: str) -> int:
    return call("gen", "-m", NAME, "-s", "euler", "--nfe", "2", "--seeds", "0-5", "--unit", "3",
                "--device", "cpu", "-o", "run", *options)  # fmt: skip


def test_bench_has_the_new_models_numbers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = rmse()
    assert rmse() == old
    edit(*EDITS["forward"][:3])
    new = rmse()
    monkeypatch.setenv("FEWSTEP_CACHE", str(folder / "empty"))
    assert new == rmse() != old


@pytest.mark.parametrize("what", ["forward", "a helper beside"])
def test_a_folder_is_not_finished_by_another_model(
    folder: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    assert gen("--quiet") == 0
    (folder / "run" / "unit-000001.safetensors").unlink()
    *change, name = EDITS[what]
    edit(*change)
    capsys.readouterr()
    assert gen() == 2
    line = capsys.readouterr().err
    assert "the model does something else than when the folder was begun" in line
    assert name in line
    assert "its answers to fixed noise changed" in line
    assert "weights" not in line
    edit(change[0], change[2], change[1])
    assert gen("--quiet") == 0
    edit(*change)
    assert call("verify", "run") == 1
    out = capsys.readouterr().out
    assert "the model does something else" in out
    assert "run does not hold" in out
    edit(change[0], change[2], change[1])
    assert call("verify", "run", "--recompute", "1", "--device", "cpu") == 0


@pytest.mark.parametrize("what", SAME)
def test_an_edit_that_changes_nothing_does_not_stop_a_night(folder: Path, what: str) -> None:
    assert gen("--quiet") == 0
    identity = load_problem(NAME).identity
    (folder / "run" / "unit-000001.safetensors").unlink()
    edit(*SAME[what])
    assert load_problem(NAME).identity == identity
    assert gen("--quiet") == 0
    assert call("verify", "run", "--recompute", "2", "--device", "cpu") == 0


def test_code_that_does_the_same_is_told_apart_but_said_to_do_so(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gen("--quiet") == 0
    edit("models.py", "y + 0.3 *", "y + 0.1 * 3 *")
    capsys.readouterr()
    assert gen() == 2
    line = capsys.readouterr().err
    assert "may do something else" in line
    assert "the code of models changed, though not its answers" in line


@pytest.mark.parametrize(
    ("name", "told"),
    [("GLOBAL", "values that its code reads"), ("ATTRIBUTE", "weights and settings"),
     ("CLOSED", "values that its code reads")],
)  # fmt: skip
def test_what_no_source_tells_counts_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    name: str, told: str,
) -> None:  # fmt: skip
    """A global, an attribute and a closure, which the environment gave their values."""
    old = rmse()
    assert gen("--quiet") == 0
    monkeypatch.setenv(name, "3")
    new = rmse()
    monkeypatch.setenv("FEWSTEP_CACHE", str(folder / "empty"))
    assert new == rmse() != old
    capsys.readouterr()
    assert gen() == 2
    assert told in capsys.readouterr().err
    assert call("verify", "run") == 1


def solutions(problem: Problem) -> dict[str, torch.Tensor]:
    """Everything that is cached of a model."""
    noise, labels = problem.initial_noise(4), problem.labels(4)
    guidance = parse_guidance("cfg:2", problem.models)
    return {
        "fine": fine_reference(problem, noise, labels, None),
        "guided": fine_reference(problem, noise, labels, guidance),
        "exact": problem.reference(noise, labels),
        "teacher": cached_teacher(problem, noise, labels, grid=8).end,
        "guided teacher": cached_teacher(problem, noise, labels, guidance, grid=8).end,
        "samples": model_samples(problem, None, 0, 0)[0],
    }


@pytest.mark.parametrize("change", ["source", "a file"])
def test_every_cache_tells_models_apart(
    folder: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr("fewstep.eval.tune.landings.FITTED_NETWORK", 4)
    old = solutions(load_problem(NAME))
    files = set((folder / "cache" / "references").iterdir())
    again = solutions(load_problem(NAME))
    assert set((folder / "cache" / "references").iterdir()) == files
    assert all(torch.equal(old[name], again[name]) for name in old)
    if change == "source":
        edit(*EDITS["forward"][:3])
    else:  # which forward reads: nothing in any key tells of it, so the files are the same ones
        (folder / "told.txt").write_text("3")
    new = solutions(load_problem(NAME))
    assert (set((folder / "cache" / "references").iterdir()) == files) is (change != "source")
    monkeypatch.setenv("FEWSTEP_CACHE", str(folder / "empty"))
    right = solutions(load_problem(NAME))
    for name in old:
        assert torch.equal(new[name], right[name]), name
        assert not torch.allclose(new[name], old[name], atol=1e-3), name


WHOLE = """
import os

import torch

from fewstep.eval.problems import Problem, load_problem


class Judge(torch.nn.Module):
    num_classes = 2

    def forward(self, x):
        return x.flatten(1)[:, :2] * 2.0


def decode(x):
    told = float(os.environ.get("DECODED", 1))
    return told * x.view(-1, 1, 1, 2)


def load():
    inner = load_problem("mix8")
    return Problem("whole", inner.denoiser, inner.shape, "mine", models={"classifier": Judge},
                   decode=decode)
"""


@pytest.mark.parametrize(
    ("old", "new", "keys"),
    [("* 2.0", "* 3.0", {"model"}), ("told * x", "2 * told * x", {"model", "decoder"}),
     ("", "", {"decoder"}), ('"mine"', '"other"', {"model"})],
    ids=["a classifier", "a decoder", "what a decoder is given", "a fingerprint of one's own"],
)  # fmt: skip
def test_whatever_else_a_problem_is_made_of_counts(
    folder: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, keys: set[str]
) -> None:
    (folder / "models.py").write_text(WHOLE)
    before = load_problem(NAME)
    known = before.identity  # asked of the model now
    edit("models.py", old, new) if old else monkeypatch.setenv("DECODED", "3")
    after = load_problem(NAME)
    assert set(differing(known, after.identity)) == keys
    assert (before.fingerprint != after.fingerprint) is ("model" in keys)


def test_an_edit_in_the_middle_of_a_run_is_not_of_the_run(folder: Path) -> None:
    problem = load_problem(NAME)
    noise, labels = problem.initial_noise(4), problem.labels(4)
    edit(*EDITS["forward"][:3])
    old = fine_reference(problem, noise, labels, None)  # kept under a key of the old code
    new = fine_reference(load_problem(NAME), noise, labels, None)
    assert not torch.allclose(old, new, atol=1e-3)


def test_files_of_equal_names_in_two_folders_see_their_own_neighbours(folder: Path) -> None:
    for name, sign in (("a", "+"), ("b", "-")):
        (folder / name).mkdir()
        (folder / name / "models.py").write_text(MODEL)
        (folder / name / "helping.py").write_text(HELPER.replace("+ x", f"{sign} x"))
    found = [load_problem(f"{name}/models.py:load") for name in ("a", "b", "a")]
    assert found[0].identity == found[2].identity
    assert found[0].fingerprint != found[1].fingerprint
    assert not agree(found[0].answers, found[1].answers)


def test_an_unfinished_benchmark_is_not_finished_by_another_model(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(NAME, samplers=["euler"], nfe=[2], n=4, device="cpu")
    with monkeypatch.context() as patch:
        patch.setattr("fewstep.eval.bench.runner.collect", lambda *given: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_bench(bench, folder / "out")
    edit(*EDITS["forward"][:3])
    with pytest.raises(ValueError, match="the code of models and its answers to fixed noise chan"):
        run_bench(bench, folder / "out")


def test_another_code_of_this_package_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gen("--quiet") == 0
    real = sys.modules["fewstep.eval.common.source_code"].source

    def edited(name: str, path: Path) -> str:
        return real(name, path) + "NEW = 1\n" * (name == "fewstep.samplers.core.execute")

    monkeypatch.setattr("fewstep.eval.common.source_code.source", edited)
    capsys.readouterr()
    assert gen() == 2
    assert "run was made with other settings: code_of_fewstep: " in capsys.readouterr().err


def test_a_model_that_draws_is_told_of_and_nothing_of_it_is_kept(folder: Path) -> None:
    edit("models.py", ".eval()", ".train()")
    edit("models.py", "return y +", "return self.drop(y) +")
    with pytest.warns(UserWarning, match="models.py:load gives two answers to one input .its netw"):
        assert load_problem(NAME).answers is None
    edit("models.py", "self.drop(y) +", "y + 0.1 * torch.rand(1) +")
    edit("models.py", ".train()", ".eval()")
    problem = load_problem(NAME)
    with pytest.warns(UserWarning, match="two answers to one input .it draws, or keeps count"):
        fine_reference(problem, problem.initial_noise(4), problem.labels(4), None)
    assert not (folder / "cache").exists()


def test_batch_sizes_and_threads_leave_a_model_what_it_is(folder: Path) -> None:
    """A unit of another size is another run, but of the same model; so is one on more threads."""
    problem = load_problem("fashion")
    torch.set_num_threads(2)
    try:
        other = load_problem("fashion")
        assert agree(problem.answers, other.answers)
    finally:
        torch.set_num_threads(1)
    runs = [Generation(problem, "euler", 2, range(8), unit_size=size) for size in (2, 8)]
    assert runs[0].config["model"] == runs[1].config["model"]
    # Rows alone and rows among others round differently, by less than what tells models apart.
    x = problem.initial_noise(32)
    alone = problem.denoiser(x[:1], problem.start_level, torch.zeros(1, dtype=torch.long))
    among = problem.denoiser(x, problem.start_level, torch.zeros(32, dtype=torch.long))[:1]
    assert agree(sketch(alone), sketch(among))


def test_sketches_tell_small_changes_and_overlook_rounding() -> None:
    x = torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one_pixel = x.clone()
    one_pixel[0, 0, 3, 3] += 0.1
    assert not agree(sketch(x), sketch(one_pixel))
    assert not agree(sketch(x), sketch(1.001 * x))
    assert agree(sketch(x), sketch(x * (1 + 1e-6)))
    assert agree(json.loads(json.dumps(sketch(x))), sketch(x.float()))
    assert agree(None, None)
    assert not agree(None, sketch(x))
    assert not agree(sketch(x[:2]), sketch(x))


def test_a_model_made_in_python_is_known_by_its_code_too(tmp_path: Path) -> None:
    class Shifted:
        def __init__(self, problem: Problem) -> None:
            self.inner, self.process = problem.denoiser, problem.process

        def __call__(self, x: torch.Tensor, level: Any, cond: Any = None) -> torch.Tensor:
            return 0.9 * self.inner(x, level, cond)

    plain = load_problem("mix8")
    own = Problem("own", Shifted(plain), plain.shape, plain.fingerprint)
    assert any(name.endswith("test_stale_models") for name in own.identity["model"])
    generate_images(Generation(plain, "euler", 2, range(4)), tmp_path)
    other = Problem("mix8", own.denoiser, plain.shape, plain.fingerprint)
    with pytest.raises(ValueError, match=r"test_stale_models.* and its answers to fixed noise ch"):
        generate_images(Generation(other, "euler", 2, range(4)), tmp_path)


def test_a_cache_that_cannot_be_written_is_told_of_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "file").write_text("")
    right = rmse()
    monkeypatch.setenv("FEWSTEP_CACHE", os.fspath(folder / "file"))
    with pytest.warns(UserWarning, match="the cache in .*file/references cannot be used") as told:
        assert rmse() == right
    assert len([one for one in told if "the cache" in str(one.message)]) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rmse()


def test_a_damaged_file_of_the_cache_is_made_again(folder: Path) -> None:
    right = rmse()
    (file,) = (folder / "cache" / "references").iterdir()
    content = file.read_bytes()
    for damage in (b"", content[:40], content[:-8]):
        file.write_bytes(damage)
        assert rmse() == right
        assert file.read_bytes() == content
