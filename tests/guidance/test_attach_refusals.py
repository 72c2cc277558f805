"""What attach refuses, and what else may be hooked onto a network."""

import functools
from typing import Any

import diffusers
import pytest
import tiny_pipelines as tiny
import torch
from guided import CASES, attach, nothing_stays_attached  # noqa: F401
from watch import network, run

import fewstep
from fewstep.guidance import CFG, ICG, TSG, BoostAndSkip, CFGpp, Interval, detach

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*draws anew at each step"),
]


def refused(pipe: Any, guidance: Any, match: str, error: type[Exception] = ValueError) -> None:
    found = {**vars(network(pipe))}, {**vars(pipe.scheduler)}
    with pytest.raises(error, match=match):
        attach(pipe, guidance)
    assert vars(network(pipe)).keys() == found[0].keys()
    assert vars(pipe.scheduler).keys() == found[1].keys()


def test_attached_twice() -> None:
    pipe, other = tiny.sdxl(), tiny.sdxl_img2img()
    attach(pipe, TSG())
    for one in (pipe, other):
        with pytest.raises(ValueError, match=r"detach\(pipe\) first"):
            attach(one, TSG())
    detach(pipe)
    attach(pipe, TSG())


def test_detached_without_being_attached() -> None:
    with pytest.raises(ValueError, match="no guidance is attached"):
        detach(tiny.ddpm())


def test_detached_out_of_order() -> None:
    pipe = tiny.sdxl()
    attach(pipe, TSG())
    ours = pipe.unet.forward
    pipe.unet.forward = functools.partial(ours)
    with pytest.raises(ValueError, match="forward of its network was replaced after attach"):
        detach(pipe)
    pipe.unet.forward = ours
    timed = pipe.scheduler.set_timesteps
    pipe.scheduler.set_timesteps = functools.partial(timed)
    with pytest.raises(ValueError, match="set_timesteps of its scheduler was replaced"):
        detach(pipe)
    pipe.scheduler.set_timesteps = timed
    detach(pipe)


def test_what_does_not_fit_the_pipeline() -> None:
    refused(tiny.ddpm(), CFG(2.0), r"is unconditional: use TSG\(\)")
    refused(tiny.ddpm(), ICG(2.0), r"is unconditional: use TSG\(\)")
    refused(tiny.ddpm(), TSG() + (ICG(2.0) | Interval(1, 2)), "is unconditional")
    refused(tiny.stable_diffusion(), ICG(3.0), r"use ICG\(3, mode='text'\)")
    refused(tiny.dit(), ICG(3.0, mode="text"), r"use ICG\(3, mode='class'\)")
    refused(tiny.flux(), CFG(2.0), "use true_cfg_scale without attach")
    refused(tiny.dit(), Interval(1, 2), "modifies a source", TypeError)
    refused(tiny.dit(), BoostAndSkip(), "acts on a whole run", TypeError)
    refused(tiny.wan(), TSG(), "does not know how pipelines call WanTransformer3DModel")
    with pytest.raises(ValueError, match="needs a diffusers pipeline"):
        attach(torch.nn.Linear(1, 1), TSG())


@pytest.mark.parametrize("case", ["dit", "sd", "sdxl", "sd3"])
def test_cfg_needs_the_null_rows(case: str) -> None:
    pipe = CASES[case][0]()
    attach(pipe, CFG(4.0))
    with pytest.raises(ValueError, match="call the pipeline with guidance_scale > 1"):
        run(pipe, 3, **{**CASES[case][1], "guidance_scale": 1.0})


def test_schedulers_that_precondition() -> None:
    pipe = tiny.sdxl()
    pipe.scheduler = diffusers.EDMEulerScheduler()
    refused(pipe, TSG(), "EDMEulerScheduler with sigma_data")
    pipe.scheduler = fewstep.UniPC.from_config(diffusers.EDMEulerScheduler().config)
    refused(pipe, TSG(), "UniPC with sigma_data")
    pipe.scheduler = diffusers.ScoreSdeVeScheduler()
    refused(pipe, TSG(), "does not tell what its network predicts")


def test_compiled_modules() -> None:
    pipe = tiny.sdxl()
    unet = pipe.unet
    pipe.unet = torch.compile(unet)
    with pytest.raises(ValueError, match="a compiled module"):
        attach(pipe, TSG())
    pipe.unet = unet


def test_a_scheduler_that_is_replaced() -> None:
    pipe = tiny.sdxl()
    old = pipe.scheduler
    attach(pipe, TSG())
    pipe.scheduler = fewstep.UniPC.from_config(old.config)
    with pytest.raises(ValueError, match="replaced after attach: set it first"):
        run(pipe, 3, **tiny.SMALL)
    detach(pipe)
    assert "set_timesteps" not in vars(old)
    attach(pipe, TSG())
    run(pipe, 3, **tiny.SMALL)


