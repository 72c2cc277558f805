"""A benchmark in pieces: stopped and gone on with, by one process or several, with one answer."""

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from generation_runs import KILLED, bench

from fewstep.eval.bench import runner
from fewstep.eval.bench import units as bench_units
from fewstep.eval.bench.collect import collect
from fewstep.eval.bench.runner import prepare, run_bench
from fewstep.eval.bench.setup import Bench
from fewstep.eval.bench.units import BatchRun, Made, Work
from fewstep.eval.generate.shards import ShardFolder
from fewstep.eval.metrics.exact import exact_scores
from fewstep.eval.problems import load_problem
from fewstep.eval.problems.guides import Meter
from fewstep.eval.reports.lines import read_runs
from fewstep.models.data import fashion_folder
from fewstep.models.ode import level_at
from fewstep.samplers import sample


def have_data() -> bool:
    try:
        fashion_folder(download=False)
    except FileNotFoundError:
        return False
    return True


SMALL = Bench(problem="mix8", samplers=("ddim", "euler_a"), nfe=(4,), n=20, repeats=2)
SERVER = get_context("forkserver")
HAVE_WEIGHTS = (Path(__file__).parents[3] / "models/weights/fashion.safetensors").exists()
HAVE_DATA = have_data()
needs_weights = pytest.mark.skipif(not HAVE_WEIGHTS, reason="no bundled weights")


@pytest.fixture(autouse=True)
def small_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(bench_units, "BATCH_ELEMENTS", 8 * 8)


def metrics(results: Any) -> list[dict[str, float]]:
    return [row.metrics for row in results.rows]


class StopError(Exception):
    """As a crash would."""


