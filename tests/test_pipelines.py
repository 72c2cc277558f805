"""Small random pipelines of diffusers with our schedulers: run, save, load in a new process."""

import json
import subprocess
import sys
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from helpers import scheduler_classes
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

import fewstep

CLASSES = scheduler_classes()
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture(autouse=True)
def _quiet() -> None:
    diffusers.utils.logging.disable_progress_bar()


class Counter:
    """Counts the calls of a network."""

    def __init__(self, network: torch.nn.Module) -> None:
        self.calls = 0
        network.register_forward_hook(self)

    def __call__(self, *_) -> None:
        self.calls += 1


def ddpm() -> diffusers.DDPMPipeline:
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=8, in_channels=3, out_channels=3, layers_per_block=1,
        block_out_channels=(8, 16), norm_num_groups=4, attention_head_dim=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    return diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler())


def vae() -> diffusers.AutoencoderKL:
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 16), norm_num_groups=4, layers_per_block=1, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    ).eval()  # fmt: skip


def dit() -> diffusers.DiTPipeline:
    torch.manual_seed(0)
    transformer = diffusers.DiTTransformer2DModel(
        sample_size=8, num_layers=2, patch_size=2, attention_head_dim=4, num_attention_heads=2,
        in_channels=4, out_channels=8,
        num_embeds_ada_norm=1000,  # "no class", in the pipeline
    ).eval()  # fmt: skip
    return diffusers.DiTPipeline(transformer, vae(), diffusers.DDIMScheduler())


def tokenizer(folder: Path) -> CLIPTokenizer:
    """A vocabulary of letters, written here so that nothing is downloaded."""
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: i for i, word in enumerate(words)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=8)


@pytest.fixture(scope="module")
def stable_diffusion(tmp_path_factory) -> diffusers.StableDiffusionPipeline:
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(8, 16), layers_per_block=1, sample_size=8, norm_num_groups=4,
        in_channels=4, out_channels=4, cross_attention_dim=16, attention_head_dim=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    ).eval()  # fmt: skip
    text = CLIPTextModel(CLIPTextConfig(
        hidden_size=16, intermediate_size=24, num_attention_heads=2, num_hidden_layers=2,
        vocab_size=64, max_position_embeddings=8, bos_token_id=52, eos_token_id=53, pad_token_id=53,
    )).eval()  # fmt: skip
    return diffusers.StableDiffusionPipeline(
        vae=vae(), text_encoder=text, tokenizer=tokenizer(tmp_path_factory.mktemp("clip")),
        unet=unet, scheduler=diffusers.PNDMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True
        ),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def paint(pipe, n: int, **kwargs) -> np.ndarray:
    generator = torch.Generator().manual_seed(1)
    result = pipe(num_inference_steps=n, generator=generator, output_type="np", **kwargs).images
    assert np.isfinite(result).all()
    return result


@pytest.mark.parametrize("cls", CLASSES)
def test_ddpm(cls) -> None:
    pipe = ddpm()
    pipe.scheduler = cls.from_config(pipe.scheduler.config)
    counter = Counter(pipe.unet)
    for n in (1, 4, 5):
        counter.calls = 0
        assert paint(pipe, n).shape == (1, 8, 8, 3)
        assert counter.calls == n


@pytest.mark.parametrize("cls", CLASSES)
def test_dit_with_learned_variance(cls) -> None:
    """DiT predicts eight channels for four; the pipeline hands the scheduler the first half."""
    pipe = dit()
    pipe.scheduler = cls.from_config(pipe.scheduler.config)
    counter = Counter(pipe.transformer)
    assert paint(pipe, 5, class_labels=[1, 2], guidance_scale=2.0).shape[0] == 2
    assert counter.calls == 5


@pytest.mark.parametrize("cls", CLASSES)
def test_stable_diffusion(cls, stable_diffusion) -> None:
    scheduler = cls.from_config(stable_diffusion.scheduler.config)
    parts = {**stable_diffusion.components, "scheduler": scheduler}
    extra = {"requires_safety_checker": False}
    image, mask = torch.rand(1, 3, 16, 16), torch.ones(1, 1, 16, 16)
    for kind, inputs, expected in (
        (diffusers.StableDiffusionPipeline, {"height": 16, "width": 16}, 6),
        (diffusers.StableDiffusionImg2ImgPipeline, {"image": image, "strength": 0.5}, 3),
        (diffusers.StableDiffusionImg2ImgPipeline, {"image": image, "strength": 0.9}, 5),
        (diffusers.StableDiffusionInpaintPipeline,
         {"image": image, "mask_image": mask, "height": 16, "width": 16, "strength": 1.0}, 6),
        (diffusers.StableDiffusionInpaintPipeline,
         {"image": image, "mask_image": mask, "height": 16, "width": 16, "strength": 0.7}, 4),
    ):  # fmt: skip
        pipe = kind(**parts, **extra)
        counter = Counter(pipe.unet)
        paint(pipe, 6, prompt="a b c", guidance_scale=3.0, **inputs)
        assert counter.calls == expected


