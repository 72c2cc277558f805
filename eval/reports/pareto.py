"""The Pareto front: points that no other point beats in cost and quality at once."""

import math
from collections.abc import Sequence


def pareto_front(costs: Sequence[float], losses: Sequence[float]) -> list[int]:
    """The points for which no other is as good in both and better in one, by rising cost.

    Equal points are all on the front or all off it; points with a nan are off.

    Args:
        costs: of each point; less is better.
        losses: as many; less is better, so quality comes with a minus.

    Returns:
        Indices of the points.

    Raises:
        ValueError: if there are not as many losses as costs.
    """
    if len(costs) != len(losses):
        raise ValueError(f"a point has a cost and a loss, got {len(costs)} and {len(losses)}")
    known = [i for i in range(len(costs)) if costs[i] == costs[i] and losses[i] == losses[i]]
    front: list[int] = []
    cheapest, best = math.nan, math.inf
    for i in sorted(known, key=lambda i: (costs[i], losses[i])):
        # Everything before costs as much or less, so only a smaller loss is new, or the same point.
        if not front or losses[i] < best or (losses[i] == best and costs[i] == cheapest):
            front.append(i)
            cheapest, best = costs[i], losses[i]
    return front
