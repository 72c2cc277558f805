"""Small randomly initialised pipelines of diffusers.

Each builder makes the networks once; the pipelines it returns share them.
"""

from typing import Any

import diffusers
import tiny_parts as parts
from tiny_images import IMAGES, IMAGES_FROM_IMAGE
from tiny_parts import IMAGE, PROMPT, RIGHT, Case, seeded
from tiny_videos import VIDEOS, VIDEOS_FROM_VIDEO, WAN, wan

SCALED = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@seeded
def _ddpm() -> dict[str, Any]:
    unet = diffusers.UNet2DModel(
        sample_size=8, in_channels=3, out_channels=3, layers_per_block=1,
        block_out_channels=(8, 16), norm_num_groups=4, attention_head_dim=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    return {"unet": unet.eval()}


@seeded
def _dit() -> dict[str, Any]:
    transformer = diffusers.DiTTransformer2DModel(
        sample_size=8, num_layers=2, patch_size=2, attention_head_dim=4, num_attention_heads=2,
        in_channels=4, out_channels=8,
        num_embeds_ada_norm=1000,  # "no class", in the pipeline
    ).eval()  # fmt: skip
    return {"transformer": transformer, "vae": parts.vae()}


@seeded
def _sd() -> dict[str, Any]:
    text = {"text_encoder": parts.clip(), "tokenizer": parts.tokenizer()}
    none = {"safety_checker": None, "feature_extractor": None, "image_encoder": None}
    return {"unet": parts.unet(), "vae": parts.vae(), **text, **none}


@seeded
def _inpainting_unet() -> dict[str, Any]:
    return {"unet": parts.unet(in_channels=9)}


@seeded
def _sdxl() -> dict[str, Any]:
    return {
        "unet": parts.sdxl_unet(), "vae": parts.vae(),
        "text_encoder": parts.clip(), "text_encoder_2": parts.clip(projected=True),
        "tokenizer": parts.tokenizer(), "tokenizer_2": parts.tokenizer(),
    }  # fmt: skip


@seeded
def _sd3() -> dict[str, Any]:
    return {
        "transformer": parts.sd3_transformer(),
        "vae": parts.vae(use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.06),
        "text_encoder": parts.clip(projected=True), "text_encoder_2": parts.clip(projected=True),
        "tokenizer": parts.tokenizer(), "tokenizer_2": parts.tokenizer(),
        "text_encoder_3": parts.t5(), "tokenizer_3": parts.tokenizer(),
    }  # fmt: skip


@seeded
def _sd3_inpainting() -> dict[str, Any]:
    """The pipeline asks for the 16 channels of the checkpoints."""
    wide = parts.vae(16, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.06)
    return {"transformer": parts.sd3_transformer(channels=16), "vae": wide}


@seeded
def _flux() -> dict[str, Any]:
    decoder = diffusers.AutoencoderKL(
        block_out_channels=(4,), norm_num_groups=1, latent_channels=1, use_quant_conv=False,
        use_post_quant_conv=False, shift_factor=0.06, scaling_factor=1.5,
    ).eval()  # fmt: skip
    return {
        "transformer": parts.flux_transformer(), "vae": decoder,
        "text_encoder": parts.clip(), "tokenizer": parts.tokenizer(),
        "text_encoder_2": parts.t5(), "tokenizer_2": parts.tokenizer(),
    }  # fmt: skip


def ddpm() -> diffusers.DDPMPipeline:
    return diffusers.DDPMPipeline(**_ddpm(), scheduler=diffusers.DDPMScheduler())


def dit() -> diffusers.DiTPipeline:
    return diffusers.DiTPipeline(**_dit(), scheduler=diffusers.DDIMScheduler())


def stable_diffusion(kind=diffusers.StableDiffusionPipeline, **replaced):
    scheduler = diffusers.PNDMScheduler(**SCALED, skip_prk_steps=True)
    components = {**_sd(), **replaced}
    return kind(**components, scheduler=scheduler, requires_safety_checker=False)


def img2img() -> diffusers.StableDiffusionImg2ImgPipeline:
    return stable_diffusion(diffusers.StableDiffusionImg2ImgPipeline)


def inpaint() -> diffusers.StableDiffusionInpaintPipeline:
    """With a network of four channels: the pipeline pastes the known region in after each step."""
    return stable_diffusion(diffusers.StableDiffusionInpaintPipeline)


def inpaint9() -> diffusers.StableDiffusionInpaintPipeline:
    """With a network that sees the mask and the masked image."""
    return stable_diffusion(diffusers.StableDiffusionInpaintPipeline, **_inpainting_unet())


def sdxl(kind=diffusers.StableDiffusionXLPipeline):
    scheduler = diffusers.EulerDiscreteScheduler(**SCALED, timestep_spacing="leading")
    return kind(**_sdxl(), scheduler=scheduler, add_watermarker=False)


def sdxl_inpaint() -> diffusers.StableDiffusionXLInpaintPipeline:
    return sdxl(diffusers.StableDiffusionXLInpaintPipeline)


def sdxl_img2img() -> diffusers.StableDiffusionXLImg2ImgPipeline:
    return sdxl(diffusers.StableDiffusionXLImg2ImgPipeline)


def sd3(kind=diffusers.StableDiffusion3Pipeline, components=None, **shifting):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(**(shifting or {"shift": 3.0}))
    return kind(**(components or _sd3()), scheduler=scheduler)


def sd3_img2img() -> diffusers.StableDiffusion3Img2ImgPipeline:
    return sd3(diffusers.StableDiffusion3Img2ImgPipeline)


def sd3_inpaint() -> diffusers.StableDiffusion3InpaintPipeline:
    return sd3(diffusers.StableDiffusion3InpaintPipeline, {**_sd3(), **_sd3_inpainting()})


def flux(kind=diffusers.FluxPipeline):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0)
    return kind(**_flux(), scheduler=scheduler)


