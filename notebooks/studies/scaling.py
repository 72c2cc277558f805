"""How much faster several processes generate than one: ``fewstep gen``'s work, timed within.

    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 notebooks/studies/scaling.py

The first process alone makes all units while the others wait, then all of them share the same
units out; so both are of one start, with warm networks and the same threads a process. From a
common barrier to the next, start-up does not count.
"""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from fewstep.eval.common.processes import Processes
from fewstep.eval.generate.generation import generate_images
from fewstep.eval.generate.units import Generation
from fewstep.eval.generate.verification import verify
from fewstep.eval.problems import load_problem

UNITS, ROUNDS = 12, 3


@dataclass(frozen=True)
class Round:
    """Seconds of one process alone and of all, and whether they made the same."""

    alone: float
    together: float
    equal: bool

    @property
    def speedup(self) -> float:
        return self.alone / self.together


def measure(run: Generation, processes: Processes, folder: Path) -> Round:
    """One comparison, in two new folders below ``folder``, which all processes see."""
    seconds: list[float] = []
    for world in (1, processes.world):
        processes.barrier()
        begun = time.perf_counter()
        if processes.rank < world:
            generate_images(run, folder / f"world-{world}", rank=processes.rank, world=world)
        processes.barrier()
        seconds.append(time.perf_counter() - begun)
    hashes = {verify(folder / f"world-{world}").hash for world in (1, processes.world)}
    alone, together = seconds
    return Round(alone, together, len(hashes) == 1)


def main() -> None:
    """Prints each round; ends with status 1 if there is only one process."""
    processes = Processes.start("auto")
    if processes.world == 1:
        raise SystemExit("start several: torchrun --nproc-per-node 2 notebooks/studies/scaling.py")
    run = Generation(load_problem("fashion", processes.device), "unipc", 8, range(64 * UNITS))
    run.make(0)  # warm-up
    with tempfile.TemporaryDirectory() as own:
        folder = Path(processes.gathered(own)[0])  # that of the first process
        for number in range(ROUNDS):
            found = measure(run, processes, folder / str(number))
            if processes.is_main:
                print(
                    f"{UNITS} units: 1 process {found.alone:.2f} s, {processes.world} processes "
                    f"{found.together:.2f} s, {found.speedup:.2f} times as fast, "
                    f"{torch.get_num_threads()} thread(s) each, "
                    f"{'same' if found.equal else 'OTHER'} images",
                    flush=True,
                )
        processes.barrier()


if __name__ == "__main__":
    main()
