"""Small randomly initialised networks, and a tokenizer of letters: nothing is downloaded."""

import functools
import inspect
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
)

WIDTH = 16  # of the text encoders
PROMPT = "a b c"
IMAGE = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
RIGHT = torch.zeros(1, 1, 16, 16)  # a mask: the right half is to be painted
RIGHT[..., 8:] = 1
Case = tuple[Callable[[], Any], dict[str, Any]]  # a builder, and what to call its pipeline with


def seeded(build: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    """Components that are made once, from a seed of their own, leaving the global one alone."""

    @functools.cache
    def once() -> dict[str, Any]:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return build()

    return once


def embedded(length: int, width: int, seed: int = 0) -> torch.Tensor:
    """(1, length, width) as from a text encoder, for pipelines whose own cannot be this small."""
    return torch.randn(1, length, width, generator=torch.Generator().manual_seed(seed))


def all_seen(length: int) -> torch.Tensor:
    """The attention mask of a text without padding."""
    return torch.ones(1, length, dtype=torch.long)


def present(cases: dict[str, tuple[str, Callable[[type], Any], dict[str, Any]]]) -> dict[str, Case]:
    """Those cases whose class of pipelines this version of diffusers has, as builders."""
    return {
        name: (functools.partial(build, getattr(diffusers, kind)), inputs)
        for name, (kind, build, inputs) in cases.items()
        if hasattr(diffusers, kind)
    }


def known(kind: str, options: dict[str, Any]) -> dict[str, Any]:
    """Those options that a class of pipelines takes in this version of diffusers."""
    if not hasattr(diffusers, kind):
        return {}
    taken = inspect.signature(getattr(diffusers, kind).__call__).parameters
    return {key: value for key, value in options.items() if key in taken}


@functools.cache
def tokenizer() -> CLIPTokenizer:
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: i for i, word in enumerate(words)}
    with tempfile.TemporaryDirectory() as name:
        words_file, merges = Path(name) / "vocab.json", Path(name) / "merges.txt"
        words_file.write_text(json.dumps(vocabulary))
        merges.write_text("#version: 0.2\n")
        return CLIPTokenizer(str(words_file), str(merges), model_max_length=8)


def clip(projected: bool = False) -> torch.nn.Module:
    config = CLIPTextConfig(
        hidden_size=WIDTH, intermediate_size=24, num_attention_heads=2, num_hidden_layers=2,
        vocab_size=64, max_position_embeddings=8, bos_token_id=52, eos_token_id=53, pad_token_id=53,
        projection_dim=WIDTH,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config).eval()


def t5() -> torch.nn.Module:
    config = T5Config(
        vocab_size=64, d_model=2 * WIDTH, d_kv=8, d_ff=24, num_layers=1, num_heads=2,
        pad_token_id=53, eos_token_id=53,
    )  # fmt: skip
    return T5EncoderModel(config).eval()


def vae(latent_channels: int = 4, **kwargs) -> diffusers.AutoencoderKL:
    """Two pixels for each latent."""
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 16), norm_num_groups=4, layers_per_block=1,
        latent_channels=latent_channels, down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, **kwargs,
    ).eval()  # fmt: skip


def unet(in_channels: int = 4, width: int = WIDTH, **kwargs) -> diffusers.UNet2DConditionModel:
    return diffusers.UNet2DConditionModel(
        block_out_channels=(8, 16), layers_per_block=1, sample_size=8, norm_num_groups=4,
        in_channels=in_channels, out_channels=4, cross_attention_dim=width, attention_head_dim=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), **kwargs,
    ).eval()  # fmt: skip


def sdxl_unet() -> diffusers.UNet2DConditionModel:
    """Conditioned on six sizes and the pooled text as well."""
    return unet(
        width=2 * WIDTH, addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTH, use_linear_projection=True,
    )  # fmt: skip


def sd3_transformer(channels: int = 4) -> diffusers.SD3Transformer2DModel:
    return diffusers.SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=channels, out_channels=channels, num_layers=1,
        attention_head_dim=8, num_attention_heads=2, caption_projection_dim=16,
        joint_attention_dim=2 * WIDTH, pooled_projection_dim=2 * WIDTH, pos_embed_max_size=8,
    ).eval()  # fmt: skip


def flux_transformer() -> diffusers.FluxTransformer2DModel:
    return diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=2 * WIDTH, pooled_projection_dim=WIDTH,
        axes_dims_rope=[4, 4, 8],
    ).eval()  # fmt: skip
