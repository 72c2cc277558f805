"""Mean and covariance of any number of feature vectors, in the memory of one d x d matrix.

:class:`ExactMoments` rounds each feature once, to a multiple of 1/scale, and adds integers from
then on. Its result is the same to the last bit for every order, batch size and number of processes.
:class:`Moments` adds in float64: no bounds, half the time, and equal to rounding only.

Both keep totals that simply add, of features and of their products, and not deviations from a
running mean: ``all_reduce`` with SUM over each tensor of :meth:`state` gives those of all ranks.
"""

import math
from abc import ABC, abstractmethod
from typing import Self

import torch
from torch import Tensor

from fewstep.eval.common.limits import LARGEST_FEATURE
from fewstep.eval.metrics.frechet import Array, as_features

# Products of this many rows at a time: of integers up to LARGEST_FEATURE they sum to 2^53 at most,
# up to which float64, and so its matrix product, is exact in any order.
ROWS = 128
# Columns of the products at a time, up to the diagonal: half the work, and small temporaries.
SLAB = 256
# int64 ends at 2^63; below it, room for the rounding of the mean in ExactMoments._centred.
LARGEST_TOTAL = 2**63 - 2**60


class _Totals(ABC):
    """n, sums (d,) and products (d, d), of which the blocks up to the diagonal are kept."""

    _dtype: torch.dtype

    def __init__(self, dim: int) -> None:
        if dim < 1:
            raise ValueError(f"dim must be at least 1, got {dim}; it is the size of a feature")
        self.dim, self.n = dim, 0
        self._sums = torch.zeros(dim, dtype=self._dtype)
        self._products = torch.zeros(dim, dim, dtype=self._dtype)

    def add(self, features: Array) -> None:
        """Takes in (n, d) features, n >= 0, of any floating dtype and device.

        Raises:
            ValueError: another shape, values that are not finite or too large, or totals that are;
                nothing of the batch is added then.
        """
        rows = as_features(features, least=0)
        if rows.shape[1] != self.dim:
            raise ValueError(f"features must be (n, {self.dim}), got {tuple(rows.shape)}")
        units = self._units(rows)
        self.n += len(units)
        self._sums += units.sum(0).to(self._dtype)
        for part in units.split(ROWS):
            for slab, upto in self._slabs():
                product = part[:, slab].T @ part[:, upto]
                self._products[slab, upto] += product.to(self._dtype)

    def merge(self, other: Self) -> None:
        """Adds the totals of other samples, of a process or an earlier run.

        Raises:
            ValueError: if they are of another size or rounding, or too large together.
        """
        self._check_other(other)
        self.n += other.n
        self._sums += other._sums
        self._products += other._products

    def result(self) -> tuple[Tensor, Tensor, int]:
        """Mean (d,), covariance (d, d) with divisor n - 1, exactly symmetric, both float64; and n.

        Raises:
            ValueError: with fewer than two samples, which have no covariance.
        """
        if self.n < 2:
            raise ValueError(f"statistics need at least 2 samples, got {self.n}; raise n")
        sigma = torch.empty(self.dim, self.dim, dtype=torch.float64)
        for slab, upto in self._slabs():
            block = self._centred(slab, upto) / (self.n - 1)
            sigma[slab, upto], sigma[upto, slab] = block, block.T
            sigma[slab, slab] = (sigma[slab, slab] + sigma[slab, slab].T) / 2
        return self._mean(), sigma, self.n

    def state(self) -> dict[str, Tensor]:
        """Copies of the totals; the states of two sets of samples add to that of both."""
        return {
            "n": torch.tensor(self.n),
            "sums": self._sums.clone(),
            "products": self._products.clone(),
        }

    def _restore(self, state: dict[str, Tensor]) -> None:
        if state["sums"].dtype != self._dtype:
            raise ValueError(f"{state['sums'].dtype} totals are not those of {type(self).__name__}")
        self.n = int(state["n"])
        self._sums.copy_(state["sums"])
        self._products.copy_(state["products"])

    def _slabs(self) -> list[tuple[slice, slice]]:
        """Rows of a block, and the columns up to its diagonal."""
        starts = range(0, self.dim, SLAB)
        return [(slice(i, i + SLAB), slice(0, min(i + SLAB, self.dim))) for i in starts]

    def _check_other(self, other: Self) -> None:
        if type(other) is not type(self) or other.dim != self.dim:
            raise ValueError(
                f"cannot merge {type(other).__name__} of dim {other.dim} into "
                f"{type(self).__name__} of dim {self.dim}; use one extractor and one accumulator"
            )

    @abstractmethod
    def _units(self, rows: Tensor) -> Tensor:
        """What is added for these rows, in float64. Raises ValueError if it does not fit."""

    @abstractmethod
    def _mean(self) -> Tensor: ...

    @abstractmethod
    def _centred(self, slab: slice, upto: slice) -> Tensor:
        """Block of the sum of products about the mean."""


