"""The bundled benchmark problems by name.

torch is imported when one is loaded; their names and what they are need nothing.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from io import BytesIO
from typing import TYPE_CHECKING, Literal

import numpy as np

from fewstep.schedules import VE, Flow, NoiseProcess, discrete_vp

if TYPE_CHECKING:
    from fewstep.eval.problems.problem import Problem

ProblemDtype = Literal["float32", "float16", "bfloat16"]  # of a pipeline's network
FORMS = (
    "a diffusers pipeline (its folder, or its hub id org/name), module:attribute, or "
    "path/file.py:attribute"
)


def _data(name: str) -> bytes:
    return (files("fewstep.eval") / "data" / name).read_bytes()


def _scaled_vp() -> NoiseProcess:
    """Stable Diffusion's schedule."""
    return discrete_vp("scaled_linear", beta_start=0.00085, beta_end=0.012)


def _linear_vp() -> NoiseProcess:
    """DDPM's schedule, betas 1e-4 to 0.02."""
    return discrete_vp("linear", beta_start=1e-4, beta_end=0.02)


def _mixture(name: str, device: str, file: str, noise_process: NoiseProcess) -> "Problem":
    import torch

    from fewstep.eval.common.cache import digest
    from fewstep.eval.problems.problem import Problem
    from fewstep.models.exact import MixtureDenoiser

    content = _data(file)
    values = json.loads(content)
    means, stds, weights = (
        torch.tensor(values[key], dtype=torch.float64) for key in ("means", "std", "weights")
    )
    denoiser = MixtureDenoiser(noise_process, means, stds, weights).to(device)
    return Problem(name, denoiser, denoiser.shape, digest([content]), device=device)


def _fashion_exact(name: str, device: str, noise_process: NoiseProcess) -> "Problem":
    """Bandwidth 0.2 around 4,000 images of 16x16: any smaller, and samples are training images."""
    import torch

    from fewstep.eval.common.cache import digest
    from fewstep.eval.problems.classifiers import mixture_models
    from fewstep.eval.problems.problem import Problem
    from fewstep.models.exact import MixtureDenoiser

    content = _data("fashion16.npz")
    with np.load(BytesIO(content)) as arrays:
        images = torch.from_numpy(arrays["images"]).double()[:, None] / 127.5 - 1
        labels = torch.from_numpy(arrays["labels"]).long()
    denoiser = MixtureDenoiser(noise_process, images, 0.2, labels=labels).to(device)
    fingerprint = digest([content])
    return Problem(
        name, denoiser, denoiser.shape, fingerprint, denoiser.num_classes,
        mixture_models(denoiser, fingerprint), device=device,
    )  # fmt: skip


def _fashion(name: str, device: str, noise_process: NoiseProcess) -> "Problem":
    from fewstep.eval.problems.classifiers import fashion_models
    from fewstep.eval.problems.problem import Problem
    from fewstep.models.bundled import bundled_denoiser, weights_sha256
    from fewstep.models.fashion import NUM_CLASSES

    denoiser = bundled_denoiser(noise_process, device)
    return Problem(
        name, denoiser, (1, 28, 28), weights_sha256(), NUM_CLASSES,
        fashion_models(noise_process, device), exact=False, device=device,
    )  # fmt: skip


@dataclass(frozen=True)
class Bundled:
    """An entry of ``PROBLEMS``: called with its name and a device, it is loaded.

    Attributes:
        summary: what it is, in one line.
        process: of its levels.
        load: the problem of a name, on a device, with that process.
    """

    summary: str
    process: Callable[[], NoiseProcess]
    load: "Callable[[str, str, NoiseProcess], Problem]"

    def __call__(self, name: str, device: str) -> "Problem":
        return self.load(name, device, self.process())


def _mix8(name: str, device: str, process: NoiseProcess) -> "Problem":
    return _mixture(name, device, "mix8.json", process)


def _ring2(name: str, device: str, process: NoiseProcess) -> "Problem":
    return _mixture(name, device, "ring2.json", process)


_MIX8, _RING2 = "exact mixture of Gaussians in 8 dimensions", "exact ring of Gaussians in the plane"
_EXACT = "exact mixture around 4,000 images of Fashion-MNIST, 16x16, with classes"
_NETWORK = "the bundled network of Fashion-MNIST, 28x28, with classes"
_SCALED, _LINEAR = "Stable Diffusion's schedule", "DDPM's schedule"
PROBLEMS: dict[str, Bundled] = {
    "mix8": Bundled(f"{_MIX8}; {_SCALED}", _scaled_vp, _mix8),
    "ring2": Bundled(f"{_RING2}; {_SCALED}", _scaled_vp, _ring2),
    "mix8-linear": Bundled(f"{_MIX8}; {_LINEAR}", _linear_vp, _mix8),
    "ring2-linear": Bundled(f"{_RING2}; {_LINEAR}", _linear_vp, _ring2),
    "mix8-flow": Bundled(f"{_MIX8}; a flow", Flow, _mix8),
    "fashion-exact": Bundled(f"{_EXACT}; {_LINEAR}", _linear_vp, _fashion_exact),
    "fashion-exact-scaled": Bundled(f"{_EXACT}; {_SCALED}", _scaled_vp, _fashion_exact),
    "fashion": Bundled(f"{_NETWORK}; {_LINEAR}", _linear_vp, _fashion),
    "fashion-edm": Bundled(f"{_NETWORK}; EDM's levels", lambda: VE(0.002, 80.0), _fashion),
}  # fmt: skip
