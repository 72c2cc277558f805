"""The forward process on tensors: noise for training, image-to-image and inpainting."""

import numpy as np
import torch
from torch import Tensor

from fewstep.schedules.process import VE, DiscreteVP, Flow, NoiseProcess

_POINTS = 4096  # of a process whose times are continuous; ln(alpha) is smooth in between


def levels_at(process: NoiseProcess, times: Tensor) -> tuple[Tensor, Tensor]:
    """(alpha, sigma) at network times, of their shape, dtype and device.

    Never reads from the device: the process is a formula, or a table of ln(alpha) that moves there.
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
    start, end = np.sort(process.time([process.rho_min, process.rho_max])).tolist()
    count = process.num_train_timesteps if isinstance(process, DiscreteVP) else _POINTS
    with np.errstate(divide="ignore"):
        logs = np.log(process.alpha_sigma(np.linspace(start, end, count))[0])
    table = torch.tensor(logs, dtype=times.dtype, device=times.device)
    place = (times - start) * ((count - 1) / (end - start))
    low = place.floor().clamp(0, count - 2).long()
    part = (place - low).clamp(0, 1)
    left, right = table[low], table[low + 1]
    # Towards a level without signal alpha itself is interpolated, as the process does.
    mixed = torch.where(right.isinf(), left + torch.log1p(-part), torch.lerp(left, right, part))
    # lerp(left, -inf, 0) is not a number.
    log_alpha = torch.where(part == 0, left, mixed)
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
