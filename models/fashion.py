"""The bundled network: class-conditional Fashion-MNIST with EDM preconditioning.

A U-Net of two levels. Images are cut into 2x2 patches (14x14 positions), the inner level works on
7x7 positions with self-attention; noise level and class enter every block through adaptive
normalisation (scale, shift and, in the attention blocks, a gate that starts at zero).

The preconditioning is Karras et al. 2022 (arXiv:2206.00364), table 1 and equation 7::

    D(x; sigma) = c_skip x + c_out F(c_in x; ln(sigma) / 4, class)
    c_skip = s^2 / (sigma^2 + s^2)    c_out = sigma s / sqrt(sigma^2 + s^2)
    c_in = 1 / sqrt(sigma^2 + s^2)    s = sigma_data
"""

import math

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

NUM_CLASSES = 10
NULL_CLASS = 10
SIGMA_DATA = 0.7  # root mean square of the training pixels in [-1, 1] about their mean, rounded


class NoiseEmbedding(nn.Module):
    """Embeds ``c_noise = ln(sigma) / 4`` of shape (n,) and a label of shape (n,) as (n, width)."""

    freqs: Tensor

    def __init__(self, width: int, num_labels: int) -> None:
        super().__init__()
        self.register_buffer("freqs", math.pi * torch.logspace(-1.0, 1.0, 32), persistent=False)
        self.label = nn.Embedding(num_labels, width)
        self.mlp = nn.Sequential(nn.Linear(64, width), nn.SiLU(), nn.Linear(width, width))
        # Nothing but a name for the noise level alone, before the label joins it: time-step
        # guidance (arXiv:2407.02687) hooks it to disturb the one and not the other.
        self.time_embedding = nn.Identity()

    def forward(self, c_noise: Tensor, labels: Tensor) -> Tensor:
        phase = c_noise.float()[:, None] * self.freqs
        waves = torch.cat([phase.cos(), phase.sin()], dim=1).to(self.label.weight.dtype)
        return F.silu(self.time_embedding(self.mlp(waves)) + self.label(labels))


class ResBlock(nn.Module):
    """Two 3x3 convolutions; the embedding scales and shifts the second normalisation."""

    def __init__(self, channels_in: int, channels: int, embed: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(8, channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.modulation = nn.Linear(embed, 2 * channels)
        self.norm2 = nn.GroupNorm(8, channels, affine=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.skip = nn.Conv2d(channels_in, channels, 1) if channels_in != channels else None
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        scale, shift = self.modulation(emb)[:, :, None, None].chunk(2, dim=1)
        h = self.conv1(F.silu(self.norm1(x)))
        h = F.silu(torch.addcmul(shift, self.norm2(h), 1 + scale))
        out: Tensor = self.conv2(h)
        return out + (x if self.skip is None else self.skip(x))


class AttentionBlock(nn.Module):
    """Self-attention and an MLP over (n, tokens, width), both gated (adaLN-zero)."""

    def __init__(self, width: int, heads: int, embed: int) -> None:
        super().__init__()
        self.heads = heads
        self.modulation = nn.Linear(embed, 6 * width)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if not self.training:
            return F.scaled_dot_product_attention(q, k, v)
        # At 49 tokens the backward of the fused CPU kernel takes a third of a whole training step.
        weights: Tensor = (q * q.shape[-1] ** -0.5 @ k.mT).softmax(dim=-1)
        return weights @ v

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        modulation = self.modulation(emb)[:, None, :].chunk(6, dim=2)
        scale_a, shift_a, gate_a, scale_m, shift_m, gate_m = modulation
        h = torch.addcmul(shift_a, self.norm(x), 1 + scale_a)
        q, k, v = rearrange(self.qkv(h), "n t (three h d) -> three n h t d", three=3, h=self.heads)
        h = rearrange(self.attend(q, k, v), "n h t d -> n t (h d)")
        x = torch.addcmul(x, gate_a, self.out(h))
        h = torch.addcmul(shift_m, self.norm(x), 1 + scale_m)
        return torch.addcmul(x, gate_m, self.mlp(h))


class FashionUNet(nn.Module):
    """The raw network F: (n, 1, 28, 28), c_noise (n,), labels (n,) -> (n, 1, 28, 28)."""

    def __init__(
        self, *, outer: int = 64, inner: int = 192, depth: int = 3, embed: int = 256, heads: int = 6
    ) -> None:
        super().__init__()
        self.embed = NoiseEmbedding(embed, NUM_CLASSES + 1)
        self.stem = nn.Conv2d(4, outer, 3, padding=1)
        self.encoder = nn.ModuleList([ResBlock(outer, outer, embed) for _ in range(2)])
        self.down = nn.Conv2d(outer, inner, 2, stride=2)
        self.position = nn.Parameter(0.02 * torch.randn(1, 49, inner))
        self.middle = nn.ModuleList([AttentionBlock(inner, heads, embed) for _ in range(depth)])
        self.up = nn.Linear(inner, 4 * outer)
        self.decoder = nn.ModuleList([ResBlock(2 * outer, outer, embed) for _ in range(2)])
        self.norm = nn.GroupNorm(8, outer)
        self.head = nn.Conv2d(outer, 4, 3, padding=1)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor) -> Tensor:
        emb = self.embed(c_noise, labels)
        h = self.stem(F.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last))
        skips = []
        for block in self.encoder:
            h = block(h, emb)
            skips.append(h)
        tokens = rearrange(self.down(h), "n c h w -> n (h w) c") + self.position
        for block in self.middle:
            tokens = block(tokens, emb)
        h = rearrange(
            self.up(tokens), "n (h w) (p q c) -> n c (h p) (w q)", h=7, p=2, q=2
        ).contiguous(memory_format=torch.channels_last)
        for block in self.decoder:
            h = block(torch.cat([h, skips.pop()], dim=1), emb)
        return F.pixel_shuffle(self.head(F.silu(self.norm(h))), 2)


class FashionEDM(nn.Module):
    """The preconditioned denoiser D(x; sigma, label), an estimate of E[x0 | x0 + sigma noise = x].

    Args of ``forward``:
        x: (n, 1, 28, 28), clean images plus ``sigma`` times unit noise; images lie in [-1, 1].
        sigma: (n,) or a scalar tensor, > 0.
        labels: (n,) integers, 0-9 a class, 10 no class; None means no class.
    """

    def __init__(self, network: FashionUNet | None = None) -> None:
        super().__init__()
        self.network = network if network is not None else FashionUNet()

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        n = x.shape[0]
        sigma = sigma.to(x.dtype).expand(n)
        if labels is None:
            labels = torch.full((n,), NULL_CLASS, device=x.device)
        total = (sigma.square() + SIGMA_DATA**2)[:, None, None, None]
        c_skip, c_in = SIGMA_DATA**2 / total, total.rsqrt()
        c_out = SIGMA_DATA * sigma[:, None, None, None] * c_in
        raw: Tensor = self.network(c_in * x, sigma.log() / 4, labels)
        return c_skip * x + c_out * raw.to(x.dtype)


def weak_edm() -> FashionEDM:
    """The smaller denoiser for autoguidance (Karras et al. 2024, arXiv:2406.02507), untrained.

    About a third of the widths and the depth of `FashionEDM`, with the same preconditioning: the
    paper's guiding model has less capacity and less training, and is the same in all other things.
    """
    return FashionEDM(FashionUNet(outer=24, inner=64, depth=1, embed=96, heads=2))
