"""Generation on a CUDA device: repeatable, and its seconds are all accounted for."""

import time
from pathlib import Path

import pytest
import torch

from fewstep.eval.common.clock import Clock, peak_memory
from fewstep.eval.generate.generation import generate_images
from fewstep.eval.generate.units import Generation
from fewstep.eval.generate.verification import verify
from fewstep.eval.networks.families import load_extractor
from fewstep.eval.problems import load_problem

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def small_run(sampler: str = "sa", guidance: str = "cfg:2") -> Generation:
    problem, judge = load_problem("fashion", "cuda"), load_extractor("fd-cnn:fashion", "cuda")
    return Generation(problem, sampler, 6, range(50), guidance, unit_size=16, extractor=judge)


@pytest.mark.parametrize("guidance", ["none", "cfg:2"])
@pytest.mark.parametrize("sampler", ["unipc", "sa", "restart"])
def test_two_runs_are_equal(tmp_path: Path, sampler: str, guidance: str) -> None:
    """Images, labels and features; the second one by two ranks in turn."""
    run = small_run(sampler, guidance)
    generate_images(run, tmp_path / "a")
    for rank in (1, 0):
        generate_images(run, tmp_path / "b", rank=rank, world=2)
    assert verify(tmp_path / "a").hash == verify(tmp_path / "b").hash is not None
    assert verify(tmp_path / "a", recompute=4, run=run).ok


def test_phases_do_not_overlap() -> None:
    run = small_run()
    run.make(0)  # warm-up
    torch.cuda.synchronize()
    begun = time.perf_counter()
    seconds = run.make(1).seconds
    passed = time.perf_counter() - begun
    # Events are exact to half a microsecond, and a unit has some hundreds.
    assert sum(seconds.values()) <= passed + 1e-3
    assert all(value >= 0 for value in seconds.values())


def test_a_phase_waits_for_nothing() -> None:
    """Long work of the device counts for the phase that it was started in."""
    x = torch.randn(4096, 4096, device="cuda")
    for _ in range(2):  # the first round is warm-up
        clock = Clock("cuda")
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            with clock.phase("solver"), clock.phase("network"):
                for _ in range(20):
                    y = x @ x
        finally:
            torch.cuda.set_sync_debug_mode("default")
        seconds = clock.seconds()
    assert y.isfinite().all()
    assert seconds["network"] > seconds["solver"]  # 50 ms of products, and next to nothing


def test_peak_memory_is_the_devices() -> None:
    before = peak_memory("cuda")
    held = torch.empty(before + 2**20, dtype=torch.uint8, device="cuda")
    assert peak_memory("cuda") >= held.numel()
