r"""Errors in features as well as in samples, as residuals of a least-squares objective.

With d elements of a sample x, m features f(x), a weight w and a scale s, the residual of an end is

    r = [sqrt(1 - w) (x - x*) / sqrt(d),  sqrt(w) s (f(x) - f(x*)) / sqrt(m)],

so that |r|^2 = (1 - w) e_x + w s^2 e_f with e_x and e_f the mean square errors of samples and of
features. It is a difference of two lifted points, so Gauss-Newton applies as it does to samples.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fewstep.samplers.tuning.batches import parts
from fewstep.samplers.tuning.pairs import Pairs

Features = Callable[[Tensor], Tensor]
SAMPLES = 512  # in a call of the features


@dataclass(frozen=True)
class FeatureSpace:
    """Where errors are measured: in features, or in both.

    Attributes:
        features: from samples (n, ...) to (n, ...) features, each row from its sample alone;
            without gradients.
        weight: w, above 0 to 1, the share of the features; 1 leaves the samples out.
        scale: s > 0, by which feature errors are multiplied to count like sample errors; see
            :func:`feature_scale`.
        batch: most samples in a call of the features.

    Raises:
        ValueError: for values outside these.
    """

    features: Features
    weight: float = 1.0
    scale: float = 1.0
    batch: int = SAMPLES

    def __post_init__(self) -> None:
        if not 0 < self.weight <= 1:
            raise ValueError(
                f"the weight of features must lie above 0 and at most at 1, got {self.weight}: "
                "for samples alone leave the features out"
            )
        if not (self.scale > 0 and math.isfinite(self.scale)) or self.batch < 1:
            raise ValueError(
                f"features need a finite scale > 0 and a batch >= 1, got {self.scale} and "
                f"{self.batch}"
            )

    def lift(self, x: Tensor) -> Tensor:
        """(n, D) coordinates in float64, of which the mean square difference is |r|^2."""
        return self._joined(x, features_of(self.features, x, self.batch))

    def columns(self, x: Tensor, tangents: Tensor) -> Tensor:
        """(p, n, D) derivatives of :meth:`lift` at (n, ...) samples along (p, n, ...) tangents.

        Those of the features are differences, [f(x + t dx) - f(x)] / t, with t such that t dx is
        eps^0.4 times the size of the sample: features without gradients will do.
        """
        before = features_of(self.features, x, self.batch)
        moved = before.new_zeros(len(tangents), *before.shape, dtype=torch.float64)
        axes = tuple(range(1, x.ndim))
        eps = max(torch.finfo(x.dtype).eps, torch.finfo(before.dtype).eps)
        size = x.double().square().mean(axes, keepdim=True).sqrt()
        for k, tangent in enumerate(tangents):
            length = tangent.double().square().mean(axes, keepdim=True).sqrt()
            t = math.pow(eps, 0.4) * size / length.clamp_min(1e-30)
            there = features_of(self.features, x + (t * tangent).to(x), self.batch)
            moved[k] = (there.double() - before.double()) / t.reshape(-1, 1)
        joined = self._joined(tangents.flatten(0, 1), moved.flatten(0, 1))
        return joined.view(*tangents.shape[:2], -1)

    def pairs(self, pairs: Pairs) -> Pairs:
        """The same starts with lifted ends, which are then computed once."""
        return replace(pairs, end=self.lift(pairs.end))

    def _joined(self, x: Tensor, features: Tensor) -> Tensor:
        """(n, D) the two parts of r times sqrt(D), since means over D are taken of it."""
        x = x.double().flatten(1)
        found = [features.double() * (self.scale * math.sqrt(self.weight / features.shape[1]))]
        if self.weight < 1:
            found.append(x * math.sqrt((1 - self.weight) / x.shape[1]))
        joined = torch.cat(found, 1)
        return joined * math.sqrt(joined.shape[1])


def features_of(features: Features, x: Tensor, batch: int = SAMPLES) -> Tensor:
    """(n, m) features of (n, ...) samples, in calls of at most ``batch``.

    Raises:
        ValueError: if they have no row for each sample.
    """
    made = torch.cat([features(x[rows]).flatten(1) for rows in parts(x, batch)])
    if len(made) != len(x):
        raise ValueError(
            f"features must have a row for each sample, got {tuple(made.shape)} for {len(x)}"
        )
    return made


def feature_scale(features: Features, end: Tensor, goal: Tensor) -> float:
    """The scale with which both errors of a start count alike: sqrt(e_x / e_f).

    Args:
        features: as of :class:`FeatureSpace`.
        end: (n, ...) samples of the start, of which those that are not finite are left out.
        goal: (n, ...) samples it should come to.

    Raises:
        ValueError: if there is no error in features.
    """
    kept = end.flatten(1).isfinite().all(1)
    end, goal = end[kept], goal[kept]
    apart = features_of(features, end).double() - features_of(features, goal).double()
    e_x = float((end - goal).double().square().mean())
    e_f = float(apart.square().mean())
    if not e_f > 0 or not math.isfinite(e_f):
        raise ValueError(
            f"the mean square error of the start in features is {e_f}: tune in samples, or with "
            "features that tell its samples from the teacher's"
        )
    return math.sqrt(e_x / e_f)
