"""What a tuner compares: starts, and the ends they should come to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fewstep.samplers.gaussian.gaussian import Gaussian, level_of
from fewstep.samplers.tuning.batches import rows_of
from fewstep.samplers.tuning.teacher import Teacher


@dataclass(frozen=True)
class Pairs:
    """Starts and the ends they should come to.

    Attributes:
        start: (n, ...) x / sigma at the first level.
        end: (n, ...) samples.
        cond: of the samples.
        virtual: (n, ...) each, data predictions of a Gaussian above the first level.
    """

    start: Tensor
    end: Tensor
    cond: Any = None
    virtual: tuple[Tensor, ...] = ()

    @classmethod
    def of(cls, teacher: Teacher) -> "Pairs":
        return cls(teacher.start, teacher.end, teacher.cond)

    @classmethod
    def landed(
        cls,
        teacher: Teacher,
        fit: Gaussian,
        landing: float,
        history: Sequence[float] = (),
        labels: Tensor | None = None,
    ) -> "Pairs":
        """From where a Gaussian takes the teacher's starts, and what it predicts on the way.

        Args:
            teacher: its starts and ends.
            fit: one Gaussian, or one for each class.
            landing: sigma / alpha of the new start.
            history: ratios above it.
            labels: (n,) classes, for fits by class.
        """
        process = teacher.process
        first, at = level_of(process, teacher.rho[0]), level_of(process, landing)
        x = fit.jump(teacher.start * first.sigma, first, at, labels)
        virtual = []
        for level in (level_of(process, rho) for rho in history):
            virtual.append(fit.denoise(fit.jump(x, at, level, labels), level, labels))
        return cls(x / at.sigma, teacher.end, teacher.cond, tuple(virtual))

    def __len__(self) -> int:
        return len(self.start)

    def part(self, rows: slice) -> "Pairs":
        virtual = tuple(data[rows] for data in self.virtual)
        return Pairs(self.start[rows], self.end[rows], rows_of(self.cond, rows), virtual)
