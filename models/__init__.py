"""Denoisers: around networks, in closed form, and the bundled one."""

if __name__ != "fewstep.models":
    raise ImportError(f"import fewstep.models, not {__name__}")

from fewstep.models.adapters import CallableDenoiser, DiffusersDenoiser, EDMDenoiser, to_data
from fewstep.models.bundled import bundled_classifier, bundled_denoiser
from fewstep.models.exact import GaussianDenoiser, MixtureDenoiser
from fewstep.models.ode import level_at, reference_solution

__all__ = [
    "CallableDenoiser",
    "DiffusersDenoiser",
    "EDMDenoiser",
    "GaussianDenoiser",
    "MixtureDenoiser",
    "bundled_classifier",
    "bundled_denoiser",
    "level_at",
    "reference_solution",
    "to_data",
]
