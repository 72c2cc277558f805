"""Which numbers of a tied table are free, and how they lie in one vector."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from fewstep.samplers.tuning.tied import Tied
from fewstep.schedules.breaks import TOLERANCE
from fewstep.schedules.process import Array

Free = Literal["both", "grid", "coefficients"]
Rebuild = Callable[[tuple[float, ...]], Tied]
H = 1e-5  # step of central differences of a solver function, in a logit


@dataclass(frozen=True)
class Family:
    """The tables that differ from ``base`` in what is free.

    Nodes are the shares of the gaps of ln rho between the start and the least trained level, as a
    softmax over logits of which the last is 0: whatever the logits, the nodes fall and stay within.
    A start without signal counts as 1 / rho_min. The first level and the end stay, and so does a
    node on a breakpoint; the gaps on either side of it then have a softmax of their own.

    Attributes:
        base: the table that it is about.
        free: ``"both"``, ``"grid"`` or ``"coefficients"``.
        band: how far back a step looks, in outputs before its own; None for all.
        rebuild: with ``free="grid"`` the solver, from n + 1 ratios to its table there; None leaves
            the coefficients of ``base`` as they are.
        breakpoints: ratios where the denoiser may jump, across which no step looks back.

    Raises:
        ValueError: for another ``free``, a negative band, or a solver without ``free="grid"``.
    """

    base: Tied
    free: Free = "both"
    band: int | None = None
    rebuild: Rebuild | None = None
    breakpoints: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.free not in ("both", "grid", "coefficients"):
            raise ValueError(f"free must be 'both', 'grid' or 'coefficients', got {self.free!r}")
        if self.band is not None and self.band < 0:
            raise ValueError(f"band must be at least 0, or None for all, got {self.band}")
        if self.rebuild is not None and self.free != "grid":
            raise ValueError(f"a solver sets the coefficients of free='grid', not {self.free!r}")

    @property
    def nodes(self) -> int:
        """How many nodes lie between the ends, if any is free."""
        return 0 if self.free == "coefficients" else self.base.nfe - 1

    @cached_property
    def segments(self) -> list[tuple[int, int]]:
        """First and last node of each part of the nodes that has a softmax of its own."""
        if self.free == "coefficients":
            return []
        marks = [0, *breaks_of(self.base, self.breakpoints), self.base.nfe]
        return list(itertools.pairwise(marks))

    @cached_property
    def pairs(self) -> list[tuple[int, int]]:
        """(i, j) of the free coefficients."""
        return [] if self.free == "grid" else free_pairs(self.base, self.band, self.breakpoints)

    @property
    def size(self) -> int:
        """How many numbers are free."""
        return self._logits + len(self.pairs)

    @property
    def _logits(self) -> int:
        return sum(last - first - 1 for first, last in self.segments)

    def vector(self, table: Tied) -> Array:
        """(size,) numbers of a table of the family; logits first, then coefficients.

        A node below the least trained level, which few fixed grids have, is moved just above it.
        """
        c, u = table.matrix(), self._marks(table)
        logits = []
        for first, last in self.segments:
            inner, top, bottom = u[first + 1 : last], u[first], u[last]
            floor = 1e-3 * (top - bottom) * np.arange(len(inner), 0, -1) / (len(inner) + 1)
            inner = np.minimum(np.maximum(inner, bottom + floor), top - floor[::-1])
            gaps = np.log(np.maximum(-np.diff([top, *inner, bottom]), 1e-9))
            logits.append(gaps[:-1] - gaps[-1])
        return np.concatenate([*logits, [c[i, j] for i, j in self.pairs]])

    def table(self, vector: Array) -> Tied:
        """The table of (size,) numbers."""
        rho = self.base.rho
        if self.nodes:
            moved = np.exp(self.log_rho(vector))
            for _, last in self.segments[:-1]:
                moved[last - 1] = rho[last]  # bit for bit
            rho = (rho[0], *moved.tolist(), rho[-1])
        if self.rebuild is not None:
            return self.rebuild(rho)
        c = self.base.matrix()
        if self.free != "grid":
            c[:] = 0
        for (i, j), value in zip(self.pairs, vector[self._logits :], strict=True):
            c[i, j] = value
        return self.base.moved(rho, c)

    def log_rho(self, vector: Array) -> Array:
        """(n - 1,) ln rho of the nodes between the ends."""
        u, at = self._marks(self.base), 0
        for first, last in self.segments:
            shares = self._shares(vector[at : at + last - first - 1])
            u[first + 1 : last] = u[first] - (u[first] - u[last]) * np.cumsum(shares)[:-1]
            at += last - first - 1
        return np.asarray(u[1:-1])

    @property
    def touched(self) -> list[tuple[int, int]]:
        """(i, j) of the coefficients that change when the numbers do."""
        return self.pairs if self.rebuild is None else free_pairs(self.base)

    def chain(self, vector: Array) -> Array:
        """(nodes + touched, size) derivatives of ln rho and of c by the numbers."""
        if self.rebuild is not None:
            return np.concatenate([self.slopes(vector), self._solver_slopes(vector)])
        whole = np.zeros((self.nodes + len(self.pairs), self.size))
        whole[: self.nodes, : self._logits] = self.slopes(vector)
        whole[self.nodes :, self._logits :] = np.eye(len(self.pairs))
        return whole

    def _solver_slopes(self, vector: Array) -> Array:
        """Derivatives of a solver's coefficients by the logits, by central differences."""
        columns = []
        for step in np.eye(self.size) * H:
            ends = [self.table(vector + sign * step).matrix() for sign in (1, -1)]
            columns.append([(ends[0] - ends[1])[i, j] / (2 * H) for i, j in self.touched])
        return np.array(columns).T.reshape(len(self.touched), self.size)

    def slopes(self, vector: Array) -> Array:
        """(nodes, logits) derivative of ln rho by the logits, in closed form.

        With shares p of a segment and their sums P, dP_k / dlogit_m = p_m ([m <= k] - P_k).
        """
        u, at = self._marks(self.base), 0
        whole = np.zeros((self.nodes, self._logits))
        for first, last in self.segments:
            k = last - first - 1
            p = self._shares(vector[at : at + k])
            slope = p[:-1] * (np.tri(k) - np.cumsum(p)[:-1, None])
            whole[first : last - 1, at : at + k] = -(u[first] - u[last]) * slope
            at += k
        return whole

    @staticmethod
    def _shares(logits: Array) -> Array:
        """Softmax of the logits and a last one of 0."""
        whole = np.append(logits, 0.0)
        whole = np.exp(whole - whole.max())
        return np.asarray(whole / whole.sum())

    def _marks(self, table: Tied) -> Array:
        """(n + 1,) ln rho of a table's nodes; the outer ones at the ends of what nodes may have."""
        low = max(table.process.rho_min, table.rho[-1])
        high = min(table.rho[0], 1 / low)
        return np.asarray(np.log(np.array([high, *table.rho[1:-1], low])))


def breaks_of(table: Tied, breakpoints: Sequence[float]) -> list[int]:
    """Nodes between the ends that lie on a breakpoint."""
    near = [any(abs(rho / b - 1) <= TOLERANCE for b in breakpoints) for rho in table.rho[1:-1]]
    return [i for i, on in enumerate(near, 1) if on]


def free_pairs(
    table: Tied, band: int | None = None, breakpoints: Sequence[float] = ()
) -> list[tuple[int, int]]:
    """(i, j) of the coefficients that may be other than 0.

    Args:
        table: its number of steps and of outputs above.
        band: how far back a step looks; None for all.
        breakpoints: across which it does not look back.
    """
    above, pairs = len(table.history), []
    breaks = breaks_of(table, breakpoints)
    for i in range(table.nfe):
        since = max((above + b for b in breaks if b <= i), default=0)
        since = since if band is None else max(since, above + i - band)
        pairs += [(i, j) for j in range(since, above + i)]
    return pairs
