"""What is said to a pipeline about noise levels and seeds reaches the scheduler."""

from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from helpers import scheduler_classes
from tiny_pipelines import FLOW, flux_img2img, sd3, with_scheduler
from watch import Watch, run

import fewstep

CLASSES = scheduler_classes()
LEVELS = [12.0, 5.0, 2.0, 0.8, 0.3]  # sigma / alpha
TIMES = [900.0, 600.0, 300.0, 20.0]
SHARES = [1.0, 0.8, 0.5, 0.3, 0.1]  # sigma of a flow
# They call at levels between those given, or above them.
OFF_THE_LIST = ("singlestep", "rho_rk", "edm")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def draws_noise(scheduler: Any) -> bool:
    return any(op.nu for row in scheduler.plan.evaluations for op in row.ops)


def walks(pipe: Any, seen: Watch, **levels: list[float]) -> None:
    """The run went over these levels, and no progress bar or call was left over."""
    scheduler = pipe.scheduler
    assert seen.calls == seen.ticks == seen.total == len(scheduler.timesteps)
    np.testing.assert_array_equal(seen.times, scheduler.timesteps)
    for name, values in levels.items():
        # Float32 of the pipelines, and table times that are inverted by interpolation.
        np.testing.assert_allclose(getattr(scheduler.grid, name), values, rtol=1e-5, atol=1e-7)
        if name == "time" and scheduler.sampler not in OFF_THE_LIST:
            assert set(values[:-1]) <= set(np.round(seen.times, 2))


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("case", ["sd", "inpaint", "sdxl_img2img"])
def test_sigmas_and_timesteps_are_used(case: str, cls: type) -> None:
    """The whole list is walked, whether it ends in 0 or not; one call for each, or a few."""
    pipe, inputs = with_scheduler(case, cls)
    whole = {"strength": 1.0} if "image" in inputs else {}
    for values in (LEVELS, [*LEVELS, 0.0], np.array(LEVELS)):
        with Watch(pipe) as seen:
            run(pipe, sigmas=values, **inputs, **whole)
        walks(pipe, seen, rho=[*LEVELS, 0.0])
    with Watch(pipe) as seen:
        run(pipe, timesteps=TIMES, **inputs, **whole)
    walks(pipe, seen, time=[*TIMES, 0.0])


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("shifting", [{"shift": 3.0}, {"use_dynamic_shifting": True}])
def test_sigmas_of_a_flow_are_shifted_as_in_diffusers(cls: type, shifting: dict) -> None:
    peer, pipe = sd3(**shifting), sd3(**shifting)
    pipe.scheduler = cls.from_config(pipe.scheduler.config)
    run(peer, sigmas=SHARES, **FLOW)
    for values in (SHARES, [*SHARES, 0.0]):
        with Watch(pipe) as seen:
            run(pipe, sigmas=values, **FLOW)
        walks(pipe, seen, sigma=peer.scheduler.sigmas.tolist())


@pytest.mark.parametrize("shifting", [{"shift": 3.0}, {"use_dynamic_shifting": True}, {"mu": 0.9}])
@pytest.mark.parametrize("values", [{"sigmas": SHARES}, {"num_inference_steps": 5}])
def test_our_euler_makes_the_pictures_of_diffusers_euler(shifting: dict, values: dict) -> None:
    """On the same grid: sigmas that were passed, or ``grid="diffusers"``."""
    call = {"mu": shifting["mu"]} if "mu" in shifting else {}
    config = {"use_dynamic_shifting": True} if call else shifting
    inputs = {**FLOW, **values, **call}
    peer, pipe = sd3(**config), sd3(**config)
    pipe.scheduler = fewstep.Euler.from_config(pipe.scheduler.config, grid="diffusers")
    # Float32 on both sides; the peer keeps its sample in float32, too.
    np.testing.assert_allclose(run(pipe, **inputs), run(peer, **inputs), atol=2e-5)


