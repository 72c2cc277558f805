"""Noise processes to jump in, and Gaussian data whose flow is known."""

import torch
from gaussians import randn

from fewstep.samplers.gaussian.gaussian import GaussianFit
from fewstep.schedules import VE, ContinuousVP, Flow, discrete_vp

PROCESSES = {
    "vp": discrete_vp("linear"),
    "vp-continuous": ContinuousVP(),
    "ve": VE(0.002, 80.0),
    "flow": Flow(),
}
STDS = torch.linspace(0.3, 1.2, 6, dtype=torch.float64)
MEAN = torch.linspace(-1, 1, 6, dtype=torch.float64)


SHAPE = (2, 3, 4)
SPECTRUM = torch.linspace(0.2, 1.5, 24, dtype=torch.float64).flip(0)  # of 24 correlated elements


def rotation(d: int = 24, seed: int = 3) -> torch.Tensor:
    return torch.linalg.qr(randn(d, d, seed=seed))[0]


def diagonal_fit(stds: torch.Tensor = STDS, mean: torch.Tensor = MEAN) -> GaussianFit:
    """Independent elements."""
    none = torch.zeros(len(stds), 0, dtype=torch.float64)
    return GaussianFit((len(stds),), mean, stds**2, none, none[0])


def rmse(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).square().mean().sqrt())
