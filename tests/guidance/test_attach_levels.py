"""What guidance is told of a run of a pipeline: levels, steps, keys, breakpoints."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import diffusers
import numpy as np
import pytest
import tiny_pipelines as tiny
import torch
from guided import CASES, attach, nothing_stays_attached  # noqa: F401
from helpers import scheduler_classes
from watch import Watch, run

import fewstep
from fewstep.guidance import (
    CFG,
    TSG,
    Context,
    Interval,
    Source,
    detach,
)
from fewstep.guidance.pipelines.levels import training_of
from fewstep.types import Level

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__"),  # of diffusers' KDPM2 under numpy 2
    pytest.mark.filterwarnings("ignore:.*draws anew at each step"),
]
FOREIGN = (
    "DDIMScheduler", "DDPMScheduler", "DEISMultistepScheduler", "DPMSolverMultistepScheduler",
    "EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler", "LMSDiscreteScheduler", "PNDMScheduler", "UniPCMultistepScheduler",
)  # fmt: skip
LATENT = {"output_type": "latent"}


@dataclass(frozen=True, kw_only=True)
class Recorder(Source):
    """Asks for nothing and notes where it is."""

    levels: list[Level] = field(default_factory=list)
    seeds: list[list[int]] = field(default_factory=list)

    def plan(self, ctx: Context) -> Iterator[Any]:
        self.levels.append(ctx.level)
        self.seeds.append(list(ctx.draws.seeds))
        return None
        yield


def recorded(pipe: Any, n: int = 5, **inputs: Any) -> tuple[list[Level], list[float], list[float]]:
    """The levels, the network's times, and the deviations of its inputs."""
    recorder = Recorder()
    attach(pipe, recorder)
    with Watch(pipe) as seen:
        run(pipe, n, **inputs)
    detach(pipe)
    return recorder.levels, seen.times, [float(x.std()) for x in seen.inputs]


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("case", ["sd", "sdxl_img2img", "inpaint"])
def test_levels_are_what_the_network_is_told(case: str, name: str) -> None:
    for strength in (0.5, 0.9) if "image" in CASES[case][1] else (None,):
        pipe = CASES[case][0]()
        pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config)
        inputs = {**CASES[case][1], **({"strength": strength} if strength else {}), **LATENT}
        levels, times, _ = recorded(pipe, **inputs)
        assert [level.time for level in levels] == pytest.approx(times, rel=1e-6)
        assert [level.index for level in levels] == list(range(len(times)))
        process = training_of(pipe.scheduler).process
        for level, after in pairwise(levels):
            alpha, sigma = process.alpha_sigma(level.time)
            assert (level.alpha, level.sigma) == (alpha, sigma)
            assert (level.next_alpha, level.next_sigma) == (after.alpha, after.sigma)


@pytest.mark.parametrize("cls", scheduler_classes())
@pytest.mark.parametrize("case", ["ddpm", "dit", "sd", "sd3", "flux", "img2img", "flux_img2img"])
def test_levels_of_our_schedulers(case: str, cls: type) -> None:
    pipe, inputs = tiny.with_scheduler(case, cls)
    scale = 1000 if "flux" in case else 1
    levels, times, _ = recorded(pipe, 6, **inputs)
    assert [level.time for level in levels] == pytest.approx([scale * t for t in times], rel=1e-6)
    rows = pipe.scheduler.plan.evaluations[-len(times) :]
    assert [(x.alpha, x.sigma) for x in levels] == [(row.alpha, row.sigma) for row in rows]
    assert [x.step for x in levels] == list(np.cumsum([0, *(r.stage == 0 for r in rows[1:])]))


def test_the_network_sees_unit_variance_behind_eulers_own_state() -> None:
    """alpha x0 + sigma eps of the training process, though Euler counts in sigma / alpha."""
    levels, _, deviations = recorded(tiny.sdxl(), **tiny.SMALL)
    assert levels[0].alpha ** 2 + levels[0].sigma ** 2 == pytest.approx(1)
    assert deviations[0] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("name", ["HeunDiscreteScheduler", "KDPM2DiscreteScheduler"])
