"""diffusers' own schedulers on our problems, driven as a pipeline drives them.

Each run starts from the same noise as ours and asks the same denoiser, told the scheduler's own
timesteps. A class is given as many steps as fit into the calls; what it really makes is counted.
"""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import diffusers
import torch
from torch import Tensor

from fewstep.eval.problems import Problem
from fewstep.models.adapters import PredictionType
from fewstep.schedules import DiscreteVP, Flow, NoiseProcess
from fewstep.schedules.levels import levels_of
from fewstep.types import Level, RunFacts

# Grids by name: the config entries that choose them.
GRIDS: dict[str, dict[str, Any]] = {
    "linspace": {"timestep_spacing": "linspace"},
    "trailing": {"timestep_spacing": "trailing"},
    "karras": {"use_karras_sigmas": True},
    "exponential": {"use_exponential_sigmas": True},
    "lambda": {"use_lu_lambdas": True},
    "beta": {"use_beta_sigmas": True},
}
FLOW_SHIFT = 3.0
_FLOW = {"use_flow_sigmas": True, "flow_shift": FLOW_SHIFT, "prediction_type": "flow_prediction"}


def _no_noise(timestep: Any) -> float:
    return 0.0


@dataclass(frozen=True)
class PeerClass:
    """A diffusers class with the settings of one solver.

    Attributes:
        cls: name in ``diffusers``.
        config: constructor arguments beside the process and the grid.
        kind: what it expects of the network.
        grids: names in ``GRIDS``, or ``"default"``; None means every one the class has.
        reads: most network outputs that a step reads.
        stages: calls of a step.
    """

    cls: str
    config: Mapping[str, Any] = field(default_factory=dict)
    kind: PredictionType = "epsilon"
    grids: tuple[str, ...] | None = None
    reads: int = 2
    stages: int = 1

    @cached_property
    def parameters(self) -> frozenset[str]:
        return frozenset(inspect.signature(getattr(diffusers, self.cls).__init__).parameters)

    def grid_names(self) -> tuple[str, ...]:
        """The grids this class can be run on."""
        if self.grids is not None:
            return self.grids
        return tuple(name for name, keys in GRIDS.items() if set(keys) <= self.parameters)


VP_PEERS: dict[str, PeerClass] = {
    "ddim": PeerClass("DDIMScheduler", {"clip_sample": False}, reads=1),
    "euler": PeerClass("EulerDiscreteScheduler", reads=1),
    "heun": PeerClass("HeunDiscreteScheduler", stages=2),
    "dpmpp-2m": PeerClass("DPMSolverMultistepScheduler", {"solver_order": 2}),
    "dpmpp-3m": PeerClass("DPMSolverMultistepScheduler", {"solver_order": 3}, reads=3),
    "deis-2": PeerClass("DEISMultistepScheduler", {"solver_order": 2}),
    "deis-3": PeerClass("DEISMultistepScheduler", {"solver_order": 3}, reads=3),
    "unipc-2": PeerClass("UniPCMultistepScheduler", {"solver_order": 2}, reads=3),
    "unipc-3": PeerClass("UniPCMultistepScheduler", {"solver_order": 3}, reads=4),
    "sa-solver": PeerClass("SASolverScheduler", {"tau_func": _no_noise}, reads=3),
    "pndm": PeerClass("PNDMScheduler", {"skip_prk_steps": True}, reads=4),
    "lms": PeerClass("LMSDiscreteScheduler", reads=4),
}
FLOW_PEERS: dict[str, PeerClass] = {
    "flow-euler": PeerClass(
        "FlowMatchEulerDiscreteScheduler",
        {"shift": FLOW_SHIFT},
        "flow_prediction",
        ("default", "karras", "exponential", "beta"),
        reads=1,
    ),
    "flow-heun": PeerClass(
        "FlowMatchHeunDiscreteScheduler",
        {"shift": FLOW_SHIFT},
        "flow_prediction",
        ("default",),
        stages=2,
    ),
    # Its Karras sigmas leave the range of a flow (up to 157).
    "dpmpp-2m": PeerClass(
        "DPMSolverMultistepScheduler", {"solver_order": 2, **_FLOW}, "flow_prediction", ("default",)
    ),
    "unipc-2": PeerClass(
        "UniPCMultistepScheduler",
        {"solver_order": 2, **_FLOW},
        "flow_prediction",
        ("default", "karras"),
        reads=3,
    ),
}


