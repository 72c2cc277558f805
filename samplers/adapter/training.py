"""The forward process on tensors: noise for training, image-to-image and inpainting."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep.samplers.adapter import settings
from fewstep.schedules.diffusers.spacing import shift_from_config, shift_sigmas
from fewstep.schedules.process import VE, ContinuousVP, DiscreteVP, Flow, NoiseProcess


def training_tables(process: NoiseProcess) -> dict[str, Tensor]:
    """What pipelines read off a scheduler of discrete training times; nothing for the others."""
    if not isinstance(process, DiscreteVP):
        return {}
    products, alphas = np.asarray(process.alphas_cumprod), process.alphas
    tables = {"alphas_cumprod": products, "alphas": alphas, "betas": 1 - alphas}
    return {name: torch.tensor(table, dtype=torch.float32) for name, table in tables.items()}


def training_levels(process: NoiseProcess, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """``timesteps`` and ``sigmas`` before ``set_timesteps``, and the tables: one level a time.

    They are the network times of training, falling. Those of a flow are 1 .. N, shifted as the
    config says, since training scripts draw from them by index.

    Args:
        process: of the config.
        config: of one of our schedulers, as it is now.
    """
    count = int(config["num_train_timesteps"])
    if isinstance(process, Flow):
        even = np.arange(count, 0, -1) / count
        fixed = {**settings.view(config), "use_dynamic_shifting": False}
        # Dynamic shifting knows its shift only when an image has a size.
        shift = 1.0 if config["use_dynamic_shifting"] else shift_from_config(fixed)
        levels = shift_sigmas(even, shift)
        times = levels * process.num_train_timesteps
    else:
        first, last = process.time([process.rho_max, process.rho_min])
        times = np.linspace(float(first), float(last), count)
        levels = process.rho(times)
    tables = training_tables(process)
    return {
        "timesteps": torch.tensor(times, dtype=torch.float32),
        "sigmas": torch.tensor(levels, dtype=torch.float32),
        **tables,
    }


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
    alpha, sigma = _levels_for(process, clean, times)
    return (alpha * clean + sigma * noise).to(clean.dtype)


def _levels_for(process: NoiseProcess, samples: Tensor, times: Tensor) -> list[Tensor]:
    """[alpha, sigma] in float32 at least, of a shape that multiplies ``samples``."""
    dtype = torch.promote_types(samples.dtype, torch.float32)
    times = times.to(device=samples.device).reshape(-1).to(dtype)
    shape = (-1,) + (1,) * (samples.ndim - 1)
    return [level.view(shape) for level in levels_at(process, times)]


class TrainingNoise:
    """The forward process of a scheduler, under the names that diffusers has for it."""

    @property
    def process(self) -> NoiseProcess:
        raise NotImplementedError

    def _check_tables(self) -> None:
        """Refuses tables of the process that were written to."""

    def _first_level(self, times: Tensor, batch: int) -> tuple[float, float] | None:
        """(alpha, sigma) of the first call, if noise at these times is what a run starts from."""
        return None

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """alpha_t x0 + sigma_t noise, at network times.

        Between ``set_timesteps`` and the first ``step``, times that are the entry of
        ``set_begin_index`` (or, from pipelines that do not call it, another than the first entry,
        copied and repeated for each sample) make the start of an image-to-image run. On an
        automatic grid the run then starts at the noise level that the config's own grid has at that
        entry, and ``timesteps`` and ``sigmas`` from there on are written anew, in place, so that
        slices of them see it. A grid that was named, and levels that were passed, stay.

        Args:
            original_samples: (n, ...) samples.
            noise: unit noise of their shape.
            timesteps: (n,) or scalar network times, integers or floats.

        Returns:
            Samples of the dtype of ``original_samples``.

        Raises:
            ValueError: if the tables of the training process were written to.
        """
        self._check_tables()
        times = torch.as_tensor(timesteps)
        level = self._first_level(times, len(original_samples))
        if level is None:
            return noisy(self.process, original_samples, noise, times)
        dtype = torch.promote_types(original_samples.dtype, torch.float32)
        made = original_samples.to(dtype) * level[0] + noise.to(dtype) * level[1]
        return made.to(original_samples.dtype)

    def get_velocity(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What a velocity network is trained to predict at network times.

        alpha noise - sigma x0 of a variance preserving process (arXiv:2202.00512, appendix D), and
        noise - x0 of a flow (arXiv:2209.03003).

        Args:
            sample: (n, ...) data x0.
            noise: unit noise of their shape.
            timesteps: (n,) or scalar network times, integers or floats.

        Returns:
            Velocities of the shape and dtype of ``sample``.

        Raises:
            ValueError: for a variance exploding process, which has no velocity.
        """
        if isinstance(self.process, Flow):
            return noise - sample
        if isinstance(self.process, VE):
            raise ValueError(
                "a variance exploding process has no velocity to train on: its networks predict "
                "noise or data"
            )
        self._check_tables()
        alpha, sigma = _levels_for(self.process, sample, torch.as_tensor(timesteps))
        return (alpha * noise - sigma * sample).to(sample.dtype)

    def scale_noise(
        self, sample: Tensor, timestep: Tensor | float, noise: Tensor | None = None
    ) -> Tensor:
        """``add_noise`` under the name and argument order of diffusers' flow schedulers."""
        if noise is None:
            raise ValueError("scale_noise needs noise=")
        return self.add_noise(sample, noise, torch.as_tensor(timestep))
