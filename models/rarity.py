"""The classifier of minority guidance: which ordinal class of rarity a noisy image belongs to.

Logits of p(class | x0 + rho noise = x, rho, label), for the gradient that leads a sampler to rare
or to common images (Um, Lee and Ye 2024, arXiv:2301.12334). It sees what the bundled denoiser
sees, preconditioned in the same way: c_in x, ln(rho) / 4 and a label. It works at 14x14 and 7x7
positions with few channels, because guidance runs it forward and backward beside every call of the
denoiser; everything in it is smooth, because the gradient is what it is for.
"""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from fewstep.models.fashion import NULL_CLASS, NUM_CLASSES, SIGMA_DATA, NoiseEmbedding, ResBlock
from fewstep.models.prediction import edm_input
from fewstep.types import Level

BINS = 100  # L of the paper
HEADS = 4


class AttentionPool(nn.Module):
    """Weighted means over positions, (n, c, h, w) -> (n, heads c); the weights are learned."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.weights = nn.Conv2d(channels, heads, 1)
        nn.init.zeros_(self.weights.weight)  # starts as the plain mean

    def forward(self, x: Tensor) -> Tensor:
        weights = self.weights(x).flatten(2).softmax(dim=2)
        pooled: Tensor = rearrange(weights @ x.flatten(2).mT, "n k c -> n (k c)")
        return pooled


class RarityClassifier(nn.Module):
    """Logits (n, num_classes) of noisy images: class 0 the commonest, the last the rarest.

    Args of ``forward``:
        x: (n, 1, 28, 28), clean images plus ``rho`` times unit noise; images lie in [-1, 1].
        rho: (n,) or a scalar tensor, > 0.
        labels: (n,) integers, 0-9 a class of clothes, 10 unknown; None means unknown.
    """

    def __init__(
        self, num_classes: int = BINS, *, outer: int = 32, inner: int = 96, depth: int = 3,
        embed: int = 128,
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_classes = num_classes
        self.embed = NoiseEmbedding(embed, NUM_CLASSES + 1)
        self.stem = nn.Conv2d(4, outer, 3, padding=1)
        self.outer = ResBlock(outer, outer, embed)
        self.down = nn.Conv2d(outer, inner, 2, stride=2)
        self.inner = nn.ModuleList([ResBlock(inner, inner, embed) for _ in range(depth)])
        self.norm = nn.GroupNorm(8, inner)
        self.pool = AttentionPool(inner, HEADS)
        self.head = nn.Linear(HEADS * inner, num_classes)

    def forward(self, x: Tensor, rho: Tensor, labels: Tensor | None = None) -> Tensor:
        n = x.shape[0]
        rho = rho.to(x.dtype).expand(n)
        if labels is None:
            labels = torch.full((n,), NULL_CLASS, device=x.device)
        c_in = (rho.square() + SIGMA_DATA**2).rsqrt()[:, None, None, None]
        emb = self.embed(rho.log() / 4, labels)
        patches = F.pixel_unshuffle(c_in * x, 2).contiguous(memory_format=torch.channels_last)
        h = self.down(self.outer(self.stem(patches), emb))
        for block in self.inner:
            h = block(h, emb)
        logits: Tensor = self.head(self.pool(F.silu(self.norm(h))))
        return logits


class EDMClassifier:
    """A noise-conditioned classifier of EDM's kind on any process.

    At x = alpha x0 + sigma noise it is asked net(x / alpha; sigma / alpha), as `EDMDenoiser` is.

    Args:
        net: called as ``net(x, rho, labels)``, rho of shape (n,), labels possibly None; its
            attribute ``num_classes`` is the number of its logits.

    Attributes:
        num_classes: the number of logits L.
        takes_time: True: it is trained on noisy samples and told the level.
    """

    takes_time = True

    def __init__(self, net: nn.Module) -> None:
        self.net, self.num_classes = net, int(net.num_classes)  # type: ignore[arg-type]

    def __call__(self, x: Tensor, level: Level, cond: Tensor | None = None) -> Tensor:
        """The logits (n, L) of (n, ...) noisy samples, in the dtype of ``x``; differentiable.

        Args:
            x: alpha x0 + sigma noise.
            level: alpha and sigma of it.
            cond: (n,) integer labels of the data; None leaves them unknown.

        Raises:
            ValueError: at alpha = 0, where sigma / alpha is infinite.
        """
        dtype = next(self.net.parameters()).dtype
        logits: Tensor = self.net(*edm_input(x, level, dtype, "the classifier"), cond)
        return logits.to(x.dtype)
