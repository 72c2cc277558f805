"""Loads the bundled Fashion-MNIST networks (`train_fashion.py` made them)."""

import hashlib
from importlib.resources import files

import torch
from safetensors.torch import load
from torch import nn

from fewstep.models.adapters import EDMDenoiser
from fewstep.models.classifier import FashionClassifier
from fewstep.models.fashion import NULL_CLASS, FashionEDM
from fewstep.schedules import VE, NoiseProcess


def _read_weights(name: str) -> bytes:
    resource = files("fewstep.models") / "weights" / f"{name}.safetensors"
    if not resource.is_file():
        command = {"fashion": "denoiser"}.get(name, name)
        raise FileNotFoundError(
            f"the bundled weights {resource} are missing; reinstall fewstep, or train them with "
            f"python -m fewstep.models.train_fashion {command}"
        )
    return resource.read_bytes()


def weights_sha256(name: str = "fashion") -> str:
    """SHA-256 of a bundled weight file, ``"fashion"`` or ``"classifier"``, as hex digits.

    Raises:
        FileNotFoundError: if the file is missing.
    """
    return hashlib.sha256(_read_weights(name)).hexdigest()


def _load(model: nn.Module, name: str, device: str | torch.device) -> None:
    # The file is in half precision; copying into float32 parameters widens it.
    model.load_state_dict(load(_read_weights(name)))
    model.to(device).eval().requires_grad_(False)


def bundled_denoiser(
    process: NoiseProcess | None = None, device: str | torch.device = "cpu"
) -> EDMDenoiser:
    """The class-conditional denoiser of 28x28 Fashion-MNIST images in [-1, 1], in float32.

    ``cond`` is an (n,) integer tensor of classes 0-9 (10: none). Samples have shape (n, 1, 28, 28).

    Args:
        process: which levels are sampled, with a signal at all of them; EDM's VE by default.
        device: where the network goes.

    Raises:
        FileNotFoundError: if the weights are missing.
    """
    net = FashionEDM()
    _load(net, "fashion", device)
    return EDMDenoiser(net, process if process is not None else VE(), null_class=NULL_CLASS)


def bundled_classifier(device: str | torch.device = "cpu") -> FashionClassifier:
    """The classifier of Fashion-MNIST images in [-1, 1], in float32 and evaluation mode.

    Raises:
        FileNotFoundError: if the weights are missing.
    """
    net = FashionClassifier()
    _load(net, "classifier", device)
    return net