class Moments(_Totals):
    """Totals in float64.

    The covariance loses the digits of (mean / standard deviation)^2: 1e-16 times that, relatively.

    Args:
        dim: d >= 1, size of a feature.
    """

    _dtype = torch.float64

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> Self:
        """Totals from what :meth:`state` gave, or from the sum of several such."""
        moments = cls(len(state["sums"]))
        moments._restore(state)
        return moments

    def _units(self, rows: Tensor) -> Tensor:
        return rows

    def _mean(self) -> Tensor:
        return self._sums / self.n

    def _centred(self, slab: slice, upto: slice) -> Tensor:
        return self._products[slab, upto] - torch.outer(self._sums[slab], self._sums[upto] / self.n)


class ExactMoments(_Totals):
    """Totals in int64 of features rounded to multiples of 1/scale (ties to even).

    115,000 samples fit if all lie at ``bound``, 30 million at a sixteenth of it; more raise.

    Args:
        dim: d >= 1, size of a feature.
        scale: a power of two. It belongs to the extractor: statistics of two scales differ by the
            rounding, and totals of two scales do not merge.
        bound: largest |feature|, with scale * bound <= 2^23.

    Raises:
        ValueError: if scale and bound do not fit.
    """

    _dtype = torch.int64

    def __init__(self, dim: int, scale: float = 2**20, bound: float = 8.0) -> None:
        super().__init__(dim)
        if not 0 < bound < math.inf:
            raise ValueError(f"bound must be above 0 and finite, got {bound}")
        is_power = 0 < scale < math.inf and math.frexp(scale)[0] == 0.5
        if not is_power or scale * bound > LARGEST_FEATURE:
            raise ValueError(
                f"scale must be a power of two with scale * bound <= 2**23, got scale={scale} and "
                f"bound={bound}; for this bound use scale={_largest_scale(bound)}"
            )
        self.scale, self.bound = scale, bound

    @classmethod
    def from_state(cls, state: dict[str, Tensor], scale: float = 2**20, bound: float = 8.0) -> Self:
        """Totals from what :meth:`state` gave, or from the sum of several such.

        Raises:
            ValueError: if a sum of states has overflowed, or was scaled or added otherwise.
        """
        moments = cls(len(state["sums"]), scale, bound)
        moments._restore(state)
        squares = moments.state()["squares"]
        if not torch.allclose(squares, state["squares"], rtol=1e-9, atol=0):
            raise ValueError(
                f"the totals do not match their squares at scale={scale}: they are of another "
                "scale, were not all added, or their sum overflowed (then use a smaller scale)"
            )
        return moments

    def state(self) -> dict[str, Tensor]:
        """With the diagonal in float64, which tells of integers that overflow in ``all_reduce``."""
        return {**super().state(), "squares": self._squares() / self.scale**2}

    def _squares(self) -> Tensor:
        return self._products.diagonal().double()

    def _units(self, rows: Tensor) -> Tensor:
        largest = float(rows.abs().max()) if len(rows) else 0.0
        if largest > self.bound:
            bound = 2.0 ** math.ceil(math.log2(largest))
            raise ValueError(
                f"a feature of size {largest:g} is beyond bound={self.bound:g}; use "
                f"ExactMoments({self.dim}, scale={_largest_scale(bound)}, bound={bound}) for all "
                "statistics of this extractor"
            )
        units = (rows * self.scale).round()
        self._check_total(float((self._squares() + units.square().sum(0)).max()))
        return units

    def _check_other(self, other: Self) -> None:
        super()._check_other(other)
        if other.scale != self.scale:
            raise ValueError(f"cannot merge totals of the scales {self.scale} and {other.scale}")
        self._check_total(float((self._squares() + other._squares()).max()))

    def _check_total(self, largest: float) -> None:
        # No product is larger than the larger of its two squares.
        if largest > LARGEST_TOTAL:
            raise ValueError(
                f"the sum of squares would pass {LARGEST_TOTAL:.3g} after {self.n} samples, the "
                f"limit of int64; use ExactMoments({self.dim}, scale={self.scale / 4}, "
                f"bound={self.bound}) or Moments({self.dim})"
            )

    def _mean(self) -> Tensor:
        return self._sums.double() / self.n / self.scale

    def _centred(self, slab: slice, upto: slice) -> Tensor:
        # With s = n m + r, m and r integers: sum (q - m)(q - m)' = sum q q' - m s' - r m' is an
        # integer below the sum of squares, and what remains, r r' / n, is small.
        whole = torch.div(self._sums, self.n, rounding_mode="floor")
        rest = self._sums - self.n * whole
        about = self._products[slab, upto] - torch.outer(whole[slab], self._sums[upto])
        about -= torch.outer(rest[slab], whole[upto])
        small = torch.outer(rest[slab].double(), rest[upto].double() / self.n)
        return (about.double() - small) / self.scale**2


def _largest_scale(bound: float) -> float:
    return 2.0 ** math.floor(math.log2(LARGEST_FEATURE / bound))
