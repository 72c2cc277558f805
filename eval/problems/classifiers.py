"""What guidance on the problems may ask for, by the names of ``fewstep.guidance.parse.MODELS``."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from fewstep.models.bundled import (
    bundled_classifier,
    bundled_minority_classifier,
    bundled_weak_denoiser,
)
from fewstep.models.exact import MixtureDenoiser
from fewstep.schedules import NoiseProcess
from fewstep.types import Level

Models = Mapping[str, Callable[[], Any]]  # functions that load them
CLEAN = Level(0.0, 1.0, 0.0)


class PosteriorClassifier:
    """The exact posterior of the classes of a mixture, for noisy samples or clean ones.

    Args:
        mixture: with labels.
        fingerprint: tells its data from any other.
    """

    def __init__(self, mixture: MixtureDenoiser, fingerprint: str) -> None:
        self.mixture, self.fingerprint = mixture, fingerprint
        self.num_classes = mixture.num_classes

    def __call__(self, x: Tensor, level: Level = CLEAN) -> Tensor:
        """(n, K) log-probabilities of samples (n, ...) at a level."""
        return self.mixture.class_log_probs(x, level)


class ImageClassifier:
    """The bundled classifier of clean images, in whatever dtype these come."""

    def __init__(self, device: str) -> None:
        self.network = bundled_classifier(device)

    def __call__(self, x: Tensor) -> Tensor:
        """(n, 10) logits in the dtype of the images (n, 1, 28, 28)."""
        logits: Tensor = self.network(x.to(torch.float32))
        return logits.to(x.dtype)


def mixture_models(mixture: MixtureDenoiser, fingerprint: str) -> Models:
    """Those of a mixture with classes."""
    posterior = PosteriorClassifier(mixture, fingerprint)
    return {"classifier": lambda: posterior, "noisy classifier": lambda: posterior}


def fashion_models(process: NoiseProcess, device: str) -> Models:
    """Those of the bundled network. No classifier of its noisy images is bundled."""
    return {
        "classifier": lambda: ImageClassifier(device),
        "minority classifier": lambda: bundled_minority_classifier(device),
        "weak model": lambda: bundled_weak_denoiser(process, device),
    }
