"""What tuning lowers: a robust mean of the end's errors over samples."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fewstep.samplers.tuning.batches import parts
from fewstep.samplers.tuning.family import Family
from fewstep.samplers.tuning.feature_objective import FeatureSpace
from fewstep.samplers.tuning.pairs import Pairs
from fewstep.samplers.tuning.rollout import Calls, jacobian, run_table
from fewstep.samplers.tuning.tied import Tied
from fewstep.schedules.process import Array


@dataclass(frozen=True)
class Objective:
    """The mean over samples of (e + d)^(1 - power / 2), with e the mean square error of one.

    power = 0 is the mean square, which the few samples that end in another mode decide; power = 1
    the mean of sqrt(e + d), to which such a sample adds its distance, not the square. d, the
    median of e at the start of tuning, keeps it smooth.

    Attributes:
        pairs: noises and ends.
        power: 0 to 1.
        floor: d, > 0.
        space: where errors are measured, with pairs whose ends it lifted; None for samples.
    """

    pairs: Pairs
    power: float = 1.0
    floor: float = 1e-12
    space: FeatureSpace | None = None

    def squares(self, denoiser: Calls, table: Tied) -> Tensor:
        """(n,) mean square errors in float64; inf where a run is not finite."""
        end = run_table(denoiser, table, self.pairs).end
        return squares_of(end if self.space is None else self.space.lift(end), self.pairs)

    def loss(self, squares: Tensor) -> float:
        """The robust mean with power and d undone: a root mean square, that of equal errors."""
        share = 1 - self.power / 2
        mean = math.pow(float((squares + self.floor).pow(share).mean()), 1 / share)
        return math.sqrt(max(0.0, mean - self.floor))

    def normal(
        self, denoiser: Calls, family: Family, vector: Array, batch: int
    ) -> tuple[Array, Array]:
        """Gauss-Newton's matrix (p, p) and gradient (p,) at a vector, in float64.

        Samples weigh (e + d)^(-power / 2), which makes the gradient that of the robust mean.

        Args:
            denoiser: counts calls.
            family: of the vector.
            vector: (p,) numbers.
            batch: samples that are differentiated at once; each has a tangent for every number.
        """
        matrix, gradient = np.zeros((family.size,) * 2), np.zeros(family.size)
        for rows in parts(self.pairs.start, batch):
            part = self.pairs.part(rows)
            more = self.products(*jacobian(denoiser, family, vector, part), part)
            matrix, gradient = matrix + more[0], gradient + more[1]
        return matrix, gradient

    def products(self, end: Tensor, columns: Tensor, part: Pairs) -> tuple[Array, Array]:
        """The share of some samples in the matrix (p, p) and the gradient (p,).

        Args:
            end: (n, ...) what a run came to.
            columns: (p, n, ...) its derivatives.
            part: the samples.
        """
        if self.space is not None:
            columns, end = self.space.columns(end, columns), self.space.lift(end)
        error = (end - part.end).double().flatten(1)
        weights = (error.square().mean(1) + self.floor).pow(-self.power / 2)
        root = weights.sqrt()[:, None]
        J = (columns.double().flatten(2) * root).flatten(1)
        return (J @ J.T).cpu().numpy(), (J @ (error * root).flatten()).cpu().numpy()


def squares_of(end: Tensor, pairs: Pairs) -> Tensor:
    """(n,) mean square errors in float64 of (n, ...) ends; inf where they are not finite."""
    squares = (end - pairs.end).double().flatten(1).square().mean(1)
    return torch.nan_to_num(squares, nan=torch.inf, posinf=torch.inf)


def floor_of(squares: Tensor) -> float:
    """d of :class:`Objective` from the squares at the start of tuning."""
    return max(float(squares.median()), 1e-12 * float(squares.mean()) + 1e-30)