@pytest.mark.parametrize("stop", [0, 1, 4, 5, 8, 17])
def test_a_stopped_benchmark_goes_on_where_it_ended(
    stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it stops, in a batch or between two: no unit that was made is made again."""
    whole, made = run_bench(SMALL), list[int]()

    class Counted(BatchRun):
        def units(self) -> Iterator[Made]:
            for one in super().units():
                made.append(one.unit)
                yield one
                if len(made) == stop:
                    raise StopError

    monkeypatch.setattr(runner, "SAVE_SECONDS", 0)
    monkeypatch.setattr(runner, "BatchRun", Counted)
    if stop:
        with pytest.raises(StopError):
            run_bench(SMALL, tmp_path / "out")
    done: list[int] = []
    results = run_bench(SMALL, tmp_path / "out", lambda now, total, text: done.append(now))
    # Three batches (of 8, 8 and 4) in each of two repeats, through a reference and two samplers.
    assert made == list(range(18))
    assert metrics(results) == metrics(whole)
    calls, rows = (60, 4, 4), (8, 8, 4) * 2
    assert done[0] == sum(calls[unit % 3] * rows[unit // 3] for unit in range(stop))
    assert done[-1] == 40 * 68
    assert not (tmp_path / "out" / "units").exists()


def test_units_that_share_a_file_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How much work waits to be written changes files, and no number."""
    results, files = [], []

    def kept(work: Work, shards: ShardFolder) -> Any:
        files.append(len(list(shards.path.glob("unit-*.safetensors"))))
        return collect(work, shards)

    monkeypatch.setattr(runner, "collect", kept)
    for seconds in (0, 60):
        monkeypatch.setattr(runner, "SAVE_SECONDS", seconds)
        results.append(metrics(run_bench(SMALL, tmp_path / str(seconds))))
    assert results[0] == results[1]
    assert files == [18, 6]  # a file for each unit, and for each batch


@pytest.mark.parametrize("guidance", ["none", "cfg:2", "cfg:3|interval:0.2,2"])
@needs_weights
def test_no_unit_of_the_network_takes_a_minute(guidance: str) -> None:
    """At 100 rows a second; the size of a batch depends neither on n nor on the machine's load."""
    sizes = set()
    for n in (128, 1000):
        bench = Bench(samplers=("ddim",), nfe=(5, 50), n=n, guidance=guidance)
        work = prepare(bench, "cpu")
        meter, x = Meter(work.cases[0].guidance.expression), work.problem.initial_noise(2)
        level = level_at(work.problem.process, 1.0)  # where every part is on
        with torch.no_grad():
            meter.wrap(work.problem.denoiser, [0, 1])(x, level, work.problem.labels(2))
        calls = max(work.calls_of_unit(unit) for unit in range(len(work.steps)))
        assert calls == work.calls_of_unit(0) >= 60  # of the reference
        assert work.batch_size * calls * meter.counters.rows / 2 <= 6_000
        sizes.add(work.batch_size)
    assert len(sizes) == 1


@pytest.mark.slow
def test_kills_cost_a_unit_each_at_most(tmp_path: Path) -> None:
    """Ten at random moments; what comes out is what an undisturbed run gives, to the bit."""
    random_numbers, log, out = random.Random(3), tmp_path / "begun", tmp_path / "out"
    log.touch()
    expected = run_bench(KILLED)
    work, lost = prepare(KILLED, "cpu"), []
    for _ in range(10):
        begun, done = _begun(log), _done(work, out)
        process = SERVER.Process(target=bench, args=(out, log), daemon=True)
        process.start()
        limit = time.monotonic() + 60
        while _begun(log) == begun and process.is_alive():
            assert time.monotonic() < limit
            time.sleep(0.002)
        time.sleep(random_numbers.uniform(0, 0.3))  # a unit takes about 0.02 s
        process.kill()
        process.join()
        if (out / "results.jsonl").exists():  # it was over before
            shutil.rmtree(out)
            continue
        lost.append((_begun(log) - begun) - (_done(work, out) - done))
    assert lost
    assert set(lost) <= {0, 1}
    assert metrics(run_bench(KILLED, out)) == metrics(expected)


def _begun(log: Path) -> int:
    return len(log.read_text().splitlines())


def _done(work: Work, out: Path) -> int:
    """Units of samplers that are on disk."""
    shards = ShardFolder(out / "units")
    found = shards.finished(range(work.units)).records if shards.path.exists() else {}
    return sum(work.steps[unit % len(work.steps)][1] != "reference" for unit in found)


@pytest.mark.parametrize(
    "change",
    [{"n": 21}, {"seed": 1}, {"repeats": 1}, {"nfe": (5,)}, {"samplers": ("ddim", "heun")},
     {"problem": "ring2"}, {"metrics": ("fd", "exact")}],
)  # fmt: skip
def test_units_of_other_settings_are_refused_with_the_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    def stop(*args: Any) -> None:
        raise StopError

    monkeypatch.setattr(runner, "collect", stop)
    with pytest.raises(StopError):
        run_bench(SMALL, tmp_path / "out")
    monkeypatch.setattr(runner, "collect", collect)
    with pytest.raises(
        ValueError, match=r"was made with other settings:\n.* there, .* now"
    ) as caught:
        run_bench(replace(SMALL, **change), tmp_path / "out")
    for line in str(caught.value).splitlines()[1:-1]:  # they can be told apart by what is shown
        then, now = line.partition(": ")[2].removesuffix(" now;").split(" there, ")
        assert then.partition(" (sha256")[0] != now.partition(" (sha256")[0]
    # Of what does not change the samples, nothing is refused.
    run_bench(SMALL, tmp_path / "out")


def test_repeats_are_runs_of_the_next_seeds() -> None:
    both = run_bench(SMALL)
    assert [row.seed for row in both.rows] == [0, 1, 0, 1]
    second = run_bench(replace(SMALL, seed=1, repeats=1))
    assert metrics(second) == metrics(both)[1::2]


def test_costs_are_counted_by_hooks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    inside = type(load_problem("mix8").denoiser).__call__

    def counted(self: Any, x: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.append(len(x))
        return inside(self, x, *rest)

    work = prepare(replace(SMALL, repeats=1, samplers=("heun",), nfe=(7,)), "cpu")
    monkeypatch.setattr(type(work.problem.denoiser), "__call__", counted)
    units = BatchRun(work, 0).units()
    next(units)  # the reference
    seen.clear()
    made = next(units)
    calls, rows, *_ = made.numbers["0/0/costs"].tolist()
    assert made.rows_and_seconds[0] == rows
    assert (calls, rows) == (len(seen), sum(seen)) == (7, 7 * 8)


def test_exact_scores_are_those_of_the_samples() -> None:
    bench = replace(SMALL, samplers=("unipc",), nfe=(12,), repeats=1, metrics=("exact",))
    (row,) = run_bench(bench).rows
    problem = load_problem("mix8")
    work = prepare(bench, "cpu")
    parts = []
    for number in range(work.batches):
        batch = work.batch(number)
        noise = batch.noise / problem.start_scale
        parts.append(sample(problem.denoiser, "unipc", 12, noise=noise, seeds=batch.seeds))
    expected = exact_scores(problem, torch.cat(parts))
    assert {name: row.metrics[name] for name in expected} == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metrics": ("fd", "kid")}, "metric kid is of features .* none of 'mix8'.* ask for exact"),
        pytest.param({"problem": "fashion", "metrics": ("exact",)}, "'fashion' is a network",
                     marks=needs_weights),
    ],
)  # fmt: skip
def test_metrics_that_cannot_be_had_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_bench(replace(SMALL, **change))


