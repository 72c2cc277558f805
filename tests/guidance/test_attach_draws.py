"""Guidance's draws in a pipeline: by sample and step, and by nothing else."""

from itertools import pairwise
from typing import Any

import diffusers
import numpy as np
import pytest
import tiny_pipelines as tiny
import torch
from guided import CASES, N, any_guidance, attach, nothing_stays_attached, settings  # noqa: F401
from watch import network, run

from fewstep.guidance import ICG, TSG
from fewstep.guidance.time_embedding import time_embeddings

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*draws anew at each step"),
]


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize("case", ["ddpm", "dit", "sdxl", "sd3"])
def test_a_sample_does_not_depend_on_its_batch(case: str) -> None:
    pipe = CASES[case][0]()
    attach(pipe, any_guidance(case))

    def made(*seeds: int) -> np.ndarray:
        count = {"class_labels": [s % 7 for s in seeds]} if case == "dit" else {
            "num_images_per_prompt": len(seeds)}  # fmt: skip
        count = {"batch_size": len(seeds)} if case == "ddpm" else count
        return run(pipe, N, **{**settings(case), **count, "generator": generators(*seeds)})

    whole = made(*range(8))
    # Matrix products of other sizes add up in another order; latents are up to 20.
    parts = np.concatenate([made(0, 1, 2), made(3, 4, 5, 6, 7)])
    np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=3e-5)
    np.testing.assert_allclose(made(5, 2)[::-1], whole[[2, 5]], rtol=1e-5, atol=3e-5)


@pytest.mark.parametrize("mode", ["text", "gaussian"])
@pytest.mark.parametrize("case", ["sd", "sdxl", "sd3", "flux"])
def test_random_conditions(case: str, mode: Any) -> None:
    """Both kinds change the image, and a run draws anew for each step."""
    pipe = CASES[case][0]()
    conditions: list[torch.Tensor] = []
    inputs = settings(case)
    before = run(pipe, N, **inputs)
    attach(pipe, ICG(2.0, mode=mode))
    denoise = vars(network(pipe))["_fewstep_guidance"]._original

    def spy(*args: Any, **kwargs: Any) -> Any:
        conditions.append(kwargs["encoder_hidden_states"].clone())
        return denoise(*args, **kwargs)

    vars(network(pipe))["_fewstep_guidance"]._original = spy
    assert np.abs(run(pipe, N, **inputs) - before).max() > 1e-4
    real, drawn = (torch.stack(list(rows)) for rows in zip(*conditions, strict=True))
    assert torch.equal(real, real[:1].expand_as(real))
    assert not any(torch.equal(a, b) for a, b in pairwise(drawn))
    assert drawn.shape == real.shape


def test_the_samplers_noise_is_left_alone() -> None:
    """The same generator state after a run, guided or not."""
    pipe = tiny.stable_diffusion()
    pipe.scheduler = diffusers.EulerAncestralDiscreteScheduler.from_config(pipe.scheduler.config)
    states = []
    for guidance in (None, TSG() + ICG(2.0, mode="text")):
        if guidance is not None:
            attach(pipe, guidance)
        generator = torch.Generator().manual_seed(5)
        torch.manual_seed(9)
        run(pipe, N, **settings("sd", generator=generator))
        states.append((generator.get_state(), torch.get_rng_state()))
    assert torch.equal(states[0][0], states[1][0])
    assert torch.equal(states[0][1], states[1][1])


# Time embeddings


@pytest.mark.parametrize("case", ["ddpm", "dit", "sd", "sdxl", "sd3", "flux"])
def test_time_embeddings_are_found(case: str) -> None:
    module = network(CASES[case][0]())
    names = {id(m): name for name, m in module.named_modules()}
    found = [names[id(m)] for m in time_embeddings(module)]
    assert len(found) == (2 if case == "dit" else 1)
    assert not [name for name in found if "guidance" in name or "add_" in name or "class" in name]


def test_all_embedders_share_a_draw() -> None:
    """DiT has one for each block, and calls the first again."""
    pipe = tiny.dit()
    spreads: list[float] = []
    drawn: list[torch.Tensor] = []

    def clean(module: Any, inputs: Any, output: torch.Tensor) -> None:
        spreads.append(float(output[1].std()))  # before TSG's own hook, which comes later

    def shifted(module: Any, inputs: Any, output: torch.Tensor) -> None:
        drawn.append((output[1] - output[0]) / spreads[-1])

    hooks = []
    for block in pipe.transformer.transformer_blocks:
        hooks += [block.norm1.emb.timestep_embedder.register_forward_hook(clean),
                  block.norm1.emb.register_forward_hook(shifted)]  # fmt: skip
    attach(pipe, TSG(2.0, s=1.0, power=0))
    run(pipe, 2, class_labels=[1], guidance_scale=1.0)
    for hook in hooks:
        hook.remove()
    first, second = drawn[:3], drawn[3:]
    for same in (first, second):
        assert len(same) == 3
        for other in same[1:]:
            # A difference of numbers near 1 in float32.
            torch.testing.assert_close(other, same[0], rtol=0, atol=1e-4)
    assert (first[0] - second[0]).abs().max() > 0.1