@pytest.mark.parametrize("strength", [None, 0.6])
def test_both_stages_share_a_step(name: str, strength: float | None) -> None:
    case = "img2img" if strength else "sd"
    pipe, inputs = CASES[case][0](), {**CASES[case][1], **LATENT}
    pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config)
    levels, _, _ = recorded(pipe, 5, **inputs, **({"strength": strength} if strength else {}))
    steps = [level.step for level in levels]
    assert steps == [i // 2 for i in range(len(levels))]
    for level in levels:
        begun = levels[2 * level.step]
        assert level.gate_rho == begun.rho


def test_runs_do_not_add_up() -> None:
    """Two runs of a Heun scheduler, whose times repeat, and one that is broken off."""
    pipe = tiny.stable_diffusion()
    pipe.scheduler = diffusers.HeunDiscreteScheduler.from_config(pipe.scheduler.config)
    recorder = Recorder()
    handle = attach(pipe, recorder)
    inputs = {**tiny.SMALL, **LATENT}
    run(pipe, 4, **inputs)
    with pytest.raises(KeyboardInterrupt):
        run(pipe, 4, callback_on_step_end=interrupt, **inputs)
    run(pipe, 4, **inputs)
    indices = [level.index for level in recorder.levels]
    assert indices == [*range(7), 0, 1, *range(7)]
    assert handle.counters.rows == 7
    assert recorder.seeds[0] == recorder.seeds[-1]


def interrupt(pipe: Any, step: int, time: Any, state: dict[str, Any]) -> dict[str, Any]:
    if step == 1:
        raise KeyboardInterrupt
    return {}


def test_keys_are_those_of_the_latents() -> None:
    pipe, recorder = tiny.sdxl(), Recorder()
    attach(pipe, recorder)
    for seeds in ((1, 2, 3), (3, 1)):
        drawn = [torch.Generator().manual_seed(seed) for seed in seeds]
        run(pipe, 2, generator=drawn, num_images_per_prompt=len(seeds), **tiny.SMALL, **LATENT)
    first, last = recorder.seeds[0], recorder.seeds[-1]
    assert len(set(first)) == 3
    assert last == [first[2], first[0]]


def test_a_callback_may_end_the_pipelines_guidance() -> None:
    """As in diffusers' guide: half the rows from then on, and CFG is told that they are gone."""
    pipe = tiny.stable_diffusion()
    pipe.scheduler = fewstep.DDIM.from_config(pipe.scheduler.config)

    def cut(pipe: Any, step: int, time: Any, state: dict[str, Any]) -> dict[str, Any]:
        if step == 1:
            pipe._guidance_scale = 0.0
            return {"prompt_embeds": state["prompt_embeds"].chunk(2)[-1]}
        return {}

    inputs = {**tiny.SMALL, **LATENT, "callback_on_step_end": cut,
              "callback_on_step_end_tensor_inputs": ["prompt_embeds"]}  # fmt: skip
    handle = attach(pipe, TSG())
    run(pipe, 5, **inputs)
    assert handle.counters.rows == 10
    detach(pipe)
    attach(pipe, CFG(4.0))
    with pytest.raises(ValueError, match="guidance_scale > 1"):
        run(pipe, 5, **inputs)


def test_our_grids_have_nodes_on_the_edges() -> None:
    pipe = tiny.dit()
    pipe.scheduler = fewstep.UniPC.from_config(pipe.scheduler.config)
    attach(pipe, CFG(2.0) | Interval(0.3, 3.0))
    run(pipe, 8, **tiny.PIPELINES["dit"][1])
    ratios = [row.sigma / row.alpha for row in pipe.scheduler.plan.evaluations]
    for edge in (0.3, 3.0):
        assert min(abs(ratio / edge - 1) for ratio in ratios) < 1e-6
    detach(pipe)
    assert pipe.scheduler.breakpoints == ()
    assert "breakpoints" not in vars(pipe.scheduler)


@pytest.mark.filterwarnings("error::UserWarning")
def test_foreign_multistep_solvers_are_warned_of() -> None:
    pipe = tiny.dit()
    attach(pipe, CFG(2.0) | Interval(0.3, 3.0))  # DDIM looks back at nothing
    detach(pipe)
    pipe.scheduler = diffusers.UniPCMultistepScheduler.from_config(pipe.scheduler.config)
    attach(pipe, CFG(2.0))
    detach(pipe)
    with pytest.warns(UserWarning, match="looks back across the edges") as seen:
        attach(pipe, CFG(2.0) | Interval(0.3, 3.0))
    assert len(seen) == 1
    assert seen[0].filename in (__file__, attach.__code__.co_filename)
