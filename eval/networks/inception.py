"""FID's Inception network: pytorch-fid's blocks with our loader, made faster without other results.

Folding the batch norms into the convolutions, the channels-last layout and, on a CPU, oneDNN's
convolution with its ReLU change features by rounding (below 1e-5 of their size). The pool3 features
are those after the last average pool.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.eval.networks.inception_weights import (
    INCEPTION_SHA256,
    ExtractorUnavailableError,
    find_weights,
    read_weights,
)
from fewstep.eval.networks.micro_batches import check_images, in_micro_batches, strict_float32
from fewstep.eval.networks.resize import PROTOCOLS

# Images in each call. On a CPU 4 to 16 cost the same per image, and few are lost in filling up.
MICRO_BATCH = {"cpu": 8, "cuda": 64}


class InceptionExtractor:
    """The 2048 pool3 features of FID's Inception network.

    Everything that can be missing is looked for on construction, so make it before the samples.

    Args:
        protocol: ``"edm"``, ``"pytorch-fid"`` or ``"clean"``: how images become inputs.
        device: where the network goes.
        weights: the file; searched for if None (see :func:`find_weights`).
        expected_sha256: of that file. Any other than the default is for tests, and makes the
            features not ``comparable``.

    Raises:
        ValueError: for another protocol.
        ExtractorUnavailableError: without pytorch-fid, or without the right weights.

    Reference:
        Heusel et al. 2017, arXiv:1706.08500; the network's tensors and patches are those of
        pytorch-fid 0.3.0.
    """

    dim = 2048
    # Features are averages after a ReLU, mostly below 3, but nobody promises a largest. A coarse
    # scale, whose rounding adds 2.5e-9 to a distance, is better than a run that cannot be added up.
    bound = 32.0
    scale = 2.0**18

    def __init__(
        self,
        protocol: str = "edm",
        device: str = "cpu",
        weights: Path | None = None,
        *,
        expected_sha256: str = INCEPTION_SHA256,
    ) -> None:
        if protocol not in PROTOCOLS:
            known = ", ".join(PROTOCOLS)
            raise ValueError(f"unknown protocol {protocol!r} of inception; known: {known}")
        net = build_network()
        path = find_weights(weights)
        shapes = {name: tensor.shape for name, tensor in net.state_dict().items()}
        tensors = read_weights(path, shapes, expected_sha256)
        net.load_state_dict(tensors, strict=False, assign=True)  # `read_weights` was strict
        fold_batch_norms(net)
        net.fc = nn.Identity()  # the network then returns pool3
        self.name = f"inception:{protocol}"
        self.fingerprint = expected_sha256
        self.comparable = expected_sha256 == INCEPTION_SHA256
        self._device = torch.device(device)
        self._micro_batch = MICRO_BATCH.get(self._device.type, MICRO_BATCH["cuda"])
        self._prepare = PROTOCOLS[protocol]
        net.eval().requires_grad_(False)
        self._net = net.to(self._device).to(memory_format=torch.channels_last)
        if self._device.type == "cpu" and has_fused_convolutions():
            fuse_convolutions(self._net)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Features of images, each independent of the others in the batch, bit for bit.

        Args:
            images: uint8 (n, c, h, w), c = 3 (RGB) or 1 (grey, taken as three equal channels).

        Returns:
            float32 (n, 2048), >= 0, on the network's device.

        Raises:
            TypeError, ValueError: for another dtype or shape.
        """
        check_images(images, channels=(1, 3))
        return in_micro_batches(images, self._micro_batch, self._features, self._device)

    def _features(self, images: Tensor) -> Tensor:
        x = self._prepare(images.expand(-1, 3, -1, -1))  # grey images become RGB
        with strict_float32(self._device):
            features: Tensor = self._net(x.contiguous(memory_format=torch.channels_last))
        return features


