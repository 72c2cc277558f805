"""Every scheduler in every kind of pipeline: n calls, n ticks, callbacks, images to start from."""

import diffusers
import pytest
import torch
from helpers import scheduler_classes
from tiny_pipelines import (
    FROM_IMAGE,
    IMAGE,
    PIPELINES,
    PROMPT,
    sdxl,
    sdxl_img2img,
    with_scheduler,
)
from watch import Watch, run

import fewstep

CLASSES = scheduler_classes()
WITH_CALLBACKS = [case for case in PIPELINES if case not in ("ddpm", "dit")]
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("case", PIPELINES)
def test_n_calls_and_n_ticks(case: str, cls: type) -> None:
    pipe, inputs = with_scheduler(case, cls)
    for n in (1, 5):
        with Watch(pipe) as seen:
            run(pipe, n, **inputs)
        assert (seen.calls, seen.total, seen.ticks) == (n, n, n)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("case", FROM_IMAGE)
def test_strength_is_a_share_of_the_calls(case: str, cls: type) -> None:
    """Pipelines of Stable Diffusion make int(n strength) calls; those of flows round up."""
    pipe, inputs = with_scheduler(case, cls)
    up = case in ("sd3_img2img", "flux_img2img")
    for strength, expected in ((0.5, 3), (0.9, 6 if up else 5), (0.2, 2 if up else 1), (1.0, 6)):
        with Watch(pipe) as seen:
            run(pipe, 6, strength=strength, **inputs)
        assert (seen.calls, seen.total, seen.ticks) == (expected, expected, expected)


@pytest.mark.parametrize("name", ["Heun", "UniPC"])
def test_sigmas_that_the_pipeline_made_up_are_not_a_wish(name: str) -> None:
    """Flux from an image, Qwen-Image, LTX and others send linspace(1, 1/n, n) for n steps."""
    pipe, inputs = with_scheduler("flux_img2img", getattr(fewstep, name))
    with Watch(pipe) as seen:
        run(pipe, 6, strength=1.0, **inputs)
    assert seen.calls == 6
    assert pipe.scheduler.grid_reason.startswith("softlog")


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("case", WITH_CALLBACKS)
def test_callbacks_see_every_step_and_their_edits_count(case: str, cls: type) -> None:
    pipe, inputs = with_scheduler(case, cls)
    seen_steps, edited = [], []

    def edit(_, i: int, t: torch.Tensor, state: dict) -> dict:
        seen_steps.append((i, float(t)))
        edited.append(torch.full_like(state["latents"], 0.1 * i))
        return {"latents": edited[-1]}

    with Watch(pipe) as seen:
        made = run(pipe, 4, callback_on_step_end=edit, output_type="latent", **inputs)
    assert seen_steps == [(i, float(t)) for i, t in enumerate(pipe.scheduler.timesteps)]
    # The network is called with what the callback left (twice the batch under guidance), and the
    # network of inpainting with the mask and the image behind it.
    for i, (latents, given) in enumerate(zip(edited, seen.inputs[1:], strict=False)):
        channel = 2 if case == "flux" else 1
        ours = given.narrow(channel, 0, latents.shape[channel])
        assert torch.equal(ours, torch.full_like(ours, 0.1 * i))
    assert (made == torch.full((), 0.3).numpy()).all()


