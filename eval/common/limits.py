"""How many samples and the like a command may be asked for; more is a mistyped number."""

from fewstep.schedules.limits import at_most

MAX_SAMPLES = 10_000_000  # 200 times the 50,000 of an FID
MAX_PICTURE = 2_000  # images of one PNG, which matplotlib draws up to 65,536 pixels high
MAX_BATCH = 65_536
MAX_REPEATS = 10_000
MAX_SEED = 2**31 - 1  # seeds of later noise are seed * 2^32 and more, of 63 bits
MAX_TUNED_CALLS = 100  # the tables of a tuning grow with their square
MAX_NOISES = 100_000
MAX_MINUTES = 100_000.0  # ten weeks


def check_seed(seed: int) -> None:
    """Passes a seed.

    Raises:
        ValueError: for one outside 0 .. ``MAX_SEED``.
    """
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    at_most("seed", seed, MAX_SEED)


def check_repeats(repeats: int) -> None:
    """Passes a number of repeats.

    Raises:
        ValueError: for one outside 1 .. ``MAX_REPEATS``.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    at_most("repeats", repeats, MAX_REPEATS)


# Of a feature, rounded to an integer; why, says fewstep.eval.metrics.moments.
LARGEST_FEATURE = 2**23