def test_inpainting_keeps_what_is_not_masked(stable_diffusion) -> None:
    """The pipeline pastes the noised original in after each step; at the end it is the original."""
    for cls in CLASSES:
        scheduler = cls.from_config(stable_diffusion.scheduler.config)
        parts = {**stable_diffusion.components, "scheduler": scheduler}
        pipe = diffusers.StableDiffusionInpaintPipeline(**parts, requires_safety_checker=False)
        image = torch.rand(1, 3, 16, 16)
        latents = [
            pipe(
                "a", image=image, mask_image=torch.zeros(1, 1, 16, 16), height=16, width=16,
                num_inference_steps=n, output_type="latent",
                generator=torch.Generator().manual_seed(2),
            ).images
            for n in (3, 8)
        ]  # fmt: skip
        torch.testing.assert_close(*latents)


def flux() -> diffusers.FluxPipeline:
    torch.manual_seed(0)
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=32, pooled_projection_dim=32,
        axes_dims_rope=[4, 4, 8],
    ).eval()  # fmt: skip
    decoder = diffusers.AutoencoderKL(
        block_out_channels=(4,), norm_num_groups=1, latent_channels=1, use_quant_conv=False,
        use_post_quant_conv=False, shift_factor=0.06, scaling_factor=1.5,
    ).eval()  # fmt: skip
    return diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=decoder, text_encoder=None, tokenizer=None, text_encoder_2=None, tokenizer_2=None,
        transformer=transformer,
    )  # fmt: skip


@pytest.mark.parametrize("cls", CLASSES)
def test_flux_leaves_the_grid_to_us(cls) -> None:
    """It sends mu always, and sigmas of its own unless the config says use_flow_sigmas."""
    pipe = flux()
    pipe.scheduler = cls.from_config(pipe.scheduler.config)
    counter = Counter(pipe.transformer)
    generator = torch.Generator().manual_seed(3)
    words = torch.randn(1, 4, 32, generator=generator)
    paint(
        pipe, 5, prompt_embeds=words, pooled_prompt_embeds=words[:, 0], height=8, width=8
    )  # fmt: skip
    assert counter.calls == 5
    assert pipe.scheduler.grid_reason.startswith("softlog")
    assert pipe.scheduler.sigmas[-1] == 0


LOAD = """
import sys
{before}
import numpy as np, torch, diffusers
{after}
diffusers.utils.logging.disable_progress_bar()
pipe = diffusers.DiffusionPipeline.from_pretrained({folder!r})
assert type(pipe.scheduler).__name__ == {name!r}, type(pipe.scheduler)
image = pipe(num_inference_steps=4, generator=torch.Generator().manual_seed(1), output_type="np")
np.save({folder!r} + "/image.npy", image.images)
"""


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("name", ["UniPC", "Heun"])
def test_saved_and_loaded_in_a_new_process(name: str, order: str, tmp_path) -> None:
    """``import fewstep`` is all it takes, before or after diffusers; images are bit-equal."""
    pipe = ddpm()
    pipe.scheduler = getattr(fewstep, name).from_config(pipe.scheduler.config)
    pipe.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["scheduler"] == ["fewstep", name]
    lines = {"before": "", "after": "", order: "import fewstep"}
    program = LOAD.format(folder=str(tmp_path), name=name, **lines)
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)
    assert np.array_equal(np.load(tmp_path / "image.npy"), paint(pipe, 4))


def test_a_scheduler_can_be_passed_or_loaded_on_its_own(tmp_path) -> None:
    pipe = ddpm()
    pipe.scheduler = fewstep.DPMSolverPP.from_config(pipe.scheduler.config, order=3)
    pipe.save_pretrained(tmp_path)
    alone = fewstep.DPMSolverPP.from_pretrained(tmp_path, subfolder="scheduler")
    assert alone.config.order == 3
    other = fewstep.UniPC.from_pretrained(tmp_path, subfolder="scheduler", order=2)
    again = diffusers.DDPMPipeline.from_pretrained(tmp_path, scheduler=other)
    assert again.scheduler is other
    back = diffusers.DDPMScheduler.from_pretrained(tmp_path, subfolder="scheduler")
    assert back.config.beta_end == 0.02


def test_importing_the_package_is_light() -> None:
    program = (
        "import sys, fewstep; assert 'torch' not in sys.modules; fewstep.UniPC; "
        "assert fewstep.UniPC.__module__ == 'fewstep' and 'UniPC' in dir(fewstep)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)
    with pytest.raises(AttributeError, match="has no attribute 'UniPCC'"):
        _ = fewstep.UniPCC
    assert all(getattr(fewstep, name) is not None for name in fewstep.__all__)
    assert {cls.__name__ for cls in CLASSES} <= set(fewstep.__all__)
