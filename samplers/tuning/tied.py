r"""The tied family: a grid, and coefficients that keep every step exact for constant data.

With rho = sigma / alpha and D_j the data prediction at node j, step i is, in x / alpha,

    x_{i+1} = r x_i + (1 - r) S_i,    r = rho_{i+1} / rho_i,
    S_i = D_i + sum_{j<i} c_ij (D_j - D_i).

A constant D is solved exactly whatever c is, so tuning c cannot spoil what is easy. The family has
n - 1 nodes and n (n - 1) / 2 coefficients free: 14 numbers at n = 5, 35 at n = 8. It is
DSS's with a diagonal of 1 - rest, and it holds every deterministic multistep solver: see
:func:`fewstep.samplers.tuning.flatten.flatten`.

A table that starts at the landing of a jump may also look back at what a Gaussian, not the network,
predicts at levels above (:mod:`fewstep.samplers.gaussian.warm`): the sum then goes over these
outputs too.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fewstep.samplers.core.ops import Evaluation, Op
from fewstep.samplers.core.plan import Plan
from fewstep.samplers.core.run import levels
from fewstep.schedules.process import Array, NoiseProcess
from fewstep.types import Level


@dataclass(frozen=True)
class Tied:
    """Nodes and coefficients of one table.

    Attributes:
        process: the noise process.
        rho: n + 1 ratios sigma / alpha that fall strictly; the first may be inf, the last, which
            is the end, may be 0.
        c: n rows; row i has h + i finite numbers, the weights of D_j - D_i in step i, those of the
            outputs above first.
        history: h ratios above the first one, falling, at which a Gaussian predicts the data.
        landed: whether a Gaussian's jump leads to the first ratio.

    Raises:
        ValueError: for ratios that do not fall, or coefficients of another number or not finite.
    """

    process: NoiseProcess
    rho: tuple[float, ...]
    c: tuple[tuple[float, ...], ...]
    history: tuple[float, ...] = ()
    landed: bool = False

    def __post_init__(self) -> None:
        falls = all(a > b for a, b in itertools.pairwise((*self.history, *self.rho)))
        if len(self.rho) < 2 or not falls or not self.rho[-1] >= 0:
            raise ValueError(
                f"a tied table needs at least 2 ratios that fall strictly to 0 or above, got "
                f"{(*self.history, *self.rho)}: sort them, and drop repeats"
            )
        sizes, first = [len(row) for row in self.c], len(self.history)
        if sizes != list(range(first, first + self.nfe)):
            raise ValueError(
                f"row i of c needs {first} + i numbers for i = 0 .. {self.nfe - 1}, got rows of "
                f"{sizes}"
            )
        if not all(math.isfinite(value) for row in self.c for value in row):
            raise ValueError(f"the coefficients of a tied table must be finite, got {self.c}")

    @property
    def nfe(self) -> int:
        """Network calls."""
        return len(self.rho) - 1

    @classmethod
    def from_matrix(
        cls, process: NoiseProcess, rho: Sequence[float], c: Array, history: Sequence[float] = (),
        landed: bool = False,
    ) -> "Tied":  # fmt: skip
        """From ratios and a matrix (n, h + n) of which row i gives its first h + i numbers."""
        above, first = tuple(float(v) for v in history), len(history)
        rows = tuple(tuple(float(v) for v in row[: first + i]) for i, row in enumerate(c))
        return cls(process, tuple(float(v) for v in rho), rows, above, landed)

    def moved(self, rho: Sequence[float], c: Array) -> "Tied":
        """The table with other nodes and coefficients."""
        return self.from_matrix(self.process, rho, c, self.history, self.landed)

    def weights(self) -> Array:
        """(n, h + n) float64; row i has the weights of the outputs up to D_i in S_i; sums are 1."""
        matrix = self.matrix()
        for i, row in enumerate(self.c):
            matrix[i, len(row)] = 1 - sum(row)
        return matrix

    def matrix(self) -> Array:
        """(n, h + n) float64 with the rows of c, and zeros behind them."""
        matrix = np.zeros((self.nfe, len(self.history) + self.nfe))
        for i, row in enumerate(self.c):
            matrix[i, : len(row)] = row
        return matrix

    def transfers(self) -> list[tuple[float, float]]:
        """(a, b) of every step in x_{i+1} = a x_i + b S_i."""
        alpha, sigma = self.process.from_rho(np.array(self.rho))
        pairs = []
        for i in range(self.nfe):
            r = 0.0 if math.isinf(self.rho[i]) else self.rho[i + 1] / self.rho[i]
            pairs.append((float(sigma[i + 1] / sigma[i]), float(alpha[i + 1]) * (1 - r)))
        return pairs

    def levels(self) -> list[Level]:
        """Where the network is called."""
        return levels(self.plan(), len(self.history))

    def plan(self, name: str = "tied") -> Plan:
        """The table for ``sample``, a scheduler or a file: one op ``x <- a x + sum w_j H[j]``.

        Rows of history only push their output; ``provenance["history"]`` is their number.
        """
        rho, first = np.array((*self.history, *self.rho)), len(self.history)
        alpha, sigma = self.process.from_rho(rho)
        time = self.process.time(rho[:-1])
        ops = [Op("x", c_x=1.0)] * first
        for i, ((a, b), weights) in enumerate(zip(self.transfers(), self.weights(), strict=True)):
            ops.append(Op("x", c_x=a, w=tuple(float(b * w) for w in weights[first + i :: -1])))
        rows = tuple(
            Evaluation(float(time[k]), float(alpha[k]), float(sigma[k]), ops=(op,))
            for k, op in enumerate(ops)
        )
        return Plan(
            rows, (float(alpha[-1]), float(sigma[-1])), self.process.identity(), name,
            {"landing": self.rho[0], "history": first} if self.landed else {},
        )  # fmt: skip
