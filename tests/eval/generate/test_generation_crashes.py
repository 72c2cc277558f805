"""`kill -9` at any moment takes one unit of each rank at most, and changes no bit of the result."""

import os
import random
import shutil
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from generation_runs import SHAPE, logged_run, work

from fewstep.eval.generate.collected import statistics
from fewstep.eval.generate.generation import generate_images
from fewstep.eval.generate.verification import verify
from fewstep.eval.networks.extractors import PixelExtractor

UNITS = 20
# Its children begin with the modules loaded and a single thread, unlike forks of the tests.
SERVER = get_context("forkserver")
SERVER.set_forkserver_preload(
    ["fewstep.eval.generate.collected", "fewstep.eval.generate.generation"]
)
TORCHRUN = """
import sys
import torch
from generation_runs import logged_run
from fewstep.eval.generate.generation import generate_images
torch.set_num_threads(1)
from pathlib import Path
generate_images(logged_run(Path(sys.argv[2]), sys.argv[3]), sys.argv[1], checkpoint_units=1)
"""


class Trials:
    """Starts processes on a folder and kills them, counting what that costs."""

    def __init__(self, folder: Path, keep: Any) -> None:
        self.folder, self.keep, self.log = folder / "run", keep, folder / "begun"
        self.log.touch()
        self.expected = folder / "expected"
        generate_images(logged_run(folder / "unread", keep), self.expected)

    def begun(self) -> int:
        """Units that were begun so far."""
        return len(self.log.read_text().splitlines())

    def done(self) -> int:
        return len(verify(self.folder).records) if self.folder.exists() else 0

    def kill(self, world: int, random_numbers: random.Random) -> int:
        """How many units were begun and not kept, when all ranks were killed at any moment."""
        begun, done = self.begun(), self.done()
        processes = [self._start(rank, world) for rank in range(world)]
        limit = time.monotonic() + 60
        while self.begun() == begun and any(process.is_alive() for process in processes):
            assert time.monotonic() < limit
            time.sleep(0.002)
        time.sleep(random_numbers.uniform(0, 0.08))  # a unit takes about 0.01 s
        for process in processes:
            process.kill()
            process.join()
        return (self.begun() - begun) - (self.done() - done)

    def finish(self, world: int) -> None:
        processes = [self._start(rank, world) for rank in range(world)]
        for process in processes:
            process.join(60)
            assert process.exitcode == 0

    def assert_as_expected(self) -> None:
        found, expected = verify(self.folder), verify(self.expected)
        assert found.hash == expected.hash is not None
        extractor = PixelExtractor(SHAPE)
        states = [statistics(folder, extractor).state() for folder in (self.folder, self.expected)]
        assert all(torch.equal(states[0][name], value) for name, value in states[1].items())

    def _start(self, rank: int, world: int) -> Any:
        process = SERVER.Process(
            target=work, args=(self.folder, self.log, self.keep, rank, world), daemon=True
        )
        process.start()
        return process


def kill_often(trials: Trials, count: int, world: int, seed: int) -> None:
    random_numbers = random.Random(seed)
    for _ in range(count):
        if trials.folder.exists() and trials.done() == UNITS:
            shutil.rmtree(trials.folder)
        lost = trials.kill(world, random_numbers)
        assert 0 <= lost <= world
    trials.finish(world + 1)
    trials.assert_as_expected()


@pytest.mark.parametrize("keep", ["images", "none"])
def test_a_killed_run_goes_on(tmp_path: Path, keep: Any) -> None:
    kill_often(Trials(tmp_path, keep), 3, 1, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("keep", ["images", "features", "none"])
@pytest.mark.parametrize("world", [1, 2])
def test_a_run_killed_twenty_times_goes_on(tmp_path: Path, keep: Any, world: int) -> None:
    kill_often(Trials(tmp_path, keep), 20, world, seed=1)


@pytest.mark.slow
def test_processes_of_torchrun_share_the_work(tmp_path: Path) -> None:
    trials = Trials(tmp_path, "features")
    script = tmp_path / "script.py"
    script.write_text(TORCHRUN)
    tests = str(Path(__file__).parents[2] / "support")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
         str(script), str(trials.folder), str(trials.log), "features"],
        env={**os.environ, "PYTHONPATH": tests}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [(trials.folder / f"journal-{rank}.jsonl").read_text() for rank in (0, 1)]
    assert [text.count("\n") for text in lines] == [UNITS // 2, UNITS // 2]
    trials.assert_as_expected()
