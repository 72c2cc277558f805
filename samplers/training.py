"""The forward process on tensors: noise for training, image-to-image and inpainting."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from fewstep.schedules.process import VE, ContinuousVP, DiscreteVP, Flow, NoiseProcess


def training_tables(process: NoiseProcess) -> dict[str, Tensor]:
    """What pipelines read off a scheduler of discrete training times; nothing for the others."""
    if not isinstance(process, DiscreteVP):
        return {}
    products, alphas = np.asarray(process.alphas_cumprod), process.alphas
    tables = {"alphas_cumprod": products, "alphas": alphas, "betas": 1 - alphas}
    return {name: torch.tensor(table, dtype=torch.float32) for name, table in tables.items()}


def levels_at(process: NoiseProcess, times: Tensor) -> tuple[Tensor, Tensor]:
    """(alpha, sigma) at network times, of their shape, dtype and device.

    Never reads from the device: the process is a formula, or a table of ln(alpha) kept there.
    """
    if isinstance(process, Flow):
        sigma = times / process.num_train_timesteps
        return 1 - sigma, sigma
    if isinstance(process, VE):
        inverse = {
            "sigma": lambda t: t,
            "log": lambda t: (4 * t).exp(),
            "atan": lambda t: (t * (torch.pi / 2)).tan(),
        }
        sigma = inverse[process.time_is](times)
        return torch.ones_like(sigma), sigma
    if isinstance(process, ContinuousVP):
        t = times / process.time_scale
        slope = process.beta_max - process.beta_min
        return _preserving(-t.square() * (slope / 4) - t * (process.beta_min / 2))
    if not isinstance(process, DiscreteVP):
        raise TypeError(f"no training noise for a {type(process).__name__} process")
    count = process.num_train_timesteps
    table = _log_alphas(process, times.dtype, times.device)
    low = times.floor().clamp(0, count - 2).long()
    part = (times - low).clamp(0, 1)
    left, right = table[low], table[low + 1]
    # Towards a level without signal alpha itself is interpolated, as the process does.
    mixed = torch.where(right.isinf(), left + torch.log1p(-part), torch.lerp(left, right, part))
    # lerp(left, -inf, 0) is not a number.
    return _preserving(torch.where(part == 0, left, mixed))


@lru_cache(maxsize=16)
def _log_alphas(process: DiscreteVP, dtype: torch.dtype, device: torch.device) -> Tensor:
    """ln(alpha) at the training times; uploading it anew for each batch would stall the device."""
    with np.errstate(divide="ignore"):
        logs = np.log(process.alpha_sigma(np.arange(process.num_train_timesteps))[0])
    with torch.inference_mode(False):  # since training may use it next
        return torch.tensor(logs, dtype=dtype, device=device)


def _preserving(log_alpha: Tensor) -> tuple[Tensor, Tensor]:
    return log_alpha.exp(), (-torch.expm1(2 * log_alpha)).sqrt()


def noisy(process: NoiseProcess, clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """alpha_t clean + sigma_t noise, computed in float32 at least.

    Args:
        process: what the times belong to.
        clean: (n, ...) samples; the result has their dtype.
        noise: unit noise of their shape.
        times: (n,) or scalar network times, integers or floats.
    """
    dtype = torch.promote_types(clean.dtype, torch.float32)
    times = times.to(device=clean.device).reshape(-1).to(dtype)
    shape = (-1,) + (1,) * (clean.ndim - 1)
    alpha, sigma = (level.view(shape) for level in levels_at(process, times))
    return (alpha * clean + sigma * noise).to(clean.dtype)


class TrainingNoise:
    """The forward process of a scheduler, under the names that diffusers has for it."""

    @property
    def process(self) -> NoiseProcess:
        raise NotImplementedError

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """alpha_t x0 + sigma_t noise in training time: (n,) integer or float network times."""
        return noisy(self.process, original_samples, noise, torch.as_tensor(timesteps))

    def scale_noise(
        self, sample: Tensor, timestep: Tensor | float, noise: Tensor | None = None
    ) -> Tensor:
        """``add_noise`` under the name and argument order of diffusers' flow schedulers."""
        if noise is None:
            raise ValueError("scale_noise needs noise=")
        return self.add_noise(sample, noise, torch.as_tensor(timestep))