def test_flux_from_an_image_takes_sigmas() -> None:
    peer, (pipe, inputs) = flux_img2img(), with_scheduler("flux_img2img", fewstep.Euler)
    inputs = {**inputs, "strength": 1.0, "num_inference_steps": 5, "sigmas": SHARES}
    np.testing.assert_allclose(run(pipe, **inputs), run(peer, **inputs), atol=2e-5)


def test_flux_takes_sigmas() -> None:
    pipe, inputs = with_scheduler("flux", fewstep.Euler)
    run(pipe, sigmas=SHARES, **inputs)
    assert pipe.scheduler.grid_reason == "sigmas="


def test_flux_leaves_the_grid_to_us() -> None:
    """It sends mu always, and evenly spaced sigmas of its own."""
    for cls in CLASSES:
        pipe, inputs = with_scheduler("flux", cls)
        run(pipe, 5, **inputs)
        assert "automatic" in pipe.scheduler.grid_reason
        assert pipe.scheduler.sigmas[-1] == 0


def test_dynamic_shifting_without_mu_is_refused() -> None:
    pipe, inputs = with_scheduler("wan", fewstep.UniPC, use_dynamic_shifting=True)
    with pytest.raises(ValueError, match="needs mu"):
        run(pipe, 5, **inputs)
    fixed = {"use_dynamic_shifting": False, "flow_shift": 5.0}
    pipe.scheduler = fewstep.UniPC.from_config(pipe.scheduler.config, **fixed)
    run(pipe, 5, **inputs)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("case", ["ddpm", "sd", "img2img", "flux"])
def test_a_picture_does_not_depend_on_its_batch(case: str, cls: type) -> None:
    """With one generator for each.

    The pipelines of flows keep theirs from the scheduler. That of inpainting encodes the image with
    the first one, whatever the scheduler.
    """
    pipe, inputs = with_scheduler(case, cls)
    many = "batch_size" if case == "ddpm" else "num_images_per_prompt"

    def paint(*seeds: int) -> np.ndarray:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return run(pipe, 4, generator=generators, **{many: len(seeds)}, **inputs)

    together = paint(1, 2, 3)
    if case == "flux" and draws_noise(pipe.scheduler):
        return
    for i, seed in enumerate((1, 2, 3)):
        # Networks sum in another order for another batch.
        np.testing.assert_allclose(paint(seed)[0], together[i], atol=2e-4)
    assert np.abs(together[0] - together[1]).max() > 1e-2


@pytest.mark.parametrize("cls", CLASSES)
def test_video_latents_of_five_dimensions(cls: type) -> None:
    pipe, inputs = with_scheduler("wan", cls)
    with Watch(pipe) as seen:
        frames = run(pipe, 4, **inputs)
    assert frames.shape == (1, 5, 16, 16, 3)
    assert {given.ndim for given in seen.inputs} == {5}
    with Watch(pipe) as seen:  # guidance calls the network twice for each step
        run(pipe, 4, **{**inputs, "guidance_scale": 4.0})
    assert (seen.calls, seen.ticks) == (8, 4)


def test_the_boundary_between_two_video_networks_is_met() -> None:
    """Wan 2.2 hands over to a second network below a level of noise."""
    pipe, inputs = with_scheduler("wan", fewstep.UniPC)
    first = pipe.transformer
    parts = {**pipe.components, "transformer_2": first.__class__.from_config(first.config).eval()}
    pair = diffusers.WanPipeline(**parts, boundary_ratio=0.8)
    calls = [0, 0]

    def count(which: int) -> Any:
        def hook(*_: object) -> None:
            calls[which] += 1

        return hook

    hooks = [
        net.register_forward_hook(count(i)) for i, net in enumerate((first, parts["transformer_2"]))
    ]
    run(pair, 6, **inputs)
    for hook in hooks:
        hook.remove()
    above = int((pair.scheduler.timesteps >= 800).sum())
    assert calls == [above, 6 - above]
    assert 0 < above < 6
