"""The least of a function of one DC-Solver ratio."""

from collections.abc import Callable

import numpy as np

from fewstep.schedules.process import Array

BOUNDS = (0.0, 2.0)  # of a ratio: from the previous output to as far ahead
RESOLUTION = 2e-3  # of a line search; the error is flat around its least value


def least_of_quartic(coefficients: Array) -> float:
    """Where a polynomial of degree 4 (or less) is least within ``BOUNDS``.

    Args:
        coefficients: (5,), the constant first.
    """
    low, high = BOUNDS
    slope = np.polynomial.polynomial.polytrim(np.polynomial.polynomial.polyder(coefficients))
    roots = [complex(root) for root in np.polynomial.polynomial.polyroots(slope)]
    inside = [r.real for r in roots if abs(r.imag) < 1e-9 and low <= r.real <= high]
    candidates = [1.0, *inside, low, high]  # in a tie, no change
    values = np.polynomial.polynomial.polyval(np.array(candidates), coefficients)
    return candidates[int(np.argmin(values))]


def line_search(
    error: Callable[[float], float], start: float, *, step: float = 0.2, calls: int = 10
) -> float:
    """The least of a function within ``BOUNDS`` near ``start``: bracketed, then by parabolas.

    Args:
        error: of a ratio.
        start: where to begin.
        step: first width of the bracket; it doubles while the least value is at its end.
        calls: of ``error``, at most.
    """
    low, high = BOUNDS
    centre = min(max(start, low + step), high - step)
    seen = {x: error(x) for x in {centre - step, centre, centre + step, start}}
    while len(seen) < calls:
        points = sorted(seen)
        best = min(points, key=seen.__getitem__)
        at = points.index(best)
        if at in (0, len(points) - 1) and low < best < high:
            step *= 2
            new = best + step if at else best - step
        else:
            middle = min(max(at, 1), len(points) - 2)
            new = _vertex(*((x, seen[x]) for x in points[middle - 1 : middle + 2]))
        new = min(max(new, low), high)
        if min(abs(new - x) for x in points) < RESOLUTION:
            break
        seen[new] = error(new)
    return min(seen, key=seen.__getitem__)


def _vertex(*points: tuple[float, float]) -> float:
    """Where the parabola through three points is level."""
    (a, f), (b, g), (c, h) = points
    p, q = (b - a) * (g - h), (b - c) * (g - f)
    if p == q:
        return b
    return b - ((b - a) * p - (b - c) * q) / (2 * (p - q))
