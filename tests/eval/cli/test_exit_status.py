"""How each command ends, and where it writes: never as if all was done, never where we stand."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from command_line import call, tree
from generation_runs import SHAPE, small_run

from fewstep.eval.bench.sweeps import read_sweep
from fewstep.eval.cli.app import app
from fewstep.eval.common.paths import check_folder_name
from fewstep.eval.generate.generation import generate_images
from fewstep.eval.generate.recipe import Recipe
from fewstep.eval.metrics.statistics_files import (
    TEXTS,
    FeatureStatistics,
    left_out,
    load_features,
    load_statistics,
    save_edm2,
    save_npz,
)
from fewstep.eval.networks.extractors import PixelExtractor

Capture = pytest.CaptureFixture[str]
COMMANDS: dict[str, Any] = dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
PAGE = Path(__file__).resolve().parents[3] / "docs" / "benchmarking.md"
MODEL = """
import sys
import torch
from fewstep.eval.problems import load_problem

class Ending:
    def __init__(self, inner):
        self.inner, self.process, self.calls = inner, inner.process, 0

    def __call__(self, x, level, cond=None):
        self.calls += 1
        if self.calls > {free}:
            {ending}
        return self.inner(x, level, cond)


def load():
    import dataclasses
    problem = load_problem("mix8")
    return dataclasses.replace(problem, denoiser=Ending(problem.denoiser))
