"""One or several processes, as plain python, torchrun or ``accelerate launch`` started them.

A thin layer over :class:`accelerate.PartialState`. A process that was started alone makes no
process group, and leaves accelerate as it is for whoever uses it next.
"""

import atexit
import os
import sys
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed

# Ranks meet once, behind hours of work, and the slowest may be far behind: the usual limit of half
# an hour would end the run. The launcher ends the others when one of them fails.
PATIENCE = timedelta(days=365)
T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process among those that work together.

    Attributes:
        rank: its number, in 0 .. world - 1.
        world: how many there are.
        device: where it works: of several on CUDA, each has its own.
    """

    rank: int = 0
    world: int = 1
    device: str = "cpu"

    @classmethod
    def start(cls, device: str = "auto") -> "Processes":
        """Finds the others, and connects to them: gloo on the CPU, NCCL on CUDA.

        Args:
            device: a torch device, or ``auto``: CUDA where there is one.

        Raises:
            ValueError: for a device that is not here, or that several processes cannot share out.
        """
        _, world = launched()
        if world == 1:
            return cls(0, 1, resolve_device(device))
        kind = resolve_device(device)
        if kind not in ("cpu", "cuda"):
            raise ValueError(
                f"{world} processes work on cpu or cuda, of which each takes a device of its own; "
                f"got {device!r}"
            )
        from accelerate import PartialState

        mine = not torch.distributed.is_initialized()
        state = PartialState(cpu=kind == "cpu", timeout=PATIENCE)
        if mine:
            atexit.register(state.destroy_process_group)
        own_device = "cpu" if kind == "cpu" else str(state.device)
        return cls(state.process_index, state.num_processes, own_device)

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which prints and collects."""
        return self.rank == 0

    def gathered(self, value: T) -> list[T]:
        """The values of all processes by rank, on each of them; so nobody is ahead of others."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """Waits until all processes have come here."""
        if self.world > 1:
            torch.distributed.barrier()


def launched() -> tuple[int, int]:
    """Rank and world of this process, found out without connecting to the others."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    # Making a state would start accelerate's process group, so only one that is there is asked.
    state: Any = getattr(sys.modules.get("accelerate.state"), "PartialState", None)
    if state is not None and state._shared_state:
        return int(state().process_index), int(state().num_processes)
    usual = {"RANK": "0", "WORLD_SIZE": "1"}
    told = {name: os.environ.get(name, alone) for name, alone in usual.items()}
    for name, text in told.items():
        if not text.isdecimal():
            raise ValueError(
                f"{name} of the environment, which launchers set, must be a whole number, got "
                f"{text!r}: unset it for a process alone"
            )
    return int(told["RANK"]), int(told["WORLD_SIZE"])


def resolve_device(name: str) -> str:
    """``auto`` as CUDA or the CPU.

    Raises:
        ValueError: if torch has no such device here.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} cannot be used ({reason}); try --device auto") from error
    return name
