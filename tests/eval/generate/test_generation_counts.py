"""Calls and rows of the network are counted, as a hook on the network counts them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from generation_runs import small_run
from torch import nn

from fewstep.eval.common.phases import PHASES
from fewstep.eval.generate.generation import Summary, generate_images
from fewstep.eval.generate.units import Generation
from fewstep.eval.generate.verification import verify
from fewstep.eval.problems import Problem, load_problem
from fewstep.samplers import SAMPLERS


@pytest.fixture(scope="module")
def fashion() -> Problem:
    torch.set_num_threads(1)
    return load_problem("fashion")


class Hook:
    """Counts what a network really sees."""

    def __init__(self, net: nn.Module) -> None:
        self.calls, self.rows = 0, 0
        self._handle = net.register_forward_hook(self._count)

    def _count(self, net: nn.Module, inputs: tuple[torch.Tensor, ...], output: object) -> None:
        self.calls += 1
        self.rows += len(inputs[0])

    def __enter__(self) -> "Hook":
        return self

    def __exit__(self, *error: object) -> None:
        self._handle.remove()


@pytest.mark.filterwarnings("ignore:ICG draws anew at each step")  # of higher orders
@pytest.mark.parametrize("guidance", ["none", "cfg:2", "cfg:2|interval:0.28,2.9", "icg:1.4"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_counts_are_those_of_a_hook(fashion: Problem, sampler: str, guidance: str) -> None:
    run = Generation(fashion, sampler, 8, range(3), guidance, unit_size=2)
    for number in (0, 1):  # the second one is filled up
        with Hook(fashion.denoiser.net) as hook:  # type: ignore[attr-defined]
            unit = run.make(number)
        assert (unit.calls, unit.network_rows) == (hook.calls, hook.rows)
        assert hook.calls == run.plan.nfe == 8
        twice = {"none": 1, "cfg:2": 2, "icg:1.4": 2}
        if guidance in twice:  # an interval leaves out rows at some levels
            assert hook.rows == 8 * 2 * twice[guidance]


def test_units_tell_where_their_time_went(fashion: Problem, tmp_path: Path) -> None:
    run = Generation(fashion, "unipc", 4, range(5), unit_size=4)
    generate_images(run, tmp_path)
    found = verify(tmp_path)
    assert found.seconds_by.keys() == set(PHASES) - {"save"}
    assert all(seconds > 0 for seconds in found.seconds_by.values())
    assert found.seconds == pytest.approx(sum(found.seconds_by.values()))


def log_of(folder: Path, rank: int = 0) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"log-{rank}.jsonl").read_text().splitlines()]


def test_each_start_is_logged(tmp_path: Path) -> None:
    generate_images(small_run(), tmp_path, rank=0, world=2)
    generate_images(small_run(), tmp_path)
    first, second = log_of(tmp_path)
    assert (first["world"], first["made"], first["reused"]) == (2, 3, 0)
    assert (second["world"], second["made"], second["reused"]) == (1, 3, 3)
    assert second["peak_memory"] >= first["peak_memory"] > 2**20


@pytest.mark.parametrize(
    ("made", "reused", "damaged", "text"),
    [
        (11, 9, [], "reused 9 units, made 11"),
        (11, 9, ["a"], "reused 9 units, made 11, 1 damaged file made again"),
        (2, 0, ["a", "b"], "reused 0 units, made 2, 2 damaged files made again"),
    ],
)
def test_a_summary_reads_well(made: int, reused: int, damaged: list[str], text: str) -> None:
    assert str(Summary(made, reused, damaged)) == text
    # Two ranks may find the same file of sums damaged.
    parts = [Summary(1, 2, ["a"]), Summary(3, 4, ["a", "b"])]
    assert Summary.of_all(parts) == Summary(4, 6, ["a", "b"])
