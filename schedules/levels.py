"""The levels of a run, from where the network is called and which calls begin a solver step."""

from collections.abc import Sequence

from fewstep.types import Level


def levels_of(
    nodes: Sequence[tuple[float, float, float]],
    begins: Sequence[bool],
    end: tuple[float, float] = (1.0, 0.0),
) -> list[Level]:
    """One level for each call; the calls of a step share its number and where it began.

    Args:
        nodes: (time, alpha, sigma) of the calls.
        begins: whether each is the first of its step. The first call of a run that is entered in
            the middle may be a later one of its step, and begins one all the same.
        end: (alpha, sigma) of the result.
    """
    after = [node[1:] for node in nodes[1:]] + [end]
    made: list[Level] = []
    for i, (node, (next_alpha, next_sigma)) in enumerate(zip(nodes, after, strict=True)):
        step, step_rho = 0, None
        if made:
            step = made[-1].step + begins[i]
            step_rho = None if begins[i] else made[-1].gate_rho
        made.append(Level(*node, i, next_sigma, next_alpha, step, step_rho))
    return made
