"""Sweeps: files and options are one schema, options win, and what ran runs again."""

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from fewstep.eval import cli
from fewstep.eval.bench import runner
from fewstep.eval.bench.runner import run_bench
from fewstep.eval.bench.setup import Bench
from fewstep.eval.bench.sweeps import Sweep, read_sweep
from fewstep.eval.cli.bench import bench


def written(tmp_path: Path, **options: Any) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(options))
    return path


def test_the_command_line_has_the_options_of_a_file() -> None:
    options = set(inspect.signature(bench).parameters) - {"context", "sweep", "dry_run"}
    assert options == {field.name for field in fields(Sweep)}


def test_defaults_of_the_command_line_are_those_of_the_class() -> None:
    given = {
        name: parameter.default
        for name, parameter in inspect.signature(bench).parameters.items()
        if parameter.default is not None
        and name not in ("context", "sweep", "dry_run", "samplers", "guidance")
    }
    assert read_sweep(None, given) == Sweep(guidance="none")


def test_options_count_more_than_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, problem="mix8", nfe=[4, 8], n=64, samplers="ddim;heun")
    found = read_sweep(path, {"nfe": "5", "guidance": ["none"]})
    assert (found.problem, found.nfe, found.n) == ("mix8", (5,), 64)
    assert found.samplers == ("ddim;heun",)
    assert found.seed == Bench().seed


def test_lists_are_written_in_any_way(tmp_path: Path) -> None:
    one = read_sweep(written(tmp_path, nfe=[5, 8], metrics=["fd", "kid"], guidance=["none"]))
    assert one == read_sweep(written(tmp_path, nfe="5,8", metrics="fd, kid", guidance="none"))
    assert read_sweep(written(tmp_path, nfe=5)).nfe == (5,)
    assert read_sweep(written(tmp_path, model="mix8")).problem == "mix8"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nef": [5]}, r"mine.yaml: unknown option 'nef'; known: problem, samplers, nfe"),
        ({"n": "many"}, r"mine.yaml: n takes whole numbers, got 'many'"),
        ({"compile": "x"}, "mine.yaml: compile takes true or false, got 'x'"),
        ({"problem": 3}, "mine.yaml: problem takes text, got 3"),
        ({"out": 3}, "mine.yaml: out takes a path, got 3"),
        ({"n": 1}, "n must be at least 2"),
        ({"nfe": [5, "x"]}, r"mine.yaml: nfe takes whole numbers, got 'x'"),
        ({"metrics": ["fdd"]}, "metrics must be of fd, kid, prdc, sw2, fd_infinity, exact, got"),
        ({"extractor": "inception"}, "needs ref, the statistics of real images"),
        ({"repeats": 0}, "repeats must be at least 1"),
    ],
)
def test_mistakes_are_named_with_the_file(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_sweep(written(tmp_path, **options))
    assert "\n" not in str(caught.value)
    assert "__" not in str(caught.value)  # nothing that only pydantic knows


def test_files_that_are_no_sweeps_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no sweep at .*nowhere.yaml"):
        read_sweep(tmp_path / "nowhere.yaml")
    path = tmp_path / "a.yaml"
    for content, message in (("- 5", "options by name"), ("a: [", "no YAML"), ("", "by name")):
        path.write_text(content)
        with pytest.raises(ValueError, match=rf"a\.yaml .*{message}") as caught:
            read_sweep(path)
        assert "\n" not in str(caught.value)


def test_what_ran_is_saved_and_runs_again(tmp_path: Path) -> None:
    path = written(tmp_path, problem="mix8", nfe=4, n=16, samplers="ddim", out=str(tmp_path / "a"))
    first = run_bench(read_sweep(path), tmp_path / "a")
    saved = tmp_path / "a" / "sweep.yaml"
    assert set(yaml.safe_load(saved.read_text())) == {field.name for field in fields(Sweep)}
    again = run_bench(read_sweep(saved), tmp_path / "b")
    assert [row.metrics for row in again.rows] == [row.metrics for row in first.rows]


def test_a_dry_run_tells_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["bench", "-m", "mix8", "--nfe", "4,6", "--n", "32", "--samplers", "ddim;unipc"]
    with pytest.raises(SystemExit) as ended:
        cli.main([*arguments, "--repeats", "3", "--out", str(out), "--dry-run"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert "4 of 32, 3 times" in told
    # (4 + 6) for each of two samplers, and 60 of the reference, three times.
    assert "240 with 7,680 rows" in told
    assert not out.exists()


def test_a_dry_run_knows_of_an_unfinished_benchmark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*args: Any) -> None:
        raise ValueError("stopped")

    monkeypatch.setattr(runner, "collect", stop)
    arguments = ["bench", "-m", "mix8", "--nfe", "4", "--n", "8", "-s", "ddim"]
    arguments += ["--out", str(tmp_path / "out")]
    for more, status, told in (
        ([], 2, "stopped"),
        (["--dry-run"], 0, "2, 2 of them there"),
        (["--dry-run", "--seed", "1"], 2, "seed: 0 there, 1 now;"),
    ):
        with pytest.raises(SystemExit) as ended:
            cli.main([*arguments, *more])
        assert ended.value.code == status
        printed = capsys.readouterr()
        assert told in printed.out + printed.err