def flux_img2img() -> diffusers.FluxImg2ImgPipeline:
    return flux(diffusers.FluxImg2ImgPipeline)


def flux_inpaint() -> diffusers.FluxInpaintPipeline:
    return flux(diffusers.FluxInpaintPipeline)


SMALL = {"prompt": PROMPT, "height": 16, "width": 16}
FLOW = {**SMALL, "max_sequence_length": 8}
# A builder and what to call the pipeline with.
PIPELINES: dict[str, Case] = {
    "ddpm": (ddpm, {}),
    "dit": (dit, {"class_labels": [1, 2], "guidance_scale": 2.0}),
    "sd": (stable_diffusion, SMALL),
    "inpaint": (inpaint, {**SMALL, "image": IMAGE, "mask_image": RIGHT}),
    "inpaint9": (inpaint9, {**SMALL, "image": IMAGE, "mask_image": RIGHT}),
    "sdxl": (sdxl, SMALL),
    "sd3": (sd3, FLOW),
    "flux": (flux, FLOW),
    "wan": (wan, {**WAN, "num_frames": 5}),
}
# Families whose text encoders are not built.
NEWER = {**IMAGES, **VIDEOS}
MASKED = {"image": IMAGE, "mask_image": RIGHT}
# Pipelines that take ``strength``.
FROM_IMAGE: dict[str, Case] = {
    "img2img": (img2img, {"prompt": PROMPT, "image": IMAGE}),
    "inpaint": PIPELINES["inpaint"],
    "sdxl_img2img": (sdxl_img2img, {"prompt": PROMPT, "image": IMAGE}),
    "sd3_img2img": (sd3_img2img, {**FLOW, "image": IMAGE}),
    "flux_img2img": (flux_img2img, {**FLOW, "image": IMAGE}),
}
MORE_FROM_IMAGE: dict[str, Case] = {
    "sdxl_inpaint": (sdxl_inpaint, {**SMALL, **MASKED}),
    "sd3_inpaint": (sd3_inpaint, {**FLOW, **MASKED}),
    "flux_inpaint": (flux_inpaint, {**FLOW, **MASKED}),
    **IMAGES_FROM_IMAGE,
    **VIDEOS_FROM_VIDEO,
}
# They make int(n strength) calls of n; all other pipelines round up.
ROUNDED_DOWN = ("img2img", "inpaint", "sdxl_img2img", "sdxl_inpaint", "wan_video2video")
CASES = {**PIPELINES, **NEWER, **FROM_IMAGE, **MORE_FROM_IMAGE}


def with_scheduler(case: str, cls: type, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
    """A pipeline with a scheduler of ours, and what to call it with."""
    build, inputs = CASES[case]
    pipe = build()
    pipe.scheduler = cls.from_config(pipe.scheduler.config, **kwargs)
    return pipe, inputs
