"""The best n jumps through m fine nodes, by dynamic programming.

Every tuned grid that is a choice among fine nodes is the same problem: a cost C[i, j] of the jump
from node i to node j, and a path 0 = s_0 < s_1 < ... < s_n = m - 1 of least total cost. Costs are
made by :mod:`fewstep.samplers.tuning.klub` and :mod:`fewstep.samplers.tuning.jumps`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from fewstep.schedules.grids import Grid
from fewstep.schedules.process import Array


@dataclass(frozen=True)
class Path:
    """The best path with a given number of jumps.

    Attributes:
        nodes: (n + 1,) of them, rising from 0 to m - 1.
        total: its cost, discounted if it was searched so.
    """

    nodes: tuple[int, ...]
    total: float


def best_path(cost: ArrayLike, n: int, *, discount: float = 1.0) -> Path:
    """The path from the first to the last node with exactly n jumps and the least total cost.

    V_j(k) = min over i > j of C[j, i] + gamma V_i(k - 1) is the cost to go from node j in k jumps
    (GITS, arXiv:2405.11326, as in its code): jump number k counts gamma^k, from 0, so
    gamma > 1 spends the jumps near the end and gamma < 1 near the start. Of equal costs the first
    jump is the shortest.

    Args:
        cost: (m, m), m >= 2; entries on and below the diagonal are not read, inf forbids a jump.
        n: jumps, 1 .. m - 1.
        discount: gamma, > 0.

    Raises:
        ValueError: for arguments outside these, NaN, or if inf leaves no path.
    """
    table = np.array(cost, np.float64)
    if table.ndim != 2 or table.shape[0] != table.shape[1] or len(table) < 2:
        raise ValueError(f"costs need the shape (m, m) with m >= 2, got {table.shape}")
    last = len(table) - 1
    if not 1 <= n <= last:
        raise ValueError(f"a path through {last + 1} nodes has 1 to {last} jumps, got {n}")
    if not discount > 0 or not np.isfinite(discount):
        raise ValueError(f"the discount must be a number > 0, got {discount}; 1 is none")
    table[np.tril_indices(last + 1)] = np.inf
    if np.isnan(table).any() or np.isneginf(table).any():
        raise ValueError("the costs have NaN or -inf entries: are the predictions finite?")
    value = np.append(np.full(last, np.inf), 0.0)
    choices = []
    for _ in range(n):
        through = table + discount * value
        choices.append(through.argmin(axis=1))
        value = through.min(axis=1)
    if not np.isfinite(value[0]):
        raise ValueError(f"no path of {n} jumps avoids the forbidden ones: allow more, or change n")
    nodes = [0]
    for choice in reversed(choices):
        nodes.append(int(choice[nodes[-1]]))
    return Path(tuple(nodes), float(value[0]))


def path_cost(cost: ArrayLike, nodes: Sequence[int], *, discount: float = 1.0) -> float:
    """The total cost of a given path, as :func:`best_path` counts it."""
    table = np.asarray(cost, np.float64)
    jumps = table[list(nodes[:-1]), list(nodes[1:])]
    return float(jumps @ discount ** np.arange(len(jumps)))


def path_grid(fine: Grid, path: Path, *, end: float | None = 0.0, name: str = "dp") -> Grid:
    """The grid of a path through the levels of a fine grid; every solver takes it.

    Args:
        fine: m levels, its end among them.
        path: through its levels.
        end: the ratio sigma / alpha that replaces the last level, below the one before: 0 as in
            most grids, or None for the last level of ``fine``.
        name: what to call it.

    Raises:
        ValueError: if the path is not one through ``fine``, or ``end`` does not lie below.
    """
    if path.nodes[-1] != fine.nfe:
        raise ValueError(
            f"the path ends at node {path.nodes[-1]} and the fine grid at {fine.nfe}: pass the "
            "grid that its costs were computed on"
        )
    keep = list(path.nodes)
    rho, time = fine.rho[keep], fine.time[keep]
    if end is not None:
        rho[-1], time[-1] = end, float(fine.process.time(end))
    return Grid(fine.process, rho, time, name)


def rounded_path(fine: Grid, rho: Array) -> tuple[int, ...]:
    """The nodes of a fine grid that lie nearest, in ln(rho), to given levels; ends to ends.

    Raises:
        ValueError: if two levels fall on one node.
    """
    if len(rho) < 2:
        raise ValueError(f"a path needs at least 2 levels, got {len(rho)}")
    with np.errstate(divide="ignore"):
        own, given = np.log(fine.rho[1:-1]), np.log(np.asarray(rho, np.float64)[1:-1])
    inside = 1 + np.abs(own[None] - given[:, None]).argmin(axis=1)
    nodes = (0, *inside.tolist(), fine.nfe)
    if len(set(nodes)) < len(nodes):
        raise ValueError(f"{len(nodes)} levels fall on {len(set(nodes))} nodes: use a finer grid")
    return nodes
