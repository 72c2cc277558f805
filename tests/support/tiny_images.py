"""Small random pipelines of images whose text encoders are too large to build: text is embedded.

Each builder takes the class of the pipeline, so that those from an image share the networks.
"""

from typing import Any

import diffusers
import tiny_parts as parts
from tiny_parts import IMAGE, RIGHT, embedded, present, seeded

WIDTH = 8  # of the embedded text
NO_TEXT = {"text_encoder": None, "tokenizer": None}


@seeded
def _cogview4() -> dict[str, Any]:
    transformer = diffusers.CogView4Transformer2DModel(
        patch_size=2, in_channels=4, out_channels=4, num_layers=1, attention_head_dim=4,
        num_attention_heads=2, text_embed_dim=WIDTH, time_embed_dim=8, condition_dim=4,
        pos_embed_max_size=8, sample_size=8, rope_axes_dim=(8, 8),
    )  # fmt: skip
    return {"transformer": transformer.eval(), "vae": parts.vae(), **NO_TEXT}


@seeded
def _z_image() -> dict[str, Any]:
    transformer = diffusers.ZImageTransformer2DModel(
        all_patch_size=(2,), all_f_patch_size=(1,), in_channels=4, dim=16, n_layers=1,
        n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=WIDTH, axes_dims=[4, 2, 2],
        axes_lens=[64, 16, 16],
    )  # fmt: skip
    return {"transformer": transformer.eval(), "vae": parts.vae(shift_factor=0.1), **NO_TEXT}


@seeded
def _qwen_image() -> dict[str, Any]:
    transformer = diffusers.QwenImageTransformer2DModel(
        patch_size=2, in_channels=16, out_channels=4, num_layers=1, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=WIDTH, axes_dims_rope=(4, 2, 2),
    )  # fmt: skip
    decoder = diffusers.AutoencoderKLQwenImage(
        base_dim=4, z_dim=4, dim_mult=[1, 1], num_res_blocks=1, temperal_downsample=[False],
        latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    )  # fmt: skip
    return {"transformer": transformer.eval(), "vae": decoder.eval(), **NO_TEXT}


@seeded
def _flux2() -> dict[str, Any]:
    transformer = diffusers.Flux2Transformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=WIDTH, timestep_guidance_channels=8,
        axes_dims_rope=(2, 2, 2, 2),
    )  # fmt: skip
    decoder = diffusers.AutoencoderKLFlux2(
        block_out_channels=(8, 8), layers_per_block=1, latent_channels=4, norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    return {"transformer": transformer.eval(), "vae": decoder.eval(), **NO_TEXT}


@seeded
def _pixart() -> dict[str, Any]:
    transformer = diffusers.PixArtTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=1,
        cross_attention_dim=16, sample_size=8, caption_channels=WIDTH,
        use_additional_conditions=False,
    )  # fmt: skip
    return {"transformer": transformer.eval(), "vae": parts.vae(), **NO_TEXT}


def flow(**settings: Any) -> diffusers.FlowMatchEulerDiscreteScheduler:
    return diffusers.FlowMatchEulerDiscreteScheduler(**settings)


def cogview4(kind: type) -> Any:
    """It sends timesteps and sigmas together."""
    scheduler = flow(
        use_dynamic_shifting=True, base_shift=0.25, max_shift=0.75, time_shift_type="linear"
    )
    return kind(**_cogview4(), scheduler=scheduler)


def z_image(kind: type) -> Any:
    """It sends a list of float32 levels."""
    return kind(**_z_image(), scheduler=flow(shift=3.0))


def qwen_image(kind: type) -> Any:
    """Its shifted levels are stretched to end at ``shift_terminal``."""
    scheduler = flow(
        use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9, max_image_seq_len=8192,
        shift_terminal=0.02,
    )  # fmt: skip
    return kind(**_qwen_image(), scheduler=scheduler)


def flux2(kind: type) -> Any:
    """Its shift depends on the number of steps."""
    return kind(**_flux2(), scheduler=flow(use_dynamic_shifting=True, shift=3.0))


def pixart(kind: type) -> Any:
    """The network predicts a variance, which the pipeline cuts off."""
    return kind(**_pixart(), scheduler=diffusers.DPMSolverMultistepScheduler())


SQUARE = {"height": 16, "width": 16}
TEXT = {"prompt_embeds": embedded(4, WIDTH), **SQUARE}
QWEN = {**TEXT, "prompt_embeds_mask": parts.all_seen(4), "true_cfg_scale": 1.0}
Z_IMAGE = {**SQUARE, "prompt_embeds": [embedded(4, WIDTH)[0]], "guidance_scale": 0.0}
PIXART = {
    **TEXT, "prompt_attention_mask": parts.all_seen(4), "negative_prompt": None,
    "negative_prompt_embeds": embedded(4, WIDTH, seed=1),
    "negative_prompt_attention_mask": parts.all_seen(4), "use_resolution_binning": False,
}  # fmt: skip
# Text of 16 tokens, a multiple of which CogView4 pads to.
IMAGES = present({
    "cogview4": ("CogView4Pipeline", cogview4,
                 {**TEXT, "prompt_embeds": embedded(16, WIDTH), "guidance_scale": 1.0}),
    "z_image": ("ZImagePipeline", z_image, Z_IMAGE),
    "qwen_image": ("QwenImagePipeline", qwen_image, QWEN),
    "flux2": ("Flux2Pipeline", flux2, TEXT),
    "pixart": ("PixArtSigmaPipeline", pixart, PIXART),
})  # fmt: skip
IMAGES_FROM_IMAGE = present({
    "z_image_img2img": ("ZImageImg2ImgPipeline", z_image, {**Z_IMAGE, "image": IMAGE}),
    "qwen_img2img": ("QwenImageImg2ImgPipeline", qwen_image, {**QWEN, "image": IMAGE}),
    "qwen_inpaint": ("QwenImageInpaintPipeline", qwen_image,
                     {**QWEN, "image": IMAGE, "mask_image": RIGHT}),
})  # fmt: skip
