"""A file like the published FID Inception weights, with random numbers: for tests offline."""

import hashlib
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fewstep.eval.networks.inception import build_network


def random_tensors(seed: int = 0) -> OrderedDict[str, Tensor]:
    """566 tensors by their published names; activations neither vanish nor blow up."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(shape: torch.Size, low: float, high: float) -> Tensor:
        return torch.rand(shape, generator=generator) * (high - low) + low

    tensors = OrderedDict()
    for name, tensor in build_network().state_dict().items():
        shape = tensor.shape
        if name.endswith("num_batches_tracked"):
            tensors[name] = torch.tensor(0)
        elif name.endswith(("bn.weight", "running_var")):
            tensors[name] = uniform(shape, 0.5, 1.2)
        elif name.endswith(("bias", "running_mean")):
            tensors[name] = uniform(shape, -0.2, 0.2)
        else:
            fan_in = shape[1:].numel()
            tensors[name] = torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5
    return tensors


def save(tensors: object, path: Path) -> str:
    """Writes a file as torch does, and returns its SHA-256."""
    torch.save(tensors, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def released(tensors: dict[str, Tensor], **settings: bool) -> nn.Module:
    """pytorch-fid's own network and forward pass, with these tensors for the downloaded ones."""
    inception = pytest.importorskip("pytorch_fid.inception")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: tensors)
        net: nn.Module = inception.InceptionV3(**settings)
    return net.eval()


def pictures(n: int, channels: int = 3, size: int = 32) -> Tensor:
    """(n, channels, size, size) uint8: stripes of different widths and tints, with noise."""
    generator = torch.Generator().manual_seed(n)
    rows = torch.arange(size).view(1, 1, size, 1) * torch.arange(1, n + 1).view(n, 1, 1, 1) * 7
    tint = torch.randint(0, 128, (n, channels, 1, 1), generator=generator)
    noise = torch.randint(0, 32, (n, channels, size, size), generator=generator)
    return (rows % 96 + tint + noise).to(torch.uint8)