@dataclass(frozen=True)
class Peer:
    """One class on one grid; ``str`` gives its name in results."""

    name: str
    peer: PeerClass
    grid: str

    def __str__(self) -> str:
        return f"diffusers:{self.name}:grid={self.grid}"

    def scheduler(self, process: NoiseProcess, nfe: int) -> Any:
        """The scheduler, set to as many steps as fit into ``nfe`` calls.

        Raises:
            ValueError: if it cannot run on this process, or not within so few calls.
        """
        config = {**process_config(process), **self.peer.config, **GRIDS.get(self.grid, {})}
        scheduler = getattr(diffusers, self.peer.cls)(**config)
        problem: object = "it needs more calls"
        # PNDM makes one call more than it has steps, Heun twice as many.
        for steps in range(nfe, 0, -1):
            try:
                scheduler.set_timesteps(steps)
            except (ValueError, IndexError, ZeroDivisionError, AssertionError) as error:
                problem = error
                continue
            if len(scheduler.timesteps) <= nfe:
                return scheduler
        raise ValueError(f"{self} cannot run within {nfe} calls: {problem}")

    def facts(self, process: NoiseProcess, nfe: int) -> RunFacts:
        """What guidance may know of a run.

        Raises:
            ValueError: as :meth:`scheduler`.
        """
        times = self.scheduler(process, nfe).timesteps
        return RunFacts(_levels(process, times, self.peer.stages), self.peer.reads, False)

    @torch.no_grad()
    def sample(self, problem: Problem, nfe: int, noise: Tensor, cond: Tensor | None) -> Tensor:
        """Samples from unit ``noise`` (n, ...), with the problem's denoiser as the network."""
        scheduler = self.scheduler(problem.process, nfe)
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)
        scale = getattr(scheduler, "scale_model_input", lambda x, t: x)
        own = inspect.signature(scheduler.step).parameters
        # SA-Solver draws noise even where it uses none; not from the global state.
        extra = {"generator": torch.Generator()} if "generator" in own else {}
        x = noise * float(getattr(scheduler, "init_noise_sigma", 1.0))
        levels = _levels(problem.process, scheduler.timesteps, self.peer.stages)
        for t, level in zip(scheduler.timesteps, levels, strict=True):
            output = problem.output(scale(x, t), level, cond, self.peer.kind)
            x = scheduler.step(output, t, x, return_dict=False, **extra)[0]
        return x


def _levels(process: NoiseProcess, times: Tensor, stages: int) -> list[Level]:
    """Where the network is called; the calls of a step share its number and where it began."""
    nodes = [(t, *map(float, process.alpha_sigma(t))) for t in times.tolist()]
    return levels_of(nodes, [i % stages == 0 for i in range(len(nodes))])


def process_config(process: NoiseProcess) -> dict[str, Any]:
    """Constructor arguments of diffusers that give this noise process.

    Raises:
        ValueError: for a process without peers here.
    """
    if isinstance(process, Flow):
        return {"num_train_timesteps": process.num_train_timesteps}
    if isinstance(process, DiscreteVP):
        return {
            "num_train_timesteps": process.num_train_timesteps,
            "trained_betas": 1 - process.alphas,
        }
    raise ValueError(
        f"no diffusers peers for {type(process).__name__} processes; use --peers none, or a "
        "discrete VP or flow problem"
    )


def peers_for(process: NoiseProcess) -> Iterator[Peer]:
    """Every peer on every grid that suits the process."""
    process_config(process)
    classes = FLOW_PEERS if isinstance(process, Flow) else VP_PEERS
    for name, peer in classes.items():
        for grid in peer.grid_names():
            yield Peer(name, peer, grid)
