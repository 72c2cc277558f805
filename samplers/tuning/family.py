"""Which numbers of a tied table are free, and how they lie in one vector."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fewstep.samplers.tuning.tied import Tied
from fewstep.schedules.process import Array

Free = Literal["both", "grid", "coefficients"]
Rebuild = Callable[[tuple[float, ...]], Tied]
H = 1e-5  # step of central differences of a solver function, in a logit


@dataclass(frozen=True)
class Family:
    """The tables that differ from ``base`` in what is free.

    Nodes are the shares of the n gaps of ln rho between the start and the least trained level, as
    a softmax over n logits of which the last is 0: whatever the n - 1 logits, the nodes fall and
    stay within. A start without signal counts as 1 / rho_min. The first level and the end stay.

    Attributes:
        base: the table that it is about.
        free: ``"both"``, ``"grid"`` or ``"coefficients"``.
        band: how far back a step looks, in outputs before its own; None for all.
        rebuild: with ``free="grid"`` the solver, from n + 1 ratios to its table there; None leaves
            the coefficients of ``base`` as they are.

    Raises:
        ValueError: for another ``free``, a negative band, or a solver without ``free="grid"``.
    """

    base: Tied
    free: Free = "both"
    band: int | None = None
    rebuild: Rebuild | None = None

    def __post_init__(self) -> None:
        if self.free not in ("both", "grid", "coefficients"):
            raise ValueError(f"free must be 'both', 'grid' or 'coefficients', got {self.free!r}")
        if self.band is not None and self.band < 0:
            raise ValueError(f"band must be at least 0, or None for all, got {self.band}")
        if self.rebuild is not None and self.free != "grid":
            raise ValueError(f"a solver sets the coefficients of free='grid', not {self.free!r}")

    @property
    def nodes(self) -> int:
        """How many nodes are free."""
        return 0 if self.free == "coefficients" else self.base.nfe - 1

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """(i, j) of the free coefficients."""
        if self.free == "grid":
            return []
        n, reach = self.base.nfe, self.base.nfe if self.band is None else self.band
        return [(i, j) for i in range(n) for j in range(max(0, i - reach), i)]

    @property
    def size(self) -> int:
        """How many numbers are free."""
        return self.nodes + len(self.pairs)

    def vector(self, table: Tied) -> Array:
        """(size,) numbers of a table of the family; logits first, then coefficients.

        A node below the least trained level, which few fixed grids have, is moved just above it.
        """
        c = table.matrix()
        own = [c[i, j] for i, j in self.pairs]
        if not self.nodes:
            return np.array(own)
        top, bottom = self._ends()
        u = np.log(np.array(table.rho[1:-1]))
        floor = 1e-3 * (top - bottom) * np.arange(len(u), 0, -1) / len(u)
        u = np.minimum(np.maximum(u, bottom + floor), top - floor[::-1])
        gaps = -np.diff(np.concatenate([[top], u, [bottom]]))
        logits = np.log(np.maximum(gaps, 1e-9))
        return np.concatenate([logits[:-1] - logits[-1], own])

    def table(self, vector: Array) -> Tied:
        """The table of (size,) numbers."""
        rho = self.base.rho
        if self.nodes:
            rho = (rho[0], *np.exp(self.log_rho(vector)).tolist(), rho[-1])
        if self.rebuild is not None:
            return self.rebuild(rho)
        c = self.base.matrix() if self.free == "grid" else np.zeros((self.base.nfe,) * 2)
        for (i, j), value in zip(self.pairs, vector[self.nodes :], strict=True):
            c[i, j] = value
        return Tied.from_matrix(self.base.process, rho, c)

    def log_rho(self, vector: Array) -> Array:
        """(n - 1,) ln rho of the free nodes."""
        top, bottom = self._ends()
        logits = np.append(vector[: self.nodes], 0.0)
        shares = np.exp(logits - logits.max())
        return np.asarray(top - (top - bottom) * np.cumsum(shares / shares.sum())[:-1])

    @property
    def touched(self) -> list[tuple[int, int]]:
        """(i, j) of the coefficients that change when the numbers do."""
        every = [(i, j) for i in range(self.base.nfe) for j in range(i)]
        return self.pairs if self.rebuild is None else every

    def chain(self, vector: Array) -> Array:
        """(nodes + touched, size) derivatives of ln rho and of c by the numbers."""
        if self.rebuild is not None:
            return np.concatenate([self.slopes(vector), self._solver_slopes(vector)])
        whole = np.eye(self.size)
        whole[: self.nodes, : self.nodes] = self.slopes(vector)
        return whole

    def _solver_slopes(self, vector: Array) -> Array:
        """Derivatives of a solver's coefficients by the logits, by central differences."""
        columns = []
        for step in np.eye(self.size) * H:
            ends = [self.table(vector + sign * step).matrix() for sign in (1, -1)]
            columns.append([(ends[0] - ends[1])[i, j] / (2 * H) for i, j in self.touched])
        return np.array(columns).T.reshape(len(self.touched), self.size)

    def slopes(self, vector: Array) -> Array:
        """(n - 1, nodes) derivative of ln rho by the logits, in closed form.

        With shares p and their sums P, dP_k / dlogit_m = p_m ([m <= k] - P_k).
        """
        top, bottom = self._ends()
        logits = np.append(vector[: self.nodes], 0.0)
        p = np.exp(logits - logits.max())
        p /= p.sum()
        below = np.tri(self.nodes)
        return np.asarray(-(top - bottom) * p[:-1] * (below - np.cumsum(p)[:-1, None]))

    def _ends(self) -> tuple[float, float]:
        low = max(self.base.process.rho_min, self.base.rho[-1])
        high = min(self.base.rho[0], 1 / low)
        return float(np.log(high)), float(np.log(low))
