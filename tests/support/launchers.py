"""The ways to start several processes of a python file or module on the CPU."""

import os
import subprocess
import sys

LAUNCHERS = {
    "torchrun": ("torch.distributed.run", "--standalone", "--nproc-per-node"),
    # On the CPU its `--cpu --num_processes 2` starts one process; several take this, or MPI.
    "accelerate": ("accelerate.commands.launch", "--multi_gpu", "--main_process_port=0",
                   "--num_processes"),
}  # fmt: skip


def launch(launcher: str, world: int, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Runs a python file, or with ``-m`` a module, in ``world`` processes of one thread each."""
    return subprocess.run(
        [sys.executable, "-m", *LAUNCHERS[launcher], str(world), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
