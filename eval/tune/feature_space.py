"""Features in which tuned samples may be compared with the teacher's, beside the samples."""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from fewstep.eval.problems import Problem
from fewstep.eval.problems.user_code import imported, told_of
from fewstep.models.bundled import bundled_classifier
from fewstep.samplers.tuning.feature_objective import Features, FeatureSpace, feature_scale

Kind = Literal["sample", "features", "both"]
BUNDLED = "fashion"
WEIGHT = 0.5  # of features beside samples
FORMS = f"{BUNDLED!r}, module:function or path/file.py:function"


def load_features(name: str, problem: Problem) -> Features:
    """Features of a problem's samples, which are decoded first if they are latents.

    Args:
        name: ``"fashion"``: the 64 features of the bundled classifier, those of FD-fashion, of
            images cut to [-1, 1] but not rounded to 8 bits, which would have no derivative; or
            ``module:function`` or ``path/file.py:function``, a function from images (n, c, h, w)
            in about [-1, 1] to features (n, ...), each row from its image alone.
        problem: whose samples they are of.

    Raises:
        ValueError: for another name, images of another size, or a function that cannot be had.
    """
    if name == BUNDLED:
        made = _bundled(problem)
    elif all(name.rpartition(":")):
        made = _imported(name)
    else:
        raise ValueError(f"unknown features {name!r}: give {FORMS}")

    @torch.no_grad()
    def features(x: Tensor) -> Tensor:
        return made(problem.images(x))

    return features


def objective_space(
    kind: Kind,
    features: Features | None,
    end: Tensor,
    goal: Tensor,
    weight: float = WEIGHT,
) -> FeatureSpace | None:
    """Where an objective measures errors; None for samples.

    Args:
        kind: ``"sample"``, ``"features"`` or ``"both"``.
        features: from :func:`load_features`; None with ``"sample"``.
        end: (n, ...) what the start of tuning comes to on the tuning noises; feature errors are
            scaled so that they are as large as sample errors there.
        goal: (n, ...) the teacher's ends.
        weight: of the features with ``"both"``, between 0 and 1.

    Raises:
        ValueError: for another kind or weight, or features that do not go with it.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"the objective must be one of {', '.join(get_args(Kind))}, got {kind!r}")
    if (features is None) != (kind == "sample"):
        raise ValueError(
            f"objective {kind!r} {'needs' if features is None else 'takes no'} features"
        )
    if features is None:
        return None
    if kind == "both" and not 0 < weight < 1:
        raise ValueError(
            f"the weight of features beside samples must lie between 0 and 1, got {weight}: for "
            "one of them alone say 'features' or 'sample'"
        )
    scale = feature_scale(features, end, goal)
    return FeatureSpace(features, weight if kind == "both" else 1.0, scale)


def _bundled(problem: Problem) -> Callable[[Tensor], Tensor]:
    if problem.image_shape != (1, 28, 28):
        raise ValueError(
            f"features {BUNDLED!r} are of images (1, 28, 28), those of {problem.name} are "
            f"{problem.image_shape}: name a function of your own, module:function"
        )
    network = bundled_classifier(problem.device)
    return lambda images: network.features(images.float().clamp(-1, 1))


def _imported(name: str) -> Callable[[Tensor], Tensor]:
    with imported(name) as (module, attribute):
        found = getattr(module, attribute, None)
    if not callable(found):
        raise ValueError(
            f"{name}: there is no function {attribute!r}; name one from images (n, c, h, w) to "
            "features (n, ...)"
        )

    def made(images: Tensor) -> Tensor:
        with told_of(name, "calling it"):
            features = found(images)
        if not isinstance(features, Tensor) or features.shape[:1] != images.shape[:1]:
            shown = tuple(features.shape) if isinstance(features, Tensor) else type(features)
            raise ValueError(
                f"{name} must return features (n, ...) with a row for each of {len(images)} "
                f"images, got {shown}"
            )
        return features

    return made
