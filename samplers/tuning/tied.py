r"""The tied family: a grid, and coefficients that keep every step exact for constant data.

With rho = sigma / alpha and D_j the data prediction at node j, step i is, in x / alpha,

    x_{i+1} = r x_i + (1 - r) S_i,    r = rho_{i+1} / rho_i,
    S_i = D_i + sum_{j<i} c_ij (D_j - D_i).

A constant D is solved exactly whatever c is, so tuning c cannot spoil what is easy. The family has
n - 1 nodes and n (n - 1) / 2 coefficients free: 14 numbers at n = 5, 35 at n = 8. It is
DSS's with a diagonal of 1 - rest, and it holds every deterministic multistep solver: see
:func:`fewstep.samplers.tuning.flatten.flatten`.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fewstep.samplers.plan import Evaluation, Op, Plan
from fewstep.schedules.process import Array, NoiseProcess


@dataclass(frozen=True)
class Tied:
    """Nodes and coefficients of one table.

    Attributes:
        process: the noise process.
        rho: n + 1 ratios sigma / alpha that fall strictly; the first may be inf, the last, which
            is the end, may be 0.
        c: n rows; row i has i finite numbers, c[i][j] the weight of D_j - D_i in step i.

    Raises:
        ValueError: for ratios that do not fall, or coefficients of another number or not finite.
    """

    process: NoiseProcess
    rho: tuple[float, ...]
    c: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        falls = all(a > b for a, b in itertools.pairwise(self.rho))
        if len(self.rho) < 2 or not falls or not self.rho[-1] >= 0:
            raise ValueError(
                f"a tied table needs at least 2 ratios that fall strictly to 0 or above, got "
                f"{self.rho}: sort them, and drop repeats"
            )
        sizes = [len(row) for row in self.c]
        if sizes != list(range(self.nfe)):
            raise ValueError(
                f"row i of c needs i numbers for i = 0 .. {self.nfe - 1}, got rows of {sizes}"
            )
        if not all(math.isfinite(value) for row in self.c for value in row):
            raise ValueError(f"the coefficients of a tied table must be finite, got {self.c}")

    @property
    def nfe(self) -> int:
        """Network calls."""
        return len(self.rho) - 1

    @classmethod
    def from_matrix(cls, process: NoiseProcess, rho: Sequence[float], c: Array) -> "Tied":
        """From ratios and a matrix (n, n) of which the part below the diagonal is read."""
        rows = tuple(tuple(float(v) for v in c[i, :i]) for i in range(len(rho) - 1))
        return cls(process, tuple(float(v) for v in rho), rows)

    def weights(self) -> Array:
        """(n, n) float64; row i holds the weights of D_0 .. D_i in S_i, which sum to 1."""
        matrix = np.zeros((self.nfe, self.nfe))
        for i, row in enumerate(self.c):
            matrix[i, :i] = row
            matrix[i, i] = 1 - sum(row)
        return matrix

    def matrix(self) -> Array:
        """(n, n) float64 with c below the diagonal and zeros elsewhere."""
        return np.tril(self.weights(), -1)

    def transfers(self) -> list[tuple[float, float]]:
        """(a, b) of every step in x_{i+1} = a x_i + b S_i."""
        alpha, sigma = self.process.from_rho(np.array(self.rho))
        pairs = []
        for i in range(self.nfe):
            r = 0.0 if math.isinf(self.rho[i]) else self.rho[i + 1] / self.rho[i]
            pairs.append((float(sigma[i + 1] / sigma[i]), float(alpha[i + 1]) * (1 - r)))
        return pairs

    def plan(self, name: str = "tied") -> Plan:
        """The table for ``sample``, a scheduler or a file: one op ``x <- a x + sum w_j H[j]``."""
        rho = np.array(self.rho)
        alpha, sigma = self.process.from_rho(rho)
        time = self.process.time(rho[:-1])
        rows = []
        for i, ((a, b), weights) in enumerate(zip(self.transfers(), self.weights(), strict=True)):
            op = Op("x", c_x=a, w=tuple(float(b * w) for w in weights[i::-1]))
            level = float(time[i]), float(alpha[i]), float(sigma[i])
            rows.append(Evaluation(*level, ops=(op,)))
        end = float(alpha[-1]), float(sigma[-1])
        return Plan(tuple(rows), end, self.process.identity(), name)
