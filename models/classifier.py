"""A small Fashion-MNIST classifier; its 64 features carry the benchmark's Frechet distance."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def stage(channels_in: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
    )


class FashionClassifier(nn.Module):
    """Logits (n, 10) of images (n, 1, 28, 28) in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList([stage(1, 32), stage(32, 64), stage(64, 128)])
        self.project = nn.Linear(128, 64)
        self.head = nn.Linear(64, 10)

    def stage_outputs(self, x: Tensor) -> list[Tensor]:
        """The outputs of the three stages: 32, 64 and 128 channels at 28, 14 and 7 positions."""
        outputs = []
        for index, block in enumerate(self.stages):
            x = block(F.max_pool2d(x, 2) if index else x)
            outputs.append(x)
        return outputs

    def features(self, x: Tensor) -> Tensor:
        """Features (n, 64): the layer below the logits, after its nonlinearity."""
        return F.relu(self.project(self.stage_outputs(x)[-1].mean(dim=(2, 3))))

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """(n,) perceptual distances of images (n, 1, 28, 28), between 0 and 6.

        The squared difference of the channels' unit vectors, its mean over positions, summed over
        the stages: LPIPS (Zhang et al. 2018, arXiv:1801.03924, eq. 1) with equal weights.
        """
        total = torch.zeros(len(a), device=a.device)
        for u, v in zip(self.stage_outputs(a), self.stage_outputs(b), strict=True):
            # Where no channel responds the vector is zero: eps keeps it so.
            unit_u, unit_v = F.normalize(u.float(), eps=1e-6), F.normalize(v.float(), eps=1e-6)
            total = total + (unit_u - unit_v).square().sum(dim=1).mean(dim=(1, 2))
        return total

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(F.dropout(self.features(x), 0.2, self.training))
        return logits
