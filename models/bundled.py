"""Loads the bundled Fashion-MNIST networks (`train_fashion` and `train_minority` made them).

torch and the networks are imported when one is loaded: the hash of a file needs neither.
"""

import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING

from fewstep.schedules import VE, NoiseProcess

if TYPE_CHECKING:
    import torch
    from torch import nn

    from fewstep.models.adapters import EDMDenoiser
    from fewstep.models.classifier import FashionClassifier
    from fewstep.models.fashion import FashionEDM
    from fewstep.models.rarity import EDMClassifier

# The weight files, and the commands that make them.
COMMANDS = {
    "fashion": "train_fashion denoiser",
    "classifier": "train_fashion classifier",
    "fashion_weak": "train_fashion weak",
    "minority": "train_minority classifier",
}


def _read_weights(name: str) -> bytes:
    resource = files("fewstep.models") / "weights" / f"{name}.safetensors"
    if name not in COMMANDS:
        raise ValueError(f"unknown weights {name!r}; known: {', '.join(COMMANDS)}")
    if not resource.is_file():
        raise FileNotFoundError(
            f"the bundled weights {resource} are missing; reinstall fewstep, or train them with "
            f"python -m fewstep.models.{COMMANDS[name]}"
        )
    return resource.read_bytes()


def weights_sha256(name: str = "fashion") -> str:
    """SHA-256 of a bundled weight file, as hex digits.

    Args:
        name: ``"fashion"``, ``"classifier"``, ``"fashion_weak"`` or ``"minority"``.

    Raises:
        ValueError: for another name.
        FileNotFoundError: if the file is missing.
    """
    return hashlib.sha256(_read_weights(name)).hexdigest()


def _load(model: "nn.Module", name: str, device: "str | torch.device") -> None:
    from safetensors.torch import load

    # The file is in half precision; copying into float32 parameters widens it.
    model.load_state_dict(load(_read_weights(name)))
    model.to(device).eval().requires_grad_(False)


def bundled_denoiser(
    process: NoiseProcess | None = None, device: "str | torch.device" = "cpu"
) -> "EDMDenoiser":
    """The class-conditional denoiser of 28x28 Fashion-MNIST images in [-1, 1], in float32.

    ``cond`` is an (n,) integer tensor of classes 0-9 (10: none). Samples have shape (n, 1, 28, 28).

    Args:
        process: which levels are sampled, with a signal at all of them; EDM's VE by default.
        device: where the network goes.

    Raises:
        FileNotFoundError: if the weights are missing.
    """
    from fewstep.models.fashion import FashionEDM

    net = FashionEDM()
    _load(net, "fashion", device)
    return _edm_denoiser(net, process)


def bundled_weak_denoiser(
    process: NoiseProcess | None = None, device: "str | torch.device" = "cpu"
) -> "EDMDenoiser":
    """The denoiser that autoguidance leads away from: smaller, and trained for a short time.

    It predicts what `bundled_denoiser` predicts, of the same inputs, but worse.

    Args:
        process: that of the denoiser it guides; EDM's VE by default.
        device: where the network goes.

    Raises:
        FileNotFoundError: if the weights are missing.

    Reference:
        Karras et al. 2024, arXiv:2406.02507.
    """
    from fewstep.models.fashion import weak_edm

    net = weak_edm()
    _load(net, "fashion_weak", device)
    return _edm_denoiser(net, process)


def _edm_denoiser(net: "FashionEDM", process: NoiseProcess | None) -> "EDMDenoiser":
    from fewstep.models.adapters import EDMDenoiser
    from fewstep.models.fashion import NULL_CLASS, NUM_CLASSES

    return EDMDenoiser(
        net, VE() if process is None else process, null_class=NULL_CLASS, num_classes=NUM_CLASSES
    )


def bundled_classifier(device: "str | torch.device" = "cpu") -> "FashionClassifier":
    """The classifier of Fashion-MNIST images in [-1, 1], in float32 and evaluation mode.

    Raises:
        FileNotFoundError: if the weights are missing.
    """
    from fewstep.models.classifier import FashionClassifier

    net = FashionClassifier()
    _load(net, "classifier", device)
    return net


def bundled_minority_classifier(device: "str | torch.device" = "cpu") -> "EDMClassifier":
    """The noise-conditioned classifier of rarity for minority guidance, in float32.

    Called as ``(x, level, cond=None)``, it returns logits (n, 100): 0 the commonest hundredth of
    the training images of a class, 99 the rarest. ``cond`` is as for `bundled_denoiser`; the level
    may be of any process with a signal.

    Args:
        device: where the network goes.

    Raises:
        FileNotFoundError: if the weights are missing.

    Reference:
        Um, Lee and Ye 2024, arXiv:2301.12334; our own network and data, see the model card.
    """
    from fewstep.models.rarity import EDMClassifier, RarityClassifier

    net = RarityClassifier()
    _load(net, "minority", device)
    return EDMClassifier(net)
