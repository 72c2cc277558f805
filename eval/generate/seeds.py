"""Seeds of samples: which there are, and lists of them as texts."""

import re
from collections.abc import Sequence

from fewstep.eval.common.limits import MAX_SAMPLES
from fewstep.schedules.limits import at_most

SEEDS = 2**32


def seeds_text(seeds: Sequence[int]) -> str:
    """Seeds in their order, runs shortened: ``0-4,9``."""
    runs: list[list[int]] = []
    for seed in seeds:
        if runs and seed == runs[-1][1] + 1:
            runs[-1][1] = seed
        else:
            runs.append([seed, seed])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def read_seeds(text: str) -> list[int]:
    """The seeds that :func:`seeds_text` wrote.

    Raises:
        ValueError: for any other text, and more than ``MAX_SAMPLES``.
    """
    runs = [_run(part, text) for part in text.split(",")]
    at_most("the number of seeds", sum(last + 1 - first for first, last in runs), MAX_SAMPLES)
    return [seed for first, last in runs for seed in range(first, last + 1)]


def _run(part: str, text: str) -> tuple[int, int]:
    """The ends of ``3`` or ``0-4``."""
    found = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
    if not first <= last < SEEDS:
        raise ValueError(
            "seeds are numbers below 2**32 and runs of them, as in 0-49999 or 1,2,5-9; got "
            f"{text[:80]!r}"
        )
    return first, last


def check_seeds(seeds: Sequence[int]) -> None:
    """Passes seeds that give as many different samples.

    Raises:
        ValueError: for none, one outside 0 .. 2^32 - 1, or one that is there twice.
    """
    if not seeds:
        raise ValueError("there are no seeds; give one for each sample, as range(50000)")
    for seed in (min(seeds), max(seeds)):
        if not 0 <= seed < SEEDS:
            raise ValueError(
                f"seeds must lie in 0 .. 2**32 - 1, got {seed}: torch's generators drop the higher "
                f"bits, so its images would be those of seed {seed % SEEDS}"
            )
    if len(set(seeds)) < len(seeds):
        raise ValueError("a seed is there twice, and would give the same image again: leave it out")