def test_no_run_has_begun() -> None:
    pipe = tiny.ddpm()
    attach(pipe, TSG())
    with pytest.raises(ValueError, match="no run has begun"):
        pipe.unet(torch.zeros(1, 3, 8, 8), 5)
    pipe.scheduler.set_timesteps(1)
    pipe.unet(torch.zeros(1, 3, 8, 8), pipe.scheduler.timesteps[0])
    with pytest.raises(ValueError, match="called more often than the 1 times"):
        pipe.unet(torch.zeros(1, 3, 8, 8), pipe.scheduler.timesteps[0])
    pipe.scheduler.set_timesteps(4)
    with pytest.raises(ValueError, match=r"none of scheduler\.timesteps"):
        pipe.unet(torch.zeros(1, 3, 8, 8), 123)


def test_another_pipeline_with_the_same_network() -> None:
    pipe = diffusers.StableDiffusionXLPipeline(**tiny.sdxl().components, add_watermarker=False)
    other = diffusers.StableDiffusionXLImg2ImgPipeline.from_pipe(pipe)
    attach(pipe, TSG())
    inputs = tiny.FROM_IMAGE["sdxl_img2img"][1]
    with pytest.raises(ValueError, match="attach to the pipeline that is called"):
        run(other, 6, **inputs)
    run(pipe, 3, **tiny.SMALL, guidance_scale=4.0)
    with pytest.raises(ValueError, match="not twice the same samples"):
        run(other, 6, **{**inputs, "guidance_scale": 1.0})


def test_inputs_that_are_not_rows() -> None:
    pipe = tiny.sd3()
    attach(pipe, TSG())
    with pytest.raises(ValueError, match="'skip_layers'"):
        run(pipe, 6, **tiny.FLOW, skip_guidance_layers=[0])
    pipe = tiny.sdxl()
    attach(pipe, TSG())
    pipe.scheduler.set_timesteps(2)
    with pytest.raises(ValueError, match="'mid_block_additional_residual'"):
        pipe.unet(
            torch.zeros(1, 4, 8, 8), 1, torch.zeros(1, 8, 32),
            mid_block_additional_residual=torch.zeros(1, 16, 4, 4),
        )  # fmt: skip


def test_random_text_without_an_encoder() -> None:
    pipe = tiny.stable_diffusion()
    embeds = pipe.encode_prompt("a b", "cpu", 1, False)[0]
    pipe.text_encoder = None
    attach(pipe, ICG(3.0, mode="text"))
    inputs = {"prompt_embeds": embeds, "guidance_scale": 1.0, "height": 16, "width": 16}
    with pytest.raises(ValueError, match="mode='gaussian'"):
        run(pipe, 3, **inputs)


def test_what_does_not_fit_the_run() -> None:
    pipe = tiny.dit()
    attach(pipe, CFG(2.0) | Interval(1e5, 1e6))
    with pytest.raises(ValueError, match="contains none of the sampler's levels"):
        run(pipe, 3, **tiny.PIPELINES["dit"][1])
    detach(pipe)
    pipe.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    attach(pipe, CFG(2.0) | CFGpp())
    with pytest.raises(ValueError, match="first order without noise"):
        run(pipe, 3, **tiny.PIPELINES["dit"][1])


# Other hooks on the network


def add_hook(module: torch.nn.Module, moved: list[int]) -> None:
    """What accelerate's add_hook_to_module does."""
    old = getattr(module, "_old_forward", module.forward)
    module._old_forward = old

    def new_forward(module: Any, *args: Any, **kwargs: Any) -> Any:
        moved.append(1)
        return module._old_forward(*args, **kwargs)

    module.forward = functools.update_wrapper(functools.partial(new_forward, module), old)


def remove_hook(module: torch.nn.Module) -> None:
    module.forward = module._old_forward
    del module._old_forward


@pytest.mark.parametrize("first", ["attach", "hook"])
@pytest.mark.parametrize("last", ["detach", "hook"])
def test_offloading_before_and_after(first: str, last: str) -> None:
    """enable_model_cpu_offload takes its hooks away and sets them anew after each run."""
    pipe, moved = tiny.sdxl(), list[int]()
    inputs = {**tiny.SMALL, "output_type": "latent"}
    before = run(pipe, 3, **inputs)
    attach(pipe, TSG())
    guided = run(pipe, 3, **inputs)
    detach(pipe)
    both = [lambda: attach(pipe, TSG()), lambda: add_hook(pipe.unet, moved)]
    for act in both if first == "attach" else both[::-1]:
        act()
    for _ in range(2):
        assert (run(pipe, 3, **inputs) == guided).all()
        remove_hook(pipe.unet)
        add_hook(pipe.unet, moved)
    assert len(moved) == 6
    both = [lambda: detach(pipe), lambda: remove_hook(pipe.unet)]
    for act in both if last == "detach" else both[::-1]:
        act()
    assert (run(pipe, 3, **inputs) == before).all()
    vars(pipe.unet).pop("forward", None)
