"""What tuning lowers: a robust mean of the end's errors over samples."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep.samplers.tuning.batches import rows_of
from fewstep.samplers.tuning.family import Family
from fewstep.samplers.tuning.rollout import Calls, jacobian, run
from fewstep.samplers.tuning.teacher import Teacher
from fewstep.samplers.tuning.tied import Tied
from fewstep.schedules.process import Array


@dataclass(frozen=True)
class Pairs:
    """Starts and the ends they should come to.

    Attributes:
        start: (n, ...) x / sigma at the first level.
        end: (n, ...) samples.
        cond: of the samples.
    """

    start: Tensor
    end: Tensor
    cond: Any = None

    @classmethod
    def of(cls, teacher: Teacher) -> "Pairs":
        return cls(teacher.start, teacher.end, teacher.cond)

    def __len__(self) -> int:
        return len(self.start)

    def part(self, rows: slice) -> "Pairs":
        return Pairs(self.start[rows], self.end[rows], rows_of(self.cond, rows))


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
    """

    pairs: Pairs
    power: float = 1.0
    floor: float = 1e-12

    def squares(self, denoiser: Calls, table: Tied) -> Tensor:
        """(n,) mean square errors in float64; inf where a run is not finite."""
        end = run(denoiser, table, self.pairs.start, self.pairs.cond).end
        squares = (end - self.pairs.end).double().flatten(1).square().mean(1)
        return torch.nan_to_num(squares, nan=torch.inf, posinf=torch.inf)

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
            batch: most samples in a network call.
        """
        rows = max(1, batch // max(1, family.nodes + len(family.touched)))
        matrix, gradient = np.zeros((family.size,) * 2), np.zeros(family.size)
        for first in range(0, len(self.pairs), rows):
            part = self.pairs.part(slice(first, first + rows))
            end, columns = jacobian(denoiser, family, vector, part.start, part.cond)
            error = (end - part.end).double().flatten(1)
            weights = (error.square().mean(1) + self.floor).pow(-self.power / 2)
            root = weights.sqrt()[:, None]
            J = (columns.double().flatten(2) * root).flatten(1)
            matrix += (J @ J.T).cpu().numpy()
            gradient += (J @ (error * root).flatten()).cpu().numpy()
        return matrix, gradient
