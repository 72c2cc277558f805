"""A small Fashion-MNIST classifier; its 64 features carry the benchmark's Frechet distance."""

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

    def features(self, x: Tensor) -> Tensor:
        """Features (n, 64): the layer below the logits, after its nonlinearity."""
        for index, block in enumerate(self.stages):
            x = block(F.max_pool2d(x, 2) if index else x)
        return F.relu(self.project(x.mean(dim=(2, 3))))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(F.dropout(self.features(x), 0.2, self.training))
        return logits
