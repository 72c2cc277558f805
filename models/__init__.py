"""Denoisers: around networks, in closed form, and the bundled ones; and scores of rarity."""

if __name__ != "fewstep.models":
    raise ImportError(f"import fewstep.models, not {__name__}")

from fewstep.models.adapters import CallableDenoiser, DiffusersDenoiser, EDMDenoiser, to_data
from fewstep.models.bundled import (
    bundled_classifier,
    bundled_denoiser,
    bundled_minority_classifier,
    bundled_weak_denoiser,
)
from fewstep.models.exact import GaussianDenoiser, MixtureDenoiser
from fewstep.models.minority import minority_score, ordinal_classes
from fewstep.models.ode import level_at, reference_solution
from fewstep.models.rarity import EDMClassifier

__all__ = [
    "CallableDenoiser",
    "DiffusersDenoiser",
    "EDMClassifier",
    "EDMDenoiser",
    "GaussianDenoiser",
    "MixtureDenoiser",
    "bundled_classifier",
    "bundled_denoiser",
    "bundled_minority_classifier",
    "bundled_weak_denoiser",
    "level_at",
    "minority_score",
    "ordinal_classes",
    "reference_solution",
    "to_data",
]