@needs_weights
def test_scores_of_the_reference_are_means_over_repeats() -> None:
    bench = Bench(samplers=("ddim",), nfe=(2,), n=3, repeats=2)
    both, found = run_bench(bench).env["reference"]["none"], []
    for seed in range(2):
        each = run_bench(replace(bench, seed=seed, repeats=1))
        found.append(each.env["reference"]["none"]["fd_fashion"])
    assert both["fd_fashion"] == pytest.approx(sum(found) / 2, rel=1e-12)


@needs_weights
@pytest.mark.skipif(not HAVE_DATA, reason="KID needs the training images")
def test_metrics_of_images_are_added_on_request() -> None:
    bench = Bench(samplers=("ddim",), nfe=(2,), n=4, metrics=("fd", "kid"))
    (row,) = run_bench(bench).rows
    assert {"fd_fashion", "kid"} <= set(row.metrics)


def test_an_extractor_that_cannot_be_had_ends_a_run_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FEWSTEP_INCEPTION", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "nothing"))
    monkeypatch.setattr(runner, "load_problem", lambda *args, **more: pytest.fail("began"))
    bench = Bench(extractor="inception", ref="ref.npz", weights=tmp_path / "none.pth")
    with pytest.raises(OSError, match=r"none\.pth"):
        run_bench(bench, tmp_path / "out")


@pytest.mark.slow
def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "FEWSTEP_CACHE": str(tmp_path / "cache")}
    command = [
        # Two units.
        "-m", "fewstep", "bench", "-m", "ring2", "--count", "4200", "--nfe", "3",
        "--samplers", "ddim", "--out",
    ]  # fmt: skip
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    one, two = tmp_path / "one", tmp_path / "two"
    for launcher, out in (([], one), (torchrun, two)):
        subprocess.run(
            [sys.executable, *launcher, *command, str(out)], env=environment, check=True,
            capture_output=True, timeout=300,
        )  # fmt: skip
    (first,), (second,) = (read_runs(out / "results.jsonl") for out in (one, two))
    assert metrics(first) == metrics(second)
    assert not (two / "units").exists()


def test_units_tell_times_side_by_side_and_how_much_scores_vary() -> None:
    """20 samples in units of 8: three times of each sampler, and 20 values without one sample."""
    results = run_bench(SMALL)
    for row in results.rows:
        assert len(row.seconds_each) == 3
        whole = sum(n * seconds for n, seconds in zip((8, 8, 4), row.seconds_each, strict=True))
        # Both are rounded: to 0.1 ms, and to four digits.
        assert whole == pytest.approx(row.seconds, rel=2e-3, abs=1e-4)
        values = torch.tensor(row.replicates["rmse"], dtype=torch.float64)
        assert len(values) == 20
        # Each sample's square is left out once: the mean of their squares is that of all.
        assert float(values.square().mean().sqrt()) == pytest.approx(row.metrics["rmse"], rel=1e-6)
