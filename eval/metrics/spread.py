"""How much a score would change with other samples, from one set of them.

A score of n samples is a random number. Its standard deviation from one set of n to another is the
jackknife's: the samples fall into blocks at random, each block is left out in turn, and with v_i
the score of the others::

    sd^2 = (B - 1)/B sum_i (v_i - mean v)^2

Two samplers that started from the same noise leave out the same samples, so that the spread of
their *difference* comes from the differences of their v_i: much of it is common to both.

The jackknife is too large rather than too small: of a Frechet distance, 1.4 times where there are
as many samples as features, 1.3 times at four times as many (of 60 Gaussian sets each).

Reference: Efron and Stein 1981, Annals of Statistics 9:586.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

BLOCKS = 20
FEWEST = 10  # samples; of fewer a spread would be a guess


def random_blocks(n: int, seed: int = 0) -> "tuple[Tensor, ...]":
    """Indices 0 .. n - 1 in 20 random blocks, or in n of one if there are fewer than 40.

    They depend on n and the seed alone, so that sets of one size are cut alike.
    """
    import torch

    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return order.tensor_split(BLOCKS if n >= 2 * BLOCKS else n)


def replicates(
    rows: "Tensor", estimate: "Callable[[Tensor], float]", *, seed: int = 0
) -> list[float]:
    """The estimate without each block in turn.

    Args:
        rows: (n, ...), one a sample, n >= 2.
        estimate: of some of the rows.
        seed: of the blocks.
    """
    import torch

    blocks = random_blocks(len(rows), seed)
    return [
        estimate(rows[torch.cat(blocks[:i] + blocks[i + 1 :])]) for i in range(len(blocks))
    ]  # fmt: skip


def deviation(values: Sequence[float]) -> float:
    """The standard deviation that replicates tell; see the module."""
    mean, share = fmean(values), (len(values) - 1) / len(values)
    return math.sqrt(share * math.fsum((value - mean) ** 2 for value in values))


def student(freedom: int) -> float:
    """97.5 % quantile of Student's t: 12.7 of one degree of freedom, 2.26 of nine.

    Exact for one and two, as two and three repeats have; the series for more is 0.7 % too small at
    three, and right to 0.001 from nine on.

    Reference: Abramowitz and Stegun, 26.7.5.
    """
    if freedom == 1:
        return math.tan(0.475 * math.pi)
    if freedom == 2:
        return 0.95 * math.sqrt(2 / (1 - 0.95**2))
    z = 1.959964
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return float(sum(term / freedom**k for k, term in enumerate(terms)))


def rounded(found: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Replicates by metric with as many digits as their differences need, for files."""
    return {name: [float(f"{v:.8g}") for v in values] for name, values in found.items()}
