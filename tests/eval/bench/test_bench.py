"""The benchmark: its schema, counted calls, equal starts, and files that appear whole."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from fewstep.eval.bench import runner
from fewstep.eval.bench import units as bench_units
from fewstep.eval.bench.jobs import Batch, all_specs, make_jobs, split_specs
from fewstep.eval.bench.runner import run_bench
from fewstep.eval.bench.setup import Bench
from fewstep.eval.cli.bench_scores import score_table
from fewstep.eval.common.folders import check_writable
from fewstep.eval.common.phases import PHASES
from fewstep.eval.problems import Problem, load_problem
from fewstep.eval.problems.fine_solution import CountingDenoiser, fine_reference
from fewstep.eval.problems.guides import Meter
from fewstep.eval.reports import pictures
from fewstep.eval.reports.results import Results, Row
from fewstep.eval.reports.tables import best_of_grids, table
from fewstep.guidance import CFG
from fewstep.models.data import CLASS_NAMES
from fewstep.samplers import DEFAULT_SPECS, build_plan
from fewstep.types import Level

HAVE_WEIGHTS = (Path(__file__).parents[3] / "models/weights/fashion.safetensors").exists()
SMALL = Bench(problem="mix8", samplers=("ddim", "dpmpp:order=3"), nfe=(4, 16), n=64)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "cache"))


def test_many_specs_in_one_value_are_no_path() -> None:
    specs = [f"unipc:order={p},grid={g}" for p in (1, 2, 3, 4) for g in ("karras", "tan")] * 40
    assert split_specs([";".join(specs)]) == specs[:8]


def test_results_follow_the_schema(tmp_path: Path) -> None:
    run_bench(replace(SMALL, samplers=DEFAULT_SPECS), tmp_path / "out")
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(written) == ["schema", "env", "rows"]
    assert written["schema"] == 2
    assert {"fewstep", "torch", "diffusers", "device", "threads"} <= set(written["env"])
    assert len(written["rows"]) == 2 * len(DEFAULT_SPECS)
    for row in written["rows"]:
        assert list(row) == [
            "sampler", "nfe", "calls", "rows", "seed", "n", "problem", "guidance", "metrics",
            "seconds", "seconds_by", "peak_memory",
        ]  # fmt: skip
        assert set(row["seconds_by"]) <= set(PHASES)
        # Sampling is the network and the solver around it; each is rounded to 1e-4 s.
        sampling = row["seconds_by"]["network"] + row["seconds_by"]["solver"]
        assert row["seconds"] == pytest.approx(sampling, abs=2e-4)
        assert row["calls"] == row["rows"] == row["nfe"]
        assert (row["seed"], row["n"], row["problem"], row["guidance"]) == (0, 64, "mix8", "none")
        assert row["metrics"]["rmse"] > 0
        assert row["seconds"] > 0
    with (tmp_path / "out" / "results.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [float(line["rmse"]) for line in lines] == [
        r["metrics"]["rmse"] for r in written["rows"]
    ]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"results.jsonl", "results.json", "results.csv", "report.md", "report.html",
                     "rmse.png", "sweep.yaml"}  # fmt: skip


def test_more_calls_are_better_and_all_start_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[torch.Tensor] = []
    inside = CountingDenoiser.__call__

    def spy(self: CountingDenoiser, x: torch.Tensor, level: Level, cond: object = None):
        if self.calls == 0:
            starts.append(x.clone())
        return inside(self, x, level, cond)

    monkeypatch.setattr(CountingDenoiser, "__call__", spy)
    results = run_bench(replace(SMALL, device="cpu"))
    for points in results.metric("rmse").values():
        assert points[16] < 0.6 * points[4]
    problem = load_problem("mix8")
    expected = problem.initial_noise(64, 0, torch.float64)
    assert len(starts) == 1 + len(results.rows)  # one warm-up
    assert all(torch.equal(start, expected) for start in starts)


def test_batches_do_not_change_the_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = replace(SMALL, samplers=("ddim", "ddim:eta=1"), nfe=(6,), n=50)
    whole = run_bench(setup)
    monkeypatch.setattr(bench_units, "BATCH_ELEMENTS", 7 * 8)
    pieces = run_bench(setup)
    for one, other in zip(whole.rows, pieces.rows, strict=True):
        # References are solved with one step size a batch, to 1e-6.
        assert other.metrics["rmse"] == pytest.approx(one.metrics["rmse"], abs=1e-5)
        assert other.calls == one.calls


def test_dopri5_and_saved_plans_bring_their_own_calls(tmp_path: Path) -> None:
    problem = load_problem("mix8")
    path = tmp_path / "mine.json"
    path.write_text(build_plan("unipc", problem.process, 7).to_json())
    results = run_bench(replace(SMALL, samplers=(str(path), "dopri5", "unipc"), nfe=(7,)))
    mine, dopri5, same = results.rows
    assert (mine.sampler, mine.nfe, mine.calls) == ("mine.json", 7, 7)
    assert mine.metrics == same.metrics
    assert dopri5.calls > 20
    assert dopri5.sampler == "dopri5:tol=0.001"
    # Its tolerance is far below the error of 7 calls.
    assert dopri5.metrics["rmse"] < 0.5 * mine.metrics["rmse"]


def test_counting_sees_guidance_batched_or_not() -> None:
    problem = load_problem("fashion-exact")
    x, labels = problem.initial_noise(2, dtype=torch.float64), torch.tensor([3, 4])
    counter = CountingDenoiser(problem.denoiser)
    CFG(3.0).wrap(counter)(x, problem.start_level, labels)
    assert (counter.calls, counter.rows) == (1, 4)


def test_guidance_changes_the_reference(tmp_path: Path) -> None:
    setup = Bench(problem="fashion-exact", samplers=("dpmpp",), nfe=(12,), n=4)
    plain = run_bench(setup)
    guided = run_bench(replace(setup, guidance="cfg:2"), tmp_path / "out")
    assert guided.rows[0].guidance == "cfg:2"
    assert plain.rows[0].metrics != guided.rows[0].metrics
    # Scored against the guided solution: no further off than a guided run at few calls can be.
    assert guided.rows[0].metrics["rmse"] < 0.3
    assert (tmp_path / "out" / "samples-nfe12.png").read_bytes()[:4] == b"\x89PNG"


def test_nothing_is_left_of_a_report_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no ink")

    monkeypatch.setattr(pictures, "draw_curves", fail)
    with pytest.raises(RuntimeError, match="no ink"):
        run_bench(SMALL, tmp_path / "out")
    # What was sampled is not lost: another try goes on from there.
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["units"]
    monkeypatch.undo()
    monkeypatch.setattr(runner, "warm_up", lambda *args: pytest.fail("sampled again"))
    run_bench(SMALL, tmp_path / "out")
    assert not (tmp_path / "out" / "units").exists()


def test_an_unwritable_folder_is_refused_before_sampling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "load_problem", lambda *args, **more: pytest.fail("began to work"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot write to .*choose another folder"):
        run_bench(SMALL, tmp_path / "file" / "out")
    with pytest.raises(ValueError, match="cannot write"):
        check_writable(tmp_path / "file")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nfe": (0,)}, "nfe must be at least 1"),
        ({"n": 1}, "at least 2 samples"),
        ({"seed": -1}, "seed must not be negative"),
        ({"peers": "all"}, "none or diffusers"),
        ({"guidance": "cfg"}, "write cfg:SCALE"),
        ({"guidance": ()}, "guidance is empty"),
        ({"guidance": "cfg:2"}, "'mix8', which has no classes: CFG needs a condition"),
        ({"problem": "mix9"}, "unknown problem 'mix9'"),
        ({"samplers": ("euler2",)}, "unknown sampler 'euler2'"),
        ({"samplers": ("dpmpp:order=0",)}, "order must be 1, 2 or 3"),
        ({"samplers": ("dopri5:order=3",)}, "tol="),
        ({"device": "abacus"}, "device 'abacus' cannot be used"),
        ({"compile": True}, "no network to compile"),
    ],
)
def test_wrong_settings_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_bench(replace(SMALL, **change))


def test_specs_split_at_semicolons_and_spaces() -> None:
    assert split_specs(["ddim; unipc:order=2", "heun ddim"]) == ["ddim", "unipc:order=2", "heun"]
    assert split_specs(["unipc:disable_corrector=[0, 1];ddim"])[0].endswith("[0, 1]")
    everything = split_specs(["all"])
    assert everything == all_specs()
    assert {"ddim", "deis:order=4", "unipc:order=1"} <= set(everything)
    assert "dpmpp:order=4" not in everything


def test_peers_are_collapsed_to_their_best_grid() -> None:
    def row(sampler: str, nfe: int, value: float) -> Row:
        return Row(sampler, nfe, nfe, nfe, 0, 8, "mix8", "none", {"rmse": value}, 1.0)

    rows = [
        row("ours", 5, 0.2), row("ours", 8, 0.1),
        row("diffusers:a:grid=karras", 5, 0.3), row("diffusers:a:grid=beta", 5, float("nan")),
        row("diffusers:a:grid=karras", 8, 0.09), row("diffusers:a:grid=linspace", 8, 0.05),
    ]  # fmt: skip
    lines = table(Results({}, rows), "rmse")
    assert lines[2:] == [
        "| `ours` | **0.2000** | 0.1000 |",
        "| diffusers a, best grid | 0.3000 (karras) | **0.0500** (linspace) |",
        "| *network evaluations per sample* | 5 | 8 |",
    ]


def test_the_terminal_tells_how_far_seeds_differ(capsys: pytest.CaptureFixture[str]) -> None:
    def row(sampler: str, seed: int, value: float) -> Row:
        return Row(sampler, 5, 5, 5, seed, 8, "mix8", "none", {"rmse": value}, 1.0)

    # Standard deviations sqrt(2) .003 and sqrt(2) .004: root mean square .005.
    values = {"ddim": (0.200, 0.206), "unipc": (0.100, 0.108)}
    rows = [row(name, seed, v) for name, pair in values.items() for seed, v in enumerate(pair)]
    Console().print(score_table(Results({}, rows), "rmse", "none"))
    told = capsys.readouterr().out
    assert "seeds 0, 1" in told
    assert re.search(r"ddim +0\.2030 *\n", told)
    assert re.search(r"± from seed to seed +0\.0050 *\n", told)
    Console().print(score_table(Results({}, rows[::2]), "rmse", "none"))
    assert "from seed" not in capsys.readouterr().out  # one seed tells nothing of others


def test_peers_run_beside_ours() -> None:
    results = run_bench(replace(SMALL, samplers=("unipc",), nfe=(8,), peers="diffusers"))
    best = best_of_grids(results, "rmse")
    assert len(best) == 12
    assert results.rows[0].sampler == "unipc"
    assert all(0.01 < points[8][0] < 0.5 for points in best.values())


@pytest.mark.skipif(not HAVE_WEIGHTS, reason="no bundled weights")
def test_the_bundled_model_end_to_end(tmp_path: Path) -> None:
    setup = Bench(samplers=("dpmpp",), nfe=(6, 12), n=10)
    results = run_bench(setup, tmp_path)
    coarse, fine = results.rows
    for metric in ("rmse", "feature_rmse"):
        assert fine.metrics[metric] < coarse.metrics[metric]
    assert fine.metrics["accuracy"] >= 0.5
    assert fine.metrics["fd_fashion"] > 0
    assert results.env["floor"]["fd_fashion"] > 0
    assert results.images["none", "dpmpp", 6, ""].shape == (10, 1, 28, 28)
    assert results.labels["none", "dpmpp", 6, ""] == CLASS_NAMES  # a benchmark takes them in turn
    text = (tmp_path / "report.md").read_text()
    assert "FD-fashion" in text
    assert "FID." not in text.replace("not an FID.", "")
    for name in ("rmse", "feature_rmse", "fd_fashion", "samples-nfe06", "samples-nfe12"):
        assert f"({name}.png)" in text
        assert (tmp_path / f"{name}.png").stat().st_size > 5000


@pytest.mark.skipif(not HAVE_WEIGHTS, reason="no bundled weights")
def test_the_fixed_reference_of_the_network_is_fine_enough() -> None:
    problem: Problem = load_problem("fashion")
    noise, labels = problem.initial_noise(2), problem.labels(2)
    found = fine_reference(problem, noise, labels, None)
    finer = make_jobs(["unipc:order=3,grid=logsnr"], problem.process, [150])[0]
    assert labels is not None
    other = finer.run(problem, Batch(noise, labels, range(2)), Meter(None))
    # 1e-4 on 32 samples; the best samplers score 5e-3 at 20 calls.
    assert (found - other).square().mean().sqrt() < 1e-3
