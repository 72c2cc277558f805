"""Where a scheduler calls the network: the levels of a run, without a look at a device in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.schedules import NoiseProcess
from fewstep.schedules.diffusers.config import (
    FLOW_CLASSES,
    from_diffusers_config,
    is_continuous_edm,
)
from fewstep.schedules.levels import levels_of
from fewstep.types import RunFacts

# Schedulers of diffusers that always add noise; the solvers "sde-..." say so in their config.
NOISY = (
    "DDPMParallelScheduler", "DDPMScheduler", "DPMSolverSDEScheduler",
    "EulerAncestralDiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "LCMScheduler",
    "RePaintScheduler", "SASolverScheduler", "TCDScheduler", "UnCLIPScheduler",
)  # fmt: skip


@dataclass(frozen=True)
class Training:
    """What a pipeline's network was trained for, as its scheduler has it."""

    process: NoiseProcess
    prediction_type: str


def is_ours(scheduler: Any) -> bool:
    """Whether a scheduler tells the facts of its runs and takes breakpoints."""
    return hasattr(scheduler, "facts") and hasattr(scheduler, "breakpoints")


def training_of(scheduler: Any) -> Training:
    """The noise process in which the network's input is alpha x0 + sigma noise, and its output.

    Raises:
        ValueError: if the network sees something else, or its scheduler does not tell.
    """
    name = type(scheduler).__name__
    # ``scheduler.config.x = y`` changes the attribute and not the entry.
    config = {key: getattr(scheduler.config, key, value) for key, value in scheduler.config.items()}
    preconditioned = config.get("sigma_data") is not None or is_continuous_edm(config)
    if preconditioned or getattr(scheduler, "_sigma_data", None) is not None:
        raise ValueError(
            f"attach cannot guide behind {name} with sigma_data: the scheduler preconditions the "
            "network's input and output; use sample(EDMDenoiser(...), guidance=...)"
        )
    if is_ours(scheduler):
        return Training(scheduler.process, config["prediction_type"])
    process = from_diffusers_config({**config, "_class_name": name})
    kind = "flow_prediction" if name in FLOW_CLASSES else config.get("prediction_type")
    if kind is None:
        raise ValueError(
            f"{name} does not tell what its network predicts; use a scheduler with prediction_type"
        )
    return Training(process, kind)


def facts_of(scheduler: Any, process: NoiseProcess, start: int) -> RunFacts:
    """The calls of a run from one entry of ``scheduler.timesteps`` on, after ``set_timesteps``.

    Args:
        scheduler: one of ours or of diffusers'.
        process: of the network.
        start: where the run begins (image to image begins late).
    """
    if is_ours(scheduler):
        ours: RunFacts = scheduler.facts(start)
        return ours
    times = torch.as_tensor(scheduler.timesteps).tolist()[start:]
    nodes = [(t, *map(float, process.alpha_sigma(t))) for t in times]
    begins = [i % scheduler.order == 0 for i in range(len(nodes))]
    reads = max(looks_back(scheduler), scheduler.order)  # Heun's steps average two outputs
    return RunFacts(levels_of(nodes, begins), reads, _is_noisy(scheduler))


def looks_back(scheduler: Any) -> int:
    """From how many network outputs a step of a scheduler of diffusers' extrapolates."""
    config: Mapping[str, Any] = scheduler.config
    orders = [config.get(key) for key in ("solver_order", "predictor_order", "corrector_order")]
    # PNDM's last steps and LMS' are of fourth order, which their configs do not say.
    orders.append(4 if hasattr(scheduler, "pndm_order") else None)
    orders.append(4 if hasattr(scheduler, "get_lms_coefficient") else None)
    return max([1, *(int(order) for order in orders if order)])


def _is_noisy(scheduler: Any) -> bool:
    algorithm = str(scheduler.config.get("algorithm_type"))
    return type(scheduler).__name__ in NOISY or algorithm.startswith("sde-")


def first_position(scheduler: Any, time: Any, scale: float) -> int:
    """The entry of ``scheduler.timesteps`` that a run begins with.

    It is what the pipeline said with ``set_begin_index``, or else the entry that the network's time
    is a view of, or else that of its value. The value alone would not tell: it occurs twice in a
    two-stage scheduler.

    Args:
        scheduler: after ``set_timesteps``.
        time: what the network is told, a number or a tensor of equal ones.
        scale: the network's time for one of the scheduler.

    Raises:
        ValueError: if there is no such entry.
    """
    begin = getattr(scheduler, "begin_index", None)
    if begin is not None:
        return int(begin)
    own = torch.as_tensor(scheduler.timesteps)
    if isinstance(time, Tensor) and time.device == own.device and time.dtype == own.dtype:
        offset = int(time.data_ptr() - own.data_ptr())
        if 0 <= offset < own.nbytes:
            return offset // int(own.element_size())
    told = float(torch.as_tensor(time).flatten()[0]) / scale
    distance = (own.cpu().double() - told).abs()
    if distance.min() > 1e-3 * max(1.0, abs(told)):
        raise ValueError(
            f"the network was told the time {told:g}, which is none of scheduler.timesteps: run "
            "it through the pipeline that guidance was attached to"
        )
    return int(distance.argmin())