"""
TINY = ("-s", "euler", "--nfe", "2")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_has_every_status() -> None:
    rows = re.findall(r"^\| (\d+) \| ", PAGE.read_text(), re.MULTILINE)
    assert rows == ["0", "1", "2", "3", "130", "141", "143"]


# Empty texts


def options() -> Iterator[tuple[str, str]]:
    for name, command in COMMANDS.items():
        for param in command.params:
            if not getattr(param, "is_flag", False) and param.name != "help":
                yield name, param.opts[-1] if param.param_type_name == "option" else ""


@pytest.mark.parametrize(("command", "option"), list(options()))
def test_an_empty_text_is_refused_for_every_option(
    command: str, option: str, folder: Path, capsys: Capture
) -> None:
    for text in ("", " "):
        for given in ([option, text], [f"{option}={text}"]) if option else ([text],):
            if given[0].startswith("-") and "=" in given[0] and not given[0].startswith("--"):
                continue  # click takes -o=x for the value "=x"
            assert call(command, *given) == 2
            said = capsys.readouterr().err
            assert said.startswith("error: got an empty text "), said
            assert option in said
            assert said.count("\n") == 1
    assert tree(folder) == {}


def test_an_empty_folder_is_refused_in_files_and_in_python(folder: Path) -> None:
    (folder / "sweep.yaml").write_text('out: ""\n')
    with pytest.raises(ValueError, match=r"sweep\.yaml: out is an empty text"):
        read_sweep(folder / "sweep.yaml")
    with pytest.raises(ValueError, match="an empty text for a folder"):
        generate_images(small_run(), "")


# A name with a suffix is no folder's


def run_folder() -> None:
    generate_images(small_run(), "run")


@pytest.mark.parametrize("name", ["x.tar.gz", "t.txt", "x.tar", "a.npz.zip.json", "b.safetensors"])
@pytest.mark.parametrize(
    "arguments",
    [("gen", *TINY, "-m", "mix8", "-o"), ("bench", "--problem", "mix8", "--out"),
     ("tune", "--problem", "mix8", "--nfe", "2", "-o"), ("export", "run"),
     ("report", "runs", "-o"), ("report", "a", "b", "-o")],
    ids=lambda arguments: f"{arguments[0]}{len(arguments)}",
)  # fmt: skip
def test_no_folder_gets_the_name_of_a_file(
    arguments: tuple[str, ...], name: str, folder: Path, capsys: Capture
) -> None:
    if arguments[0] == "tune" and name.endswith(".json"):
        return  # which is a file for it
    run_folder()
    before = tree(folder)
    assert call(*arguments, name) == 2
    said = capsys.readouterr().err
    assert f"{name} has the suffix of another file" in said
    assert f"write {name.partition('.')[0]} for a folder" in said
    assert tree(folder) == before


@pytest.mark.parametrize("name", ["run-1.5", "a.b", "model.fp16", "v2", "x.old", "runs.d/mine"])
def test_a_point_alone_makes_no_file(name: str, folder: Path) -> None:
    check_folder_name(Path(name), "--out")
    (folder / "kept.json").mkdir()
    check_folder_name(Path("kept.json"), "--out")  # it is there
    (folder / "file").write_text("")
    with pytest.raises(ValueError, match="file is a file; choose another for --out"):
        check_folder_name(Path("file"), "--out")


# Models that end the program


@pytest.mark.parametrize("ending", ["sys.exit(0)", "sys.exit()", "sys.exit(3)", "raise SystemExit",
                                    "exit(0)", "raise GeneratorExit"])  # fmt: skip
@pytest.mark.parametrize("where", ["importing", "calling", "probing"])
def test_a_model_that_ends_the_program_does_not_end_it_well(
    ending: str, where: str, folder: Path, capsys: Capture
) -> None:
    texts = {
        "importing": f"import sys\n{ending}\n",
        "calling": f"import sys\ndef load():\n    {ending}\n",
        "probing": MODEL.format(free=0, ending=ending),
    }
    (folder / "model.py").write_text(texts[where])
    for command in (("gen", *TINY, "--seeds", "0-3", "-o", "run"),
                    ("bench", *TINY, "--n", "2", "--out", "report")):  # fmt: skip
        assert call(*command, "-m", "model.py:load") == 2
        said = capsys.readouterr().err
        assert said.startswith("error: model.py:load: " if where != "probing" else "error: mix8: ")
        assert said.count("\n") == 1
        assert "Exit" in said
    assert call("plan", "euler", "--problem", "model.py:load") == (0 if where == "probing" else 2)


def test_a_model_that_ends_a_run_is_told_of(folder: Path, capsys: Capture) -> None:
    (folder / "model.py").write_text(MODEL.format(free=4, ending="sys.exit(0)"))
    assert call("gen", *TINY, "--seeds", "0-3", "--unit", "2", "-m", "model.py:load",
                "-o", "run") == 2  # fmt: skip
    assert "ended the program (SystemExit with 0)" in capsys.readouterr().err
    # Ctrl-C within a model's code is Ctrl-C.
    (folder / "model.py").write_text(MODEL.format(free=4, ending="raise KeyboardInterrupt"))
    assert call("gen", *TINY, "--seeds", "0-3", "--unit", "2", "-m", "model.py:load",
                "-o", "other") == 130  # fmt: skip
    (folder / "broken.py").write_text("raise KeyboardInterrupt\n")
    assert call("bench", "-m", "broken.py:load", "--out", "report") == 130


# What each command ends with


MISSING: dict[str, tuple[str, ...]] = {
    "bench": ("nowhere.yaml",), "sample": ("--sampler", "nowhere.json"), "plan": ("nowhere.json",),
    "tune": ("--nfe", "2", "-o", "x", "--prompts", "nowhere", "-m", "mix8"),
    "gen": ("-s", "nowhere.json", "-o", "x"),
    "ref": ("nowhere", "-o", "x.npz", "--extractor", "pixels:1x4x4"),
    "calc": ("nowhere", "--ref", "nowhere.npz"), "verify": ("nowhere",),
    "export": ("nowhere", "x"), "convert": ("nowhere.npz", "x.npz"), "report": ("nowhere",),
}  # fmt: skip
BAD: dict[str, tuple[str, ...]] = {
    "overhead": ("--repeats", "0"), "doctor": ("--unknown",), "list": ("--unknown",),
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_ends_with_2_for_a_mistake(command: str, capsys: Capture) -> None:
    assert call(command, "--help") == 0
    assert call(command, "--no-such-option") == 2
    assert call(command, *{**MISSING, **BAD}[command]) == 2
    said = capsys.readouterr().err
    assert said.count("error: ") == 2
    assert "Traceback" not in said


@pytest.mark.parametrize("command", ["gen", "bench", "ref", "calc"])
def test_an_extractor_that_cannot_be_had_ends_with_3(command: str, folder: Path) -> None:
    wanted = ("--extractor", "inception:edm", "--weights", "nowhere.pth")
    others = {
        "gen": (*TINY, "-m", "mix8", "-o", "x"), "bench": ("--ref", "x.npz", "--out", "x"),
        "ref": ("fashion", "-o", "x.npz"), "calc": ("x", "--ref", "x.npz"),
    }  # fmt: skip
    assert call(command, *others[command], *wanted) == 3
    assert tree(folder) in ({}, {"x": None})


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_ends_with_130_for_ctrl_c(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def interrupted(*given: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"fewstep.eval.cli.app.{'app'}", interrupted)
    assert call(command) == 130
    assert capsys.readouterr().err == "interrupted; what is finished is kept\n"


# verify covers all of config.json


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all values of a JSON table, and of its tables and lists themselves."""
    yield path
    if isinstance(value, dict | list):
        for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(entry, (*path, key))


def changed(table: Any, path: tuple[Any, ...]) -> Any:
    """The table with another value at one place."""
    if not path:
        return [table]
    copy = json.loads(json.dumps(table))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    old = inner[path[-1]]
    same_kind = not isinstance(old, bool) and isinstance(old, int | float)
    inner[path[-1]] = old + 1 if same_kind else [old] if old is not None else 0
    return copy


