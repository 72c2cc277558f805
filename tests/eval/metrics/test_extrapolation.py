"""The distance without its bias recovers the truth, and intervals cover what they say."""

import pytest
import torch
from gaussians import randn

from fewstep.eval.metrics.extrapolation import POINTS, fd_infinity, jackknife, smallest_count
from fewstep.eval.metrics.frechet import FrechetReference

DIM = 64
REFERENCE = FrechetReference(torch.zeros(DIM).double(), torch.eye(DIM).double())
SHIFT, SCALE = 0.25, 1.1
# |shift|^2 d + d (scale - 1)^2
TRUTH = DIM * (SHIFT**2 + (SCALE - 1) ** 2)


def test_it_recovers_a_known_distance() -> None:
    """Within 10 %, where the plain distance of as many samples is a fifth too large on average."""
    for seed in range(5):
        rows = SCALE * randn(20 * DIM, DIM, seed=seed) + SHIFT
        found = fd_infinity(rows, REFERENCE, seed=seed)
        assert REFERENCE.distance_of_features(rows) > 1.1 * TRUTH
        assert found.value == pytest.approx(TRUTH, rel=0.1)


def test_the_slope_is_the_bias() -> None:
    """Against the mean bias of new samples at another n."""
    found = fd_infinity(SCALE * randn(20 * DIM, DIM, seed=0) + SHIFT, REFERENCE)
    n = 12 * DIM
    fresh = [
        REFERENCE.distance_of_features(SCALE * randn(n, DIM, seed=s) + SHIFT) for s in range(20)
    ]
    bias = sum(fresh) / len(fresh) - TRUTH
    assert found.slope / n == pytest.approx(bias, rel=0.2)  # of one set of samples


def test_the_points_are_seeded_subsets_of_half_the_samples_up() -> None:
    rows = randn(400, 8, seed=0)
    reference = FrechetReference(torch.zeros(8).double(), torch.eye(8).double())
    found = fd_infinity(rows, reference)
    assert found == fd_infinity(rows, reference)
    assert found != fd_infinity(rows, reference, seed=1)
    assert len(found.counts) == len(found.distances) == POINTS
    assert (found.counts[0], found.counts[-1]) == (200, 400)
    # Of all samples, in another order.
    whole = reference.distance_of_features(rows)
    assert found.distances[-1] == pytest.approx(whole, rel=1e-12)
    assert found.value + found.slope / 400 == pytest.approx(whole, rel=1e-12)
    steps = (1 / torch.tensor(found.counts).double()).diff()
    assert float(steps.std()) < 0.05 * -float(steps.mean())  # even but for rounding of n


def test_too_few_samples_are_refused() -> None:
    rows = randn(smallest_count(DIM) - 1, DIM, seed=0)
    with pytest.raises(ValueError, match="needs 4 samples a dimension, 256 of 64, got 255"):
        fd_infinity(rows, REFERENCE)
    with pytest.raises(ValueError, match="points must be at least 2, got 1"):
        fd_infinity(randn(300, DIM, seed=0), REFERENCE, points=1)


def test_intervals_cover_the_mean_of_the_estimate() -> None:
    """Of 150 intervals at 95 %, 136 to 149 hold it, but for one case in 100."""
    reference = FrechetReference(torch.zeros(4).double(), torch.eye(4).double())
    sets = [1.2 * randn(200, 4, seed=s) + 0.2 for s in range(150)]
    found = [jackknife(rows, reference.distance_of_features) for rows in sets]
    mean = sum(interval.value for interval in found) / len(found)
    covered = sum(interval.low < mean < interval.high for interval in found)
    assert 136 <= covered <= 149


def test_the_interval_of_a_mean_is_students() -> None:
    """The classes' order does not matter, as blocks are random."""
    rows = randn(20, 1, seed=0).repeat(10, 1)
    half = 2.093 * float(rows.std()) / 200**0.5
    for ordered in (rows, rows.sort(dim=0).values):
        found = jackknife(ordered, lambda x: float(x.mean()))
        assert found.value == pytest.approx(float(rows.mean()))
        # From 20 blocks, a standard deviation is good to 16 %, of one standard error.
        assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.4)


def test_an_interval_needs_samples() -> None:
    with pytest.raises(ValueError, match="at least 40 samples, got 39"):
        jackknife(randn(39, 2, seed=0), lambda x: 0.0)
