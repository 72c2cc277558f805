"""Time grids: which noise levels a sampler visits.

A grid of n calls has n nodes, where the network is called, and an end point. With ``final="zero"``
the end is sigma = 0 exactly; with ``"sigma_min"`` it is the least level of the process. Ratio grids
place ``rho = sigma / alpha`` (for a flow, whose ratio starts at infinity, sigma itself), time grids
place the network time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from fewstep.schedules.limits import check_calls
from fewstep.schedules.process import Array, DiscreteVP, Flow, NoiseProcess
from fewstep.schedules.published import PUBLISHED
from fewstep.schedules.rules import GRIDS, GridRule

__all__ = [
    "GRIDS",
    "NAMED_GRIDS",
    "Final",
    "Grid",
    "GridRule",
    "grid_from_rho",
    "grid_from_sigmas",
    "grid_from_times",
    "make_grid",
]

Final = Literal["zero", "sigma_min"]
MAX_POWER, MAX_SHIFT = 100.0, 1e6
NAMED_GRIDS: dict[str, GridRule] = {**GRIDS, **PUBLISHED}


@dataclass(frozen=True, eq=False)
class Grid:
    """n + 1 levels from the noisiest to the end: ``rho`` falls strictly, and so does lambda grow.

    Attributes:
        process: the noise process of the levels.
        rho: (n + 1,) noise-to-signal ratios; the first may be inf, the last may be 0.
        time: (n + 1,) network times; the last is not called.
        name: what made the grid, for printing.
        breaks: nodes at which the denoiser may jump: what it gave before them is of no use to a
            step from there on. :mod:`fewstep.schedules.breaks` puts nodes onto such levels.
    """

    process: NoiseProcess
    rho: Array
    time: Array
    name: str = "explicit"
    breaks: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if len(self.rho) < 2 or len(self.rho) != len(self.time):
            raise ValueError("a grid needs at least one node and an end, with a time for each")
        bad = np.flatnonzero(np.isnan(self.rho) | np.isnan(self.time))
        if len(bad):
            raise ValueError(
                f"the noise levels of a grid must be numbers; entries {bad.tolist()} are NaN: "
                "replace them, or drop them"
            )
        if np.any(self.rho[1:] >= self.rho[:-1]) or self.rho[-1] < 0:
            worst = int(np.argmax(self.rho[1:] >= self.rho[:-1]))
            raise ValueError(
                "the noise levels of a grid must fall strictly and not go below 0; entries "
                f"{worst} and {worst + 1} have sigma/alpha {self.rho[worst]:g} and "
                f"{self.rho[worst + 1]:g}: sort the levels, drop repeats, or use fewer calls"
            )

    @property
    def nfe(self) -> int:
        return len(self.rho) - 1

    def part(self, first: int, last: int) -> "Grid":
        """The levels from node ``first`` to node ``last``, which is the end."""
        levels = slice(first, last + 1)
        breaks = frozenset(b - first for b in self.breaks if first < b < last)
        return Grid(self.process, self.rho[levels], self.time[levels], self.name, breaks)

    def since(self, node: int) -> int:
        """The first node that a step from ``node`` may look back to."""
        return max((b for b in self.breaks if b <= node), default=0)

    @cached_property
    def alpha(self) -> Array:
        return self.process.from_rho(self.rho)[0]

    @cached_property
    def sigma(self) -> Array:
        return self.process.from_rho(self.rho)[1]

    @cached_property
    def lam(self) -> Array:
        """lambda = ln(alpha / sigma); -inf without signal, inf without noise."""
        with np.errstate(divide="ignore"):
            return -np.log(self.rho)


def check_settings(process: NoiseProcess, final: str, power: float, shift: float) -> None:
    """Passes settings that some grid of the process can have.

    Raises:
        ValueError: for an unknown end, or a power or shift out of its range.
    """
    if final not in ("zero", "sigma_min"):
        raise ValueError(f"final must be 'zero' or 'sigma_min', got {final!r}")
    if not 0 < power <= MAX_POWER:
        raise ValueError(f"power, of the Karras grid, must lie in (0, {MAX_POWER:g}], got {power}")
    if not 0 < shift <= MAX_SHIFT or (shift != 1 and not isinstance(process, Flow)):
        raise ValueError(
            f"shift must lie in (0, {MAX_SHIFT:g}], and be 1 unless the process is a flow; got "
            f"{shift}"
        )


def make_grid(
    process: NoiseProcess,
    n: int,
    name: str = "karras",
    *,
    final: Final = "zero",
    power: float = 7.0,
    shift: float = 1.0,
    terminal: float | None = None,
) -> Grid:
    """The grid ``name`` with n calls.

    Args:
        process: its range is covered.
        n: number of network calls, 1 to ``MAX_CALLS``.
        name: a key of ``NAMED_GRIDS``: a rule for every process, or a published list for one.
        final: end at ``"zero"`` noise, or at ``"sigma_min"`` of the process (shifted).
        power: of the Karras grid.
        shift: of flow models, > 0; 1 does nothing. Published lists have theirs in them.
        terminal: sigma of a flow's last node, in (0, 1): the others are stretched with it, linearly
            in sigma. Not of published lists.

    Returns:
        Its first node is ``rho_max`` (except "leading") and its end 0 or ``rho_min``, exactly.

    Raises:
        ValueError: for an argument out of its range, or a range that n calls cannot divide.
    """
    check_calls(n)
    if name not in NAMED_GRIDS:
        raise ValueError(f"unknown grid {name!r}; known: {', '.join(NAMED_GRIDS)}")
    check_settings(process, final, power, shift)
    rho = NAMED_GRIDS[name](process, n, n + (final == "sigma_min"), power)
    # Without a signal at the start the first node stays exactly there, whatever the rule's axis.
    rho = np.concatenate([[process.rho_max], rho[1:]]) if name != "leading" else rho
    rho = np.append(rho[:n], process.rho_min if final == "sigma_min" else 0.0)
    # sigma -> s sigma / (1 + (s - 1) sigma) (SD3, arXiv:2403.03206, eq. 23) scales rho of a flow.
    rho = rho if name in PUBLISHED else shift * rho
    if terminal is not None and n > 1 and name not in PUBLISHED:
        alpha = process.from_rho(rho[:n])[0]  # 1 - sigma
        alpha = alpha * (1 - terminal) / alpha[-1]
        with np.errstate(divide="ignore"):
            rho = np.append(1 / alpha - 1, rho[n])
    return grid_from_rho(process, rho, name)


def grid_from_rho(process: NoiseProcess, rho: Array, name: str = "explicit") -> Grid:
    """A grid of given ratios, end included; times follow from the process."""
    return Grid(process, np.asarray(rho, np.float64), process.time(rho), name)


def _numbers(what: str, values: Sequence[float]) -> Array:
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or not len(array) or np.isnan(array).any():
        raise ValueError(
            f"{what} must be a non-empty list of numbers without NaN, got {array.tolist()}: "
            "replace or drop the bad entries"
        )
    return array


def _within(what: str, values: Array, low: float, high: float) -> None:
    if values.min() < low or values.max() > high:
        raise ValueError(
            f"{what} must lie in [{low:g}, {high:g}] for this process, got {values.min():g} .. "
            f"{values.max():g}: clip them, or check their units"
        )


def grid_from_times(process: NoiseProcess, times: Sequence[float], end: float = 0.0) -> Grid:
    """A grid of given network times, falling, and the ratio of its end point.

    A trailing time without noise (0 of a flow, never of a VP table, whose time 0 has noise) is
    taken as the end point; otherwise ``end`` is appended.

    Raises:
        ValueError: for NaN, an empty list, times outside the process, or times that do not fall.
    """
    values = _numbers("timesteps", times)
    if isinstance(process, DiscreteVP):
        _within("timesteps", values, 0, process.num_train_timesteps - 1)
    elif isinstance(process, Flow):
        _within("timesteps", values, 0, process.num_train_timesteps)
    rho = process.rho(values)
    if len(rho) > 1 and rho[-1] == 0:
        return Grid(process, rho, values, "timesteps")
    return Grid(process, np.append(rho, end), np.append(values, process.time(end)), "timesteps")


def grid_from_sigmas(process: NoiseProcess, sigmas: Sequence[float], end: float = 0.0) -> Grid:
    """A grid of given levels: sigma of a flow or VE process, sigma / alpha of a VP process.

    A trailing 0 is taken as the end point; without it ``end`` (a ratio) is appended.

    Raises:
        ValueError: for NaN, an empty list, levels outside the process, or levels that do not fall.
    """
    values = _numbers("sigmas", sigmas)
    if isinstance(process, Flow):
        _within("sigmas", values, 0, 1)
        values = process.rho(values * process.num_train_timesteps)
    values = values if len(values) > 1 and values[-1] == 0 else np.append(values, end)
    return grid_from_rho(process, values, "sigmas")
