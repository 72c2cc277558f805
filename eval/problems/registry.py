"""The bundled benchmark problems, and how a problem is loaded by name."""

import json
from collections.abc import Callable
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from fewstep.checks import named
from fewstep.eval.cache import digest
from fewstep.eval.problems.classifiers import fashion_models, mixture_models
from fewstep.eval.problems.problem import Problem
from fewstep.models.bundled import bundled_denoiser, weights_sha256
from fewstep.models.exact import MixtureDenoiser
from fewstep.models.fashion import NUM_CLASSES
from fewstep.samplers import given
from fewstep.schedules import VE, Flow, NoiseProcess, discrete_vp

ProblemDtype = Literal["float32", "float16", "bfloat16"]  # of a pipeline's network


def _data(name: str) -> bytes:
    return (files("fewstep.eval") / "data" / name).read_bytes()


def _scaled_vp() -> NoiseProcess:
    """Stable Diffusion's schedule."""
    return discrete_vp("scaled_linear", beta_start=0.00085, beta_end=0.012)


def _linear_vp() -> NoiseProcess:
    """DDPM's schedule, betas 1e-4 to 0.02."""
    return discrete_vp("linear", beta_start=1e-4, beta_end=0.02)


def _mixture(name: str, device: str, file: str, noise_process: NoiseProcess) -> Problem:
    content = _data(file)
    values = json.loads(content)
    means, stds, weights = (
        torch.tensor(values[key], dtype=torch.float64) for key in ("means", "std", "weights")
    )
    denoiser = MixtureDenoiser(noise_process, means, stds, weights).to(device)
    return Problem(name, denoiser, denoiser.shape, digest([content]), device=device)


def _fashion_exact(name: str, device: str, noise_process: NoiseProcess) -> Problem:
    """Bandwidth 0.2 around 4,000 images of 16x16: any smaller, and samples are training images."""
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


def _fashion(name: str, device: str, noise_process: NoiseProcess) -> Problem:
    denoiser = bundled_denoiser(noise_process, device)
    return Problem(
        name, denoiser, (1, 28, 28), weights_sha256(), NUM_CLASSES,
        fashion_models(noise_process, device), exact=False, device=device,
    )  # fmt: skip


PROBLEMS: dict[str, Callable[[str, str], Problem]] = {
    "mix8": lambda name, device: _mixture(name, device, "mix8.json", _scaled_vp()),
    "ring2": lambda name, device: _mixture(name, device, "ring2.json", _scaled_vp()),
    "mix8-linear": lambda name, device: _mixture(name, device, "mix8.json", _linear_vp()),
    "ring2-linear": lambda name, device: _mixture(name, device, "ring2.json", _linear_vp()),
    "mix8-flow": lambda name, device: _mixture(name, device, "mix8.json", Flow()),
    "fashion-exact": lambda name, device: _fashion_exact(name, device, _linear_vp()),
    "fashion-exact-scaled": lambda name, device: _fashion_exact(name, device, _scaled_vp()),
    "fashion": lambda name, device: _fashion(name, device, _linear_vp()),
    "fashion-edm": lambda name, device: _fashion(name, device, VE(0.002, 80.0)),
}  # fmt: skip


def load_problem(
    name: str,
    device: str = "cpu",
    *,
    prompts: Path | None = None,
    dtype: str = "float32",
) -> Problem:
    """A problem, its denoiser on ``device``.

    Prompts act as classes: of K, label i is prompt i, and the null class is the empty prompt, so
    guidance and the choice of labels work as for classes.

    Args:
        name: a key of ``PROBLEMS``; a diffusers pipeline, as a folder or as a hub id "org/name";
            ``module:attribute`` or ``path/file.py:attribute``, which is a problem, or a function
            that returns one and takes nothing, or a ``device``.
        device: a torch device.
        prompts: a text file, one a line, for text-to-image pipelines.
        dtype: of a pipeline's network, ``float32``, ``float16`` or ``bfloat16``; sampling stays in
            float32.

    Raises:
        ValueError: for an unknown name, or one that cannot be loaded, in one line.
        FileNotFoundError: if the bundled weights are missing, or the prompts.
    """
    if not isinstance(name, str | Path):
        raise TypeError(f"name must be that of a problem, as 'fashion', got {named(name)}")
    name = str(name)
    from fewstep.eval.problems.loading import (  # which make problems themselves
        load_other,
        refuse_settings,
    )

    given.check_place(device, None)
    if name not in PROBLEMS:
        return load_other(name, device, prompts, dtype)
    refuse_settings(name, prompts, dtype)
    return PROBLEMS[name](name, device)
