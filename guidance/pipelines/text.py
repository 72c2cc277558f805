"""Random text for independent-condition guidance in pipelines: token ids through their encoders."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Tokens = Callable[[int, int], Tensor]  # (vocabulary, length) -> (n, length)


def random_text(pipe: Any, kind: str | None, cond: dict[str, Any], tokens: Tokens) -> Any:
    """A condition in which the text is uniformly random tokens, encoded as the pipeline does it.

    The ids go straight into the encoders, without an attention mask; for CLIP they stand between
    its start and end tokens, where its pooled output is read. Sizes and whatever else the network
    is told stay as they are.

    Args:
        pipe: with its text encoders.
        kind: ``"unet"``, ``"sd3"`` or ``"flux"``.
        cond: the condition of n rows that is replaced.
        tokens: draws ids.

    Raises:
        ValueError: if the pipeline has no text encoder.
    """
    state = cond["encoder_hidden_states"]
    if kind == "unet":
        added = cond.get("added_cond_kwargs", {})
        if "text_embeds" not in added:
            return {**cond, "encoder_hidden_states": _clip(pipe, "text_encoder", state, tokens)[0]}
        hidden, pooled = _two_clips(pipe, state, tokens)
        added = {**added, "text_embeds": pooled}
        return {**cond, "encoder_hidden_states": hidden, "added_cond_kwargs": added}
    if kind == "flux":
        _, pooled = _clip(pipe, "text_encoder", state, tokens)
        hidden = _t5(pipe, "text_encoder_2", state, state.shape[1], tokens)
        return {**cond, "encoder_hidden_states": hidden, "pooled_projections": pooled}
    clips, pooled = _two_clips(pipe, state, tokens)
    length = state.shape[1] - clips.shape[1]
    parts = [torch.nn.functional.pad(clips, (0, state.shape[2] - clips.shape[2]))]
    if pipe.text_encoder_3 is None:  # as in the pipeline
        parts.append(state.new_zeros(len(state), length, state.shape[2]))
    else:
        parts.append(_t5(pipe, "text_encoder_3", state, length, tokens))
    return {**cond, "encoder_hidden_states": torch.cat(parts, 1), "pooled_projections": pooled}


def _two_clips(pipe: Any, like: Tensor, tokens: Tokens) -> tuple[Tensor, Tensor]:
    """The last hidden layer but one of both, side by side, and what they pool.

    SDXL's refiner has the second encoder alone, and SDXL takes only that one's pooled text.
    """
    names = ("text_encoder", "text_encoder_2")
    found = [name for name in names if getattr(pipe, name, None) is not None]
    made = [_clip(pipe, name, like, tokens, layer=-2) for name in found or names[:1]]
    pooled = [one[1] for one in made]
    if getattr(pipe, "unet", None) is not None:
        pooled = pooled[-1:]
    return torch.cat([one[0] for one in made], -1), torch.cat(pooled, -1)


def _clip(
    pipe: Any, name: str, like: Tensor, tokens: Tokens, layer: int | None = None
) -> tuple[Tensor, Tensor]:
    """Hidden states (n, length, d), the output's or a layer's, and the pooled text (n, d)."""
    encoder = _encoder(pipe, name)
    tokenizer = getattr(pipe, name.replace("text_encoder", "tokenizer"))
    ids = tokens(encoder.config.vocab_size, tokenizer.model_max_length)
    ids[:, 0], ids[:, -1] = tokenizer.bos_token_id, tokenizer.eos_token_id
    made = encoder(ids.to(like.device, non_blocking=True), output_hidden_states=True)
    projected = getattr(made, "text_embeds", None)
    pooled = made.pooler_output if projected is None else projected
    hidden = made.last_hidden_state if layer is None else made.hidden_states[layer]
    return hidden.to(like), pooled.to(like)


def _t5(pipe: Any, name: str, like: Tensor, length: int, tokens: Tokens) -> Tensor:
    encoder = _encoder(pipe, name)
    ids = tokens(encoder.config.vocab_size, length)
    made: Tensor = encoder(ids.to(like.device, non_blocking=True))[0]
    return made.to(like)


def _encoder(pipe: Any, name: str) -> Any:
    encoder = getattr(pipe, name, None)
    if encoder is None:
        raise ValueError(
            f"ICG in text mode needs the pipeline's {name}, which is None: load it, or use "
            "mode='gaussian'"
        )
    return encoder