def build_network() -> nn.Module:
    """FID's network of 1008 classes on the meta device: shapes without values.

    torchvision's Inception v3 with pytorch-fid's nine patched blocks: average pools that leave out
    the padding, and one max pool. There, unlike in ``pytorch_fid.inception.fid_inception_v3``,
    nothing is downloaded, and nothing is drawn from torch's generator.

    Raises:
        ExtractorUnavailableError: if pytorch-fid or torchvision is not installed.
    """
    try:
        from pytorch_fid.inception import (
            FIDInceptionA,
            FIDInceptionC,
            FIDInceptionE_1,
            FIDInceptionE_2,
        )
        from torchvision.models import inception_v3
    except ImportError as error:
        raise ExtractorUnavailableError(
            f"the extractor inception needs pytorch-fid and torchvision ({error}); "
            "run pip install fewstep[fid], or use fd-cnn:fashion"
        ) from error
    with torch.device("meta"):
        net: nn.Module = inception_v3(
            weights=None, num_classes=1008, aux_logits=False, init_weights=False
        )
        net.Mixed_5b = FIDInceptionA(192, pool_features=32)
        net.Mixed_5c = FIDInceptionA(256, pool_features=64)
        net.Mixed_5d = FIDInceptionA(288, pool_features=64)
        net.Mixed_6b = FIDInceptionC(768, channels_7x7=128)
        net.Mixed_6c = FIDInceptionC(768, channels_7x7=160)
        net.Mixed_6d = FIDInceptionC(768, channels_7x7=160)
        net.Mixed_6e = FIDInceptionC(768, channels_7x7=192)
        net.Mixed_7b = FIDInceptionE_1(1280)
        net.Mixed_7c = FIDInceptionE_2(2048)
    return net


def fold_batch_norms(net: nn.Module) -> None:
    """Writes every batch norm into the convolution before it, in place; for evaluation only.

    With s = gamma / sqrt(variance + eps) the weights become s W and the bias beta - s mean, which
    is computed in float64 and rounded once.

    Args:
        net: made of modules with a ``conv`` without bias, and a ``bn`` after it.
    """
    for module in net.modules():
        norm = getattr(module, "bn", None)
        if not isinstance(norm, nn.BatchNorm2d):
            continue
        conv = module.conv
        assert isinstance(conv, nn.Conv2d)
        assert norm.running_var is not None
        assert norm.running_mean is not None
        factor = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        bias = norm.bias.double() - factor * norm.running_mean.double()
        conv.weight = nn.Parameter((conv.weight.double() * factor[:, None, None, None]).float())
        conv.bias = nn.Parameter(bias.float())
        module.bn = nn.Identity()


class FusedConvolution(nn.Module):
    """ReLU of a convolution in one call of oneDNN, which keeps its weights in the layout it wants.

    PyTorch's own call moves them there each time, and writes and reads the output once more.

    Args:
        conv: ungrouped, with a bias.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self._conv = conv
        self._packed: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Of (n, c, h, w) float32 on the CPU, always of one shape, for which it packs weights."""
        conv = self._conv
        at = (conv.padding, conv.stride, conv.dilation, conv.groups)
        if self._packed is None:
            pack: Any = torch._C._nn.mkldnn_reorder_conv2d_weight  # its stub knows two arguments
            self._packed = pack(conv.weight.detach().to_mkldnn(), *at, x.shape)
            conv.weight = nn.Parameter(torch.empty(0))  # one copy is enough
        fused: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self._packed, conv.bias, *at, "relu", [], ""
        )
        return fused


def has_fused_convolutions() -> bool:
    """Whether this PyTorch has oneDNN, and the calls that its compiler makes of it."""
    packs = hasattr(torch._C._nn, "mkldnn_reorder_conv2d_weight")
    fuses = hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    return torch.backends.mkldnn.is_available() and packs and fuses


def fuse_convolutions(net: nn.Module) -> None:
    """Puts a :class:`FusedConvolution` in the place of every convolution and ReLU, in place.

    Args:
        net: whose convolutions are in modules with a ``conv`` that end in a ReLU, batch norms
            folded.
    """
    for parent in list(net.modules()):
        for name, module in parent.named_children():
            if isinstance(conv := getattr(module, "conv", None), nn.Conv2d):
                setattr(parent, name, FusedConvolution(conv))
