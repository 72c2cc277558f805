"""Small random pipelines of videos and sound.

Where the decoder of a family cannot be small there is none, and the result is latents.
"""

from typing import Any

import diffusers
import tiny_parts as parts
import torch
from tiny_images import NO_TEXT, WIDTH, flow
from tiny_parts import embedded, present, seeded

import fewstep

NO_SECOND_TEXT = {"text_encoder_2": None, "tokenizer_2": None}
VIDEO = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(2))
LATENT = {"output_type": "latent"}
STABLE_AUDIO = {
    "_class_name": "CosineDPMSolverMultistepScheduler", "sigma_min": 0.3, "sigma_max": 500.0,
    "sigma_data": 1.0, "sigma_schedule": "exponential", "prediction_type": "v_prediction",
}  # fmt: skip


@seeded
def _wan() -> dict[str, Any]:
    transformer = diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4,
        out_channels=4, text_dim=2 * parts.WIDTH, freq_dim=32, ffn_dim=16, num_layers=1,
        cross_attn_norm=True, qk_norm="rms_norm_across_heads", rope_max_seq_len=32,
    )  # fmt: skip
    decoder = diffusers.AutoencoderKLWan(
        base_dim=3, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
        temperal_downsample=[False, True, True], latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    )  # fmt: skip
    text = {"text_encoder": parts.t5(), "tokenizer": parts.tokenizer()}
    return {"transformer": transformer.eval(), "vae": decoder.eval(), **text}


@seeded
def _hunyuan_video() -> dict[str, Any]:
    transformer = diffusers.HunyuanVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=10, num_layers=1,
        num_single_layers=1, num_refiner_layers=1, patch_size=1, patch_size_t=1,
        text_embed_dim=WIDTH, pooled_projection_dim=WIDTH, rope_axes_dim=(2, 4, 4),
    )  # fmt: skip
    return {"transformer": transformer.eval(), "vae": None, **NO_TEXT, **NO_SECOND_TEXT}


@seeded
def _ltx() -> dict[str, Any]:
    transformer = diffusers.LTXVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8,
        cross_attention_dim=16, num_layers=1, caption_channels=WIDTH,
    )  # fmt: skip
    return {"transformer": transformer.eval(), "vae": None, **NO_TEXT}


@seeded
def _ltx2() -> dict[str, Any]:
    """The pipeline reads the statistics of latents from its decoders even for latents."""
    from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors

    transformer = diffusers.LTX2VideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8,
        cross_attention_dim=16, audio_in_channels=4, audio_out_channels=4,
        audio_num_attention_heads=2, audio_attention_head_dim=4, audio_cross_attention_dim=8,
        num_layers=1, caption_channels=WIDTH,
    )  # fmt: skip
    connectors = LTX2TextConnectors(
        caption_channels=WIDTH, text_proj_in_factor=1, connector_rope_base_seq_len=8,
        rope_theta=1e4, rope_double_precision=True, causal_temporal_positioning=False,
        **{f"{name}_connector_{key}": value for name in ("video", "audio") for key, value in (
            ("num_attention_heads", 2), ("attention_head_dim", 4), ("num_layers", 1),
            ("num_learnable_registers", None),
        )},
    )  # fmt: skip
    video = diffusers.AutoencoderKLLTX2Video(
        latent_channels=4, block_out_channels=(2, 2, 2, 2), decoder_block_out_channels=(2, 2, 2),
        layers_per_block=(1,) * 5, decoder_layers_per_block=(1,) * 4,
    )  # fmt: skip
    audio = diffusers.AutoencoderKLLTX2Audio(
        base_channels=4, ch_mult=(1, 1, 1), num_res_blocks=1, latent_channels=2, mel_bins=8,
        in_channels=1, output_channels=1,
    )  # fmt: skip
    return {
        "transformer": transformer.eval(), "connectors": connectors.eval(), "vae": video.eval(),
        "audio_vae": audio.eval(), "vocoder": None, **NO_TEXT,
    }  # fmt: skip


@seeded
def _kandinsky5() -> dict[str, Any]:
    transformer = diffusers.Kandinsky5Transformer3DModel(
        in_visual_dim=4, out_visual_dim=4, in_text_dim=WIDTH, in_text_dim2=WIDTH, time_dim=8,
        model_dim=16, ff_dim=16, num_text_blocks=1, num_visual_blocks=1, axes_dims=(2, 2, 4),
    )  # fmt: skip
    return {"transformer": transformer.eval(), "vae": None, **NO_TEXT, **NO_SECOND_TEXT}


