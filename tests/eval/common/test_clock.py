"""Seconds are counted by the innermost phase, all of them and none twice."""

import os
import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from generation_runs import blobs

from fewstep.eval.common import clock
from fewstep.eval.common.clock import Clock, peak_memory
from fewstep.eval.common.phases import PHASES
from fewstep.samplers import sample
from fewstep.types import Denoiser


class Times:
    """A clock by hand, for the CPU's marks and for CUDA's events alike."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.waits = 0.0, 0
        monkeypatch.setattr(clock, "time", SimpleNamespace(perf_counter=lambda: self.now))
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
        times = self

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing

            def record(self, stream: Any) -> None:
                self.at = times.now

            def synchronize(self) -> None:
                times.waits += 1

            def elapsed_time(self, other: "Event") -> float:
                return (other.at - self.at) * 1e3

        monkeypatch.setattr(torch.cuda, "Event", Event)


@pytest.fixture(params=["cpu", "cuda"])
def clocked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    return Times(monkeypatch), Clock(request.param)


def test_an_inner_phase_takes_its_time_off_the_outer_one(clocked: tuple[Times, Clock]) -> None:
    times, found = clocked
    times.now += 100  # before any phase, and so of none
    with found.phase("solver"):
        times.now += 1
        for _ in range(2):
            with found.phase("network"):
                times.now += 10
        times.now += 2
    times.now += 100
    with found.phase("save"):
        times.now += 4
    assert found.seconds() == pytest.approx({"solver": 3, "network": 20, "save": 4})


def test_reading_does_not_end_a_phase(clocked: tuple[Times, Clock]) -> None:
    times, found = clocked
    with found.phase("solver"):
        times.now += 1
        assert found.seconds() == pytest.approx({"solver": 1})
        times.now += 2
    times.now += 5
    assert found.seconds() == found.seconds() == pytest.approx({"solver": 3})


def test_a_phase_of_its_own_name_counts_once(clocked: tuple[Times, Clock]) -> None:
    """A second order solver's denoiser may be timed twice."""
    times, found = clocked
    with found.phase("network"), found.phase("network"):
        times.now += 3
    assert found.seconds() == pytest.approx({"network": 3})


def test_an_error_ends_its_phase(clocked: tuple[Times, Clock]) -> None:
    times, found = clocked

    def fail() -> None:
        with found.phase("network"):
            times.now += 1
            raise KeyError

    with found.phase("solver"):
        with pytest.raises(KeyError):
            fail()
        times.now += 2
    assert found.seconds() == pytest.approx({"network": 1, "solver": 2})


def test_cuda_waits_only_when_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    times, found = Times(monkeypatch), Clock("cuda:0")
    for _ in range(3):
        with found.phase("network"):
            times.now += 1
    assert times.waits == 0
    assert found.seconds() == pytest.approx({"network": 3})
    assert times.waits == 1


def test_nothing_was_timed() -> None:
    assert Clock("cuda").seconds() == Clock().seconds() == {}


def test_a_timed_denoiser_is_the_same_denoiser() -> None:
    problem, found = blobs(pause=0.002), Clock()
    timed = found.timed(problem.denoiser)
    assert timed.process is problem.process
    assert timed.num_classes == 2  # type: ignore[attr-defined]

    def run(denoiser: Denoiser) -> torch.Tensor:
        labels = torch.tensor([0, 1, 0])
        return sample(denoiser, "unipc", 5, shape=(3, 1, 4, 4), cond=labels, seeds=range(3))

    begun = time.perf_counter()
    with found.phase("solver"):
        x = run(timed)
    passed = time.perf_counter() - begun
    assert torch.equal(x, run(problem.denoiser))
    seconds = found.seconds()
    assert seconds["network"] >= 5 * 0.002  # the pauses of five calls
    assert sum(seconds.values()) <= passed  # none counts twice; what is left is the marks' own
    assert seconds.keys() <= set(PHASES)


def test_peak_memory_is_in_bytes() -> None:
    """As much as this process holds now, and less than a hundred times that."""
    with open("/proc/self/statm") as file:
        held = int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    # The kernel counts pages by processor, and adds them up now and then.
    assert 0.95 * held <= peak_memory() <= 100 * held
