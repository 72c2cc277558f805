"""Denoisers: around networks, in closed form, and the bundled ones; and scores of rarity."""

from typing import TYPE_CHECKING

if __name__ != "fewstep.models":
    raise ImportError(f"import fewstep.models, not {__name__}")

from fewstep.late import late

if TYPE_CHECKING:
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

_NAMES = {
    "adapters": ("CallableDenoiser", "DiffusersDenoiser", "EDMDenoiser", "to_data"),
    "bundled": (
        "bundled_classifier", "bundled_denoiser", "bundled_minority_classifier",
        "bundled_weak_denoiser",
    ),
    "exact": ("GaussianDenoiser", "MixtureDenoiser"),
    "minority": ("minority_score", "ordinal_classes"),
    "ode": ("level_at", "reference_solution"),
    "rarity": ("EDMClassifier",),
}  # fmt: skip
_HOMES = {name: f"{__name__}.{module}" for module, names in _NAMES.items() for name in names}
__getattr__, __dir__ = late(__name__, _HOMES)