@pytest.mark.parametrize("cls", CLASSES)
def test_a_callback_that_changes_nothing_changes_nothing(cls: type) -> None:
    """Whether it returns the latents, a copy, or nothing."""
    pipe, inputs = with_scheduler("sd", cls)
    made = [
        run(pipe, 5, callback_on_step_end=callback, output_type="latent", **inputs)
        for callback in (
            None,
            lambda *_: {},
            lambda _, i, t, state: {"latents": state["latents"]},
            lambda _, i, t, state: {"latents": state["latents"].clone()},
        )
    ]
    for other in made[1:]:
        assert (other == made[0]).all()


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("part", [0.3, 0.5, 0.8])
def test_base_and_refiner_share_the_calls(cls: type, part: float) -> None:
    base, refiner = sdxl(), sdxl_img2img()
    for pipe in (base, refiner):
        pipe.scheduler = cls.from_config(pipe.scheduler.config)
    total = 0
    common = {"prompt": PROMPT, "num_inference_steps": 8}
    with Watch(base) as seen:
        image = base(height=16, width=16, denoising_end=part, output_type="latent", **common).images
    total += seen.calls
    assert seen.ticks == seen.calls == seen.total
    with Watch(refiner) as seen:
        run(refiner, image=image, denoising_start=part, **common)
    assert seen.ticks == seen.calls == seen.total
    assert total + seen.calls == 8
    assert 0 < seen.calls < 8


def test_a_refiner_that_is_the_base_goes_on_where_it_stopped() -> None:
    """DDIM has no history to lose: two halves are the whole."""
    whole, base, refiner = sdxl(), sdxl(), sdxl_img2img()
    for pipe in (whole, base, refiner):
        pipe.scheduler = fewstep.DDIM.from_config(pipe.scheduler.config)
    common = {"prompt": PROMPT, "num_inference_steps": 8, "output_type": "latent"}
    small = {"height": 16, "width": 16}

    def seeded() -> torch.Generator:
        return torch.Generator().manual_seed(1)

    expected = whole(**common, **small, generator=seeded(), guidance_scale=5.0).images
    half = base(**common, **small, generator=seeded(), denoising_end=0.5).images
    # The refiner's text has an aesthetic score for a size only if its config says so.
    refiner.register_to_config(requires_aesthetics_score=False)
    made = refiner(**common, image=half, denoising_start=0.5, guidance_scale=5.0,
                   original_size=(16, 16), target_size=(16, 16)).images  # fmt: skip
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cls", CLASSES)
def test_auto_pipelines_take_the_scheduler_along(cls: type) -> None:
    pipe, _ = with_scheduler("sd", cls)
    for auto, extra in (
        (diffusers.AutoPipelineForImage2Image, {}),
        (diffusers.AutoPipelineForInpainting, {"mask_image": torch.ones(1, 1, 16, 16)}),
    ):
        other = auto.from_pipe(pipe)
        assert other.scheduler is pipe.scheduler
        with Watch(other) as seen:
            run(other, 6, prompt=PROMPT, image=IMAGE, strength=0.5, **extra)
        assert seen.calls == 3
    back = diffusers.AutoPipelineForText2Image.from_pipe(other)
    assert run(back, 3, prompt=PROMPT, height=16, width=16).shape == (1, 16, 16, 3)


def test_pipelines_that_share_a_scheduler_take_turns() -> None:
    """Nothing of one run is left over for the next one."""
    pipe, inputs = with_scheduler("sd", fewstep.UniPC)
    other = diffusers.StableDiffusionImg2ImgPipeline.from_pipe(pipe, requires_safety_checker=False)
    first = run(pipe, 5, **inputs)
    run(other, 5, prompt=PROMPT, image=IMAGE, strength=0.6)
    assert (run(pipe, 5, **inputs) == first).all()


@pytest.mark.skipif(not hasattr(fewstep, "Restart"), reason="there is no Restart")
@pytest.mark.parametrize("case", ["sd", "img2img", "inpaint", "flux"])
def test_a_sampler_that_climbs_back_stays_within_its_calls(case: str) -> None:
    """Its times are not falling, and pipelines do not care."""
    pipe, inputs = with_scheduler(case, fewstep.Restart)
    share = 0.5 if "image" in inputs else 1.0
    strength = {"strength": share} if "image" in inputs else {}
    with Watch(pipe) as seen:
        run(pipe, 40, **inputs, **strength)
    assert max(pipe.scheduler.timesteps.diff()) > 0
    assert seen.calls == seen.ticks == seen.total == int(40 * share)