def test_verify_notices_a_change_anywhere_in_the_settings(folder: Path, capsys: Capture) -> None:
    recipe = Recipe("mix8", "euler", 2, "0-5", unit=3)
    generate_images(recipe.build("cpu"), "run", recipe=recipe)
    assert call("verify", "run") == 0
    file = folder / "run" / "config.json"
    text = file.read_text()
    table = json.loads(text)
    places = [path for path in leaves(table) if path]
    assert {path[0] for path in places} == {"sha256", "config", "options", "made_on"}
    assert {("options", "model"), ("options", "seeds"), ("made_on", "python")} <= set(places)
    for path in places:
        for value in (changed(table, path), without(table, path)):
            file.write_text(json.dumps(value))
            capsys.readouterr()
            assert call("verify", "run") == 1, path
            out = capsys.readouterr().out
            assert "config.json was changed by hand or damaged" in out
            assert "run does not hold" in out
    for damage in ("", "[]", "null", text[:-9], "1"):
        file.write_text(damage)
        assert call("verify", "run") == 1, damage
    file.write_text(text)
    assert call("verify", "run") == 0


def without(table: Any, path: tuple[Any, ...]) -> Any:
    copy = json.loads(json.dumps(table))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return copy


def test_a_folder_whose_model_is_gone_says_so_and_holds(folder: Path, capsys: Capture) -> None:
    (folder / "model.py").write_text(MODEL.format(free=99, ending="pass"))
    recipe = Recipe("model.py:load", "euler", 2, "0-5", unit=3)
    generate_images(recipe.build("cpu"), "run", recipe=recipe)
    (folder / "model.py").unlink()
    assert call("verify", "run") == 0
    out = capsys.readouterr().out
    assert "the model cannot be asked here, so that only files are checked: model.py:load" in out


def test_folders_of_the_former_format_are_read(folder: Path, capsys: Capture) -> None:
    """Their checksum is of the settings alone; they are not gone on with, but all else works."""
    from fewstep.eval.generate.shards import config_hash

    run = small_run(keep="features", extractor=PixelExtractor(SHAPE))
    generate_images(run, "run")
    file = folder / "run" / "config.json"
    table = json.loads(file.read_text())
    for key in ("model", "answers", "decoder", "code_of_fewstep", "extractor_code"):
        table["config"].pop(key)
    table["config"]["format"] = 2
    table["sha256"] = config_hash(table["config"])
    file.write_text(json.dumps(table))
    assert call("verify", "run") == 0
    assert "the folder is of a former version" in capsys.readouterr().out
    with pytest.raises(ValueError, match="format: 2 there, 3 now"):
        generate_images(run, "run")


# convert


def known(**values: Any) -> FeatureStatistics:
    rows = np.random.default_rng(0).normal(size=(50, 4))
    texts = {name: f"the {name}" for name in TEXTS}
    return FeatureStatistics(rows.mean(0), np.cov(rows.T), **{"n": 50, **texts, **values})


@pytest.mark.parametrize("missing", ["nothing", "n", *TEXTS, "features"])
@pytest.mark.parametrize("chain", [".npz.npz", ".npz.pkl", ".pkl.npz", ".pkl.pkl"])
def test_convert_keeps_all_that_is_known(chain: str, missing: str, folder: Path) -> None:
    """Of each field in each format, alone missing or there."""
    first, second = (
        f"{name}.{suffix}" for name, suffix in zip("ab", chain.split(".")[1:], strict=True)
    )
    before = known(**({missing: None} if missing in ("n", *TEXTS) else {}))
    rows = None if missing == "features" else np.ones((3, 4), np.float32)
    if first.endswith("npz"):
        save_npz(before, first, rows)
    else:
        save_edm2({"fid": before}, first, {} if rows is None else {"fid": rows})
    assert call("convert", first, second) == 0
    after = load_statistics(second)
    for name in ("n", *TEXTS):
        assert getattr(after, name) == getattr(before, name), name
    np.testing.assert_array_equal(after.mu, before.mu)
    np.testing.assert_array_equal(after.sigma, before.sigma)
    kept = load_features(second)
    assert (kept is None) == (rows is None)
    assert rows is None or np.array_equal(kept, rows)


def test_convert_says_what_it_leaves_out(folder: Path, capsys: Capture) -> None:
    one = known()
    np.savez("adm.npz", mu=one.mu, sigma=one.sigma, mu_s=one.mu, sigma_s=one.sigma, arr_0=one.mu)
    assert call("convert", "adm.npz", "x.npz") == 0
    assert "not carried over, since it is no part of these statistics: mu_s, sigma_s, arr_0" in (
        capsys.readouterr().out
    )
    save_edm2({"fid": one, "fd_dinov2": one}, "both.pkl")
    assert left_out("both.pkl") == ["fd_dinov2"]
    save_npz(one, "ours.npz", np.ones((3, 4), np.float32))
    assert call("convert", "ours.npz", "ours.pkl") == 0
    out = capsys.readouterr().out
    assert "not carried over" not in out
    assert "extractor the extractor, features 3" in out
