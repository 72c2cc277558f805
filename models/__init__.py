"""Denoisers: around networks, in closed form, and the bundled ones; and scores of rarity.

A denoiser is a function of a noisy sample, a level and a condition that returns the clean sample it
expects, with a noise process as ``.process``. Read exact.py (denoisers without a network), then
adapters.py (around your network). The rooms:

- adapters, prediction: from what a network predicts to the clean sample.
- exact, ode: data known in closed form, and solutions as fine as one likes.
- bundled, fashion, classifier, data: a Fashion-MNIST network that comes with the package, its
  classifier, and the images.
- minority, rarity: how rare a sample is to a model.
- training: how the bundled networks were trained.
"""

from typing import TYPE_CHECKING

if __name__ != "fewstep.models":
    raise ImportError(f"import fewstep.models, not {__name__}")

from fewstep.late import door

if TYPE_CHECKING:
    from fewstep.models.adapters import CallableDenoiser as CallableDenoiser
    from fewstep.models.adapters import DiffusersDenoiser as DiffusersDenoiser
    from fewstep.models.adapters import EDMDenoiser as EDMDenoiser
    from fewstep.models.bundled import bundled_classifier as bundled_classifier
    from fewstep.models.bundled import bundled_denoiser as bundled_denoiser
    from fewstep.models.bundled import bundled_minority_classifier as bundled_minority_classifier
    from fewstep.models.bundled import bundled_weak_denoiser as bundled_weak_denoiser
    from fewstep.models.data import CLASS_NAMES as CLASS_NAMES
    from fewstep.models.data import fashion_folder as fashion_folder
    from fewstep.models.data import load_fashion as load_fashion
    from fewstep.models.data import to_signed as to_signed
    from fewstep.models.exact import GaussianDenoiser as GaussianDenoiser
    from fewstep.models.exact import MixtureDenoiser as MixtureDenoiser
    from fewstep.models.minority import expected_class as expected_class
    from fewstep.models.minority import minority_score as minority_score
    from fewstep.models.minority import ordinal_classes as ordinal_classes
    from fewstep.models.ode import level_at as level_at
    from fewstep.models.ode import reference_solution as reference_solution
    from fewstep.models.prediction import to_data as to_data
    from fewstep.models.rarity import EDMClassifier as EDMClassifier
else:
    __getattr__, __dir__, __all__ = door(__name__)