@seeded
def _stable_audio() -> dict[str, Any]:
    from diffusers.pipelines.stable_audio import StableAudioProjectionModel

    transformer = diffusers.StableAudioDiTModel(
        sample_size=16, in_channels=4, out_channels=4, num_layers=1, attention_head_dim=8,
        num_attention_heads=2, num_key_value_attention_heads=1, time_proj_dim=8,
        cross_attention_dim=WIDTH, cross_attention_input_dim=WIDTH,
        global_states_input_dim=2 * WIDTH,
    )  # fmt: skip
    decoder = diffusers.AutoencoderOobleck(
        encoder_hidden_size=4, downsampling_ratios=[2, 2], channel_multiples=[1, 2],
        decoder_channels=4, decoder_input_channels=4, sampling_rate=16,
    )  # fmt: skip
    seconds = StableAudioProjectionModel(
        text_encoder_dim=WIDTH, conditioning_dim=WIDTH, min_value=0, max_value=4
    )
    return {
        "transformer": transformer.eval(), "vae": decoder.eval(), "tokenizer": None,
        "text_encoder": parts.t5(),  # for its dtype
        "projection_model": seconds.eval(),
    }  # fmt: skip


def wan(kind: type = diffusers.WanPipeline) -> Any:
    """Video: latents of (batch, channels, frames, height, width)."""
    scheduler = diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    return kind(**_wan(), scheduler=scheduler)


def hunyuan_video(kind: type) -> Any:
    """It sends linspace(1, 0, n + 1) without its end."""
    return kind(**_hunyuan_video(), scheduler=flow(shift=7.0))


def ltx_flow() -> diffusers.FlowMatchEulerDiscreteScheduler:
    return flow(
        use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024,
        shift_terminal=0.1,
    )  # fmt: skip


def ltx(kind: type) -> Any:
    return kind(**_ltx(), scheduler=ltx_flow())


def ltx2(kind: type) -> Any:
    """It copies the scheduler for the sound, which takes its steps beside those of the video."""
    return kind(**_ltx2(), scheduler=ltx_flow())


def kandinsky5(kind: type) -> Any:
    """It writes each step into the tensor that it hands over."""
    return kind(**_kandinsky5(), scheduler=flow(shift=5.0))


def stable_audio(kind: type) -> Any:
    """EDM, with atan(sigma) for the time; the checkpoint's own class needs torchsde, we do not."""
    return kind(**_stable_audio(), scheduler=fewstep.DPMSolverPP.from_config(STABLE_AUDIO))


SMALL = {"height": 16, "width": 16, "num_frames": 5, **LATENT}
TEXT = {"prompt_embeds": embedded(4, WIDTH), "prompt_attention_mask": parts.all_seen(4)}
UNGUIDED = {"guidance_scale": 1.0}
TOKENS = {"num_frames": 9, **LATENT}  # each is eight frames and a square of 32 or 64 pixels
LTX2 = {
    **TEXT, **TOKENS, **UNGUIDED, "height": 128, "width": 128,
    # Guidance that the first version did not have.
    **parts.known("LTX2Pipeline", {
        "stg_scale": 0.0, "modality_scale": 1.0, "audio_guidance_scale": 1.0,
        "audio_stg_scale": 0.0, "audio_modality_scale": 1.0,
    }),
}  # fmt: skip
VIDEOS = present({
    "hunyuan_video": ("HunyuanVideoPipeline", hunyuan_video,
                      {**TEXT, **SMALL, "pooled_prompt_embeds": embedded(1, WIDTH)[0]}),
    "ltx": ("LTXPipeline", ltx, {**TEXT, **TOKENS, **UNGUIDED, "height": 64, "width": 64}),
    "ltx2": ("LTX2Pipeline", ltx2, LTX2),
    "kandinsky5": ("Kandinsky5T2VPipeline", kandinsky5, {
        **SMALL, **UNGUIDED, "prompt_embeds_qwen": embedded(4, WIDTH),
        "prompt_embeds_clip": embedded(1, WIDTH)[0],
        "prompt_cu_seqlens": torch.tensor([0, 4], dtype=torch.int32),
    }),
    "stable_audio": ("StableAudioPipeline", stable_audio, {
        "prompt_embeds": embedded(4, WIDTH), "attention_mask": parts.all_seen(4),
        "negative_prompt_embeds": embedded(4, WIDTH, seed=1),
        "negative_attention_mask": parts.all_seen(4),
    }),
})  # fmt: skip
# Embedded, since some versions cannot read a prompt without ftfy.
WAN = {
    "prompt_embeds": embedded(4, 2 * parts.WIDTH), "height": 16, "width": 16,
    "negative_prompt_embeds": embedded(4, 2 * parts.WIDTH, seed=1), **UNGUIDED,
}  # fmt: skip
VIDEOS_FROM_VIDEO = present({
    "wan_video2video": ("WanVideoToVideoPipeline", wan, {**WAN, "video": VIDEO}),
})  # fmt: skip
