"""Images of latents, by the autoencoders of diffusers."""

from typing import Any

import torch
from torch import Tensor

from fewstep.eval.networks.micro_batches import in_micro_batches

PIXELS_AT_ONCE = 2**20  # four images of 512 x 512


def decoder(vae: Any, shape: tuple[int, ...]) -> "Decoder":
    """A decoder of latents of a shape, in parts whose size goes by that of their images."""
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    pixels = shape[-2] * shape[-1] * factor**2
    return Decoder(vae, max(1, min(64, PIXELS_AT_ONCE // pixels)))


class Decoder:
    """Latents (n, ...) to images (n, c, h, w), most of whose values are in [-1, 1].

    In parts of a fixed size, and in float32: the decoders of Stable Diffusion overflow in float16.
    An autoencoder's decoder draws nothing.

    Args:
        vae: with ``decode``.
        size: latents that it is given at once, >= 1.
    """

    def __init__(self, vae: Any, size: int) -> None:
        self._vae, self._size = vae, size
        config = vae.config
        scale, shift = 1 / config.scaling_factor, config.get("shift_factor") or 0.0
        if config.get("latents_mean") is not None and config.get("latents_std") is not None:
            # fine-tuned decoders of SDXL: one mean and deviation for each channel
            scale, shift = scale * _channels(config.latents_std), _channels(config.latents_mean)
        self._scale, self._shift = scale, shift

    @torch.no_grad()
    def __call__(self, latents: Tensor) -> Tensor:
        parameter = next(self._vae.parameters())
        latents = latents.to(parameter)
        scale, shift = (
            value.to(parameter) if isinstance(value, Tensor) else value
            for value in (self._scale, self._shift)
        )

        def decode(rows: Tensor) -> Tensor:
            made: Tensor = self._vae.decode(rows * scale + shift, return_dict=False)[0]
            return made

        return in_micro_batches(latents, self._size, decode, parameter.device)


def _channels(values: Any) -> Tensor:
    return torch.tensor(values).view(1, -1, 1, 1)
