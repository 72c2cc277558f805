"""Text prompts as classes: label i is prompt i, and one label more is the empty prompt.

So everything that works with classes works with text: drawn or balanced labels, and guidance.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.guidance.rows import joined, taken
from fewstep.models.adapters import DiffusersDenoiser
from fewstep.schedules import NoiseProcess
from fewstep.types import Level

PROMPTS_AT_ONCE = 16  # through the text encoders


def read_prompts(path: Path) -> list[str]:
    """The lines of a text file; blank lines are left out.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not UTF-8, or holds no prompt.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no prompts at {path}; give a text file with one prompt a line")
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    if prompts := prompt_lines(text):
        return prompts
    raise ValueError(f"{path} holds no prompt; write one a line")


def prompt_lines(text: str) -> list[str]:
    """The prompts of a text, one a line without blank lines: prompt i is label i."""
    lines = (line.strip() for line in text.removeprefix("\ufeff").splitlines())
    return [line for line in lines if line]


class PromptDenoiser:
    """A text-conditional network as a denoiser with classes.

    All embeddings stay on the device: those of 1,000 prompts of Stable Diffusion take 118 MB in
    float16.

    Args:
        inner: conditioned on a dictionary of keyword arguments.
        conditions: that dictionary, with K + 1 rows: the prompts, and the empty one.

    Attributes:
        num_classes: K.
        latent: samples are no pixels.
    """

    latent = True

    def __init__(self, inner: DiffusersDenoiser, conditions: dict[str, Any]) -> None:
        self._inner, self._conditions = inner, conditions
        self.num_classes = len(conditions["encoder_hidden_states"]) - 1

    @property
    def process(self) -> NoiseProcess:
        return self._inner.process

    @property
    def network(self) -> nn.Module | None:
        """The module with the weights, whose parts can be hooked."""
        return self._inner.network

    def __call__(self, x: Tensor, level: Level, cond: Tensor | None = None) -> Tensor:
        """The data prediction at (n,) labels in 0 .. K; None stands for K, the empty prompt."""
        if cond is None:
            cond = torch.full((len(x),), self.num_classes, device=x.device)
        return self._inner(x, level, taken(self._conditions, cond))

    def null_cond(self, cond: Tensor) -> Tensor:
        """The label K for each row."""
        return torch.full_like(cond, self.num_classes)


@torch.no_grad()
def conditions_of(pipe: Any, prompts: Sequence[str], device: str) -> dict[str, Any]:
    """What a pipeline tells its network for each prompt, and in the last row for no prompt.

    The pipeline's own ``encode_prompt`` makes it, without a negative prompt: SDXL's null condition
    is zeros where its config says so.

    Args:
        pipe: of Stable Diffusion 1, 2, XL or 3, its text encoders on ``device``.
        prompts: K of them.
        device: where to.

    Returns:
        Keyword arguments of the network, each of K + 1 rows.
    """
    parts = [
        _encoded(pipe, prompts[start : start + PROMPTS_AT_ONCE], device)
        for start in range(0, len(prompts), PROMPTS_AT_ONCE)
    ]
    made: dict[str, Any] = joined([*parts, _encoded(pipe, [""], device, null=True)])
    return made


def _encoded(
    pipe: Any, prompts: Sequence[str], device: str, *, null: bool = False
) -> dict[str, Any]:
    """The condition of prompts; with ``null``, that of the rows CFG contrasts them with."""
    others = {"prompt_2": None, "prompt_3": None} if hasattr(pipe, "text_encoder_3") else {}
    texts = pipe.encode_prompt(
        prompt=list(prompts), device=torch.device(device), num_images_per_prompt=1,
        do_classifier_free_guidance=null, **others,
    )[int(null) :: 2]  # fmt: skip
    if len(texts) == 1:
        return {"encoder_hidden_states": texts[0]}
    hidden, pooled = texts
    if hasattr(pipe, "transformer"):
        return {"encoder_hidden_states": hidden, "pooled_projections": pooled}
    added = {"text_embeds": pooled, "time_ids": _sizes(pipe).to(pooled).expand(len(pooled), -1)}
    return {"encoder_hidden_states": hidden, "added_cond_kwargs": added}


def _sizes(pipe: Any) -> Tensor:
    """SDXL's original size, crop and target size (arXiv:2307.01952), of whole images."""
    size, scale = pipe.unet.config.sample_size, int(pipe.vae_scale_factor)
    height, width = (size, size) if isinstance(size, int) else size
    return torch.tensor([[height, width, 0, 0, height, width]]) * scale
