"""A dry run counts what a benchmark takes, and `make bench` takes minutes on any machine."""

import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fewstep.eval import cli
from fewstep.eval.bench import units as bench_units
from fewstep.eval.bench.estimate import estimate
from fewstep.eval.bench.runner import prepare
from fewstep.eval.bench.setup import Bench
from fewstep.eval.bench.units import BatchRun, Work

ROOT = Path(__file__).parents[3]
HAVE_WEIGHTS = (ROOT / "models/weights/fashion.safetensors").exists()
pytestmark = pytest.mark.skipif(not HAVE_WEIGHTS, reason="no bundled weights")

# A core without AVX-512 makes 100 rows of the bundled network a second: 7.5 minutes on one.
MOST_ROWS = 45_000


@pytest.fixture(autouse=True)
def rows_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each call of the bundled network, which is not run: its input is its answer."""
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "cache"))
    seen: list[int] = []

    def counted(self: Any, x: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
        seen.append(len(x))
        return x

    net = type(prepare(Bench(nfe=(1,)), "cpu").problem.denoiser.net)  # type: ignore[attr-defined]
    monkeypatch.setattr(net, "forward", counted)
    return seen


@pytest.mark.parametrize("guidance", ["none", "cfg:2", "none;cfg:3"])
def test_calls_and_rows_are_those_of_a_counted_run(
    guidance: str, rows_seen: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_units, "BATCH_ELEMENTS", 2 * 784)
    settings = Bench(
        samplers=("ddim", "heun"), nfe=(2, 3), n=3, repeats=2, guidance=guidance, device="cpu"
    )
    work = unjudged(settings)
    found = estimate(work)
    run_units(work, rows_seen)
    assert work.batches == 2  # of 2 and 1 samples in each repeat
    assert (found.calls, found.rows) == (len(rows_seen), sum(rows_seen))


def test_guidance_on_an_interval_is_counted_as_if_it_were_on(rows_seen: list[int]) -> None:
    settings = Bench(samplers=("ddim",), nfe=(4,), n=2, guidance="cfg:2|interval:0.3,3")
    work = unjudged(settings)
    found = estimate(work)
    run_units(work, rows_seen)
    assert found.calls == len(rows_seen)  # twice as many for the reference as without breakpoints
    # A call at the first level, where nothing is guided, tells nothing of the dearer ones.
    assert sum(rows_seen) < found.rows == 2 * 2 * found.calls


def test_a_dry_run_makes_a_few_calls_whatever_is_asked_for(rows_seen: list[int]) -> None:
    """One to warm up and one that is timed, for each guidance."""
    for nfe, n in ((2, 200), (1000, 1_000_000)):
        work = unjudged(Bench(samplers=("ddim",), nfe=(nfe,), n=n, guidance="none;cfg:2"))
        rows_seen.clear()
        assert estimate(work).calls > nfe
        assert len(rows_seen) == 4


@pytest.mark.parametrize("made_by", ["make", "fewstep"])
def test_the_default_benchmark_is_small(made_by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = re.search(
        r"^bench:.*\n\t\S+/fewstep (bench.*)$", (ROOT / "Makefile").read_text(), re.M
    )
    assert recipe is not None
    words = shlex.split(recipe[1]) if made_by == "make" else ["bench"]
    ran: list[Bench] = []
    monkeypatch.setattr(
        "fewstep.eval.cli.bench_scores.run_and_report", lambda sweep, progress: ran.append(sweep)
    )
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 0
    work = unjudged(ran[0])
    warm_up = len(work.cases) * work.rows(0)
    assert estimate(work).rows + warm_up <= MOST_ROWS
    # Small, but not by leaving something out: every family, few calls and many.
    assert ran[0].samplers == Bench().samplers
    calls = [job.nfe for case in work.cases for job in case.jobs]
    assert min(calls) <= 5
    assert max(calls) >= 20


def unjudged(settings: Bench) -> Work:
    """The work without features of the samples, whose network is another one."""
    return replace(prepare(settings, "cpu"), extractor=None, reference=None)


def run_units(work: Work, rows_seen: list[int]) -> None:
    """Runs all units, and leaves in the list what they took."""
    assert work.problem.answers is not None  # asked once, whatever is run
    rows_seen.clear()
    for batch in range(work.batches * work.bench.repeats):
        for _ in BatchRun(work, batch).units():
            pass
