"""Frechet distance: exact cases, singular covariances, refusals."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from gaussians import by_singular_values, features, gaussian, randn, trace
from hypothesis import given, settings
from hypothesis import strategies as st

from fewstep.eval.metrics.cholesky import congruence, factorise
from fewstep.eval.metrics.frechet import (
    FrechetReference,
    frechet_distance,
    frechet_distance_low_rank,
)


@given(seed=st.integers(0, 10_000), dim=st.integers(1, 12), zeros=st.integers(0, 11))
@settings(max_examples=50, deadline=None)
def test_commuting_covariances_have_a_closed_form(seed: int, dim: int, zeros: int) -> None:
    basis = torch.linalg.qr(randn(dim, dim, seed=seed))[0]
    first, second = randn(2, dim, seed=seed + 1).square().unbind()
    first[: min(zeros, dim)] = 0
    mu = randn(2, dim, seed=seed + 2)
    found = frechet_distance(mu[0], basis * first @ basis.T, mu[1], basis * second @ basis.T)
    expected = (mu[0] - mu[1]).square().sum() + (first.sqrt() - second.sqrt()).square().sum()
    # Rounding of a zero variance that was kept would cost its root, some 1e-8.
    assert found == pytest.approx(float(expected), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("dim", [3, 64, 300])
def test_transported_gaussian_has_a_closed_form(dim: int) -> None:
    """The map T takes N(mu, S) to N(T mu, T S T) optimally; S and T S T do not commute."""
    root, other = randn(dim, dim, seed=1) / dim**0.5, randn(dim, dim, seed=2) / dim**0.5
    sigma, transport = root @ root.T + torch.eye(dim), other @ other.T + torch.eye(dim) / 2
    mu = randn(dim, seed=3)
    moved = transport @ sigma @ transport
    found = frechet_distance(mu, sigma, transport @ mu, (moved + moved.T) / 2)
    shift = float((transport @ mu - mu).square().sum())
    cross = (shift + trace(sigma, moved) - found) / 2
    assert cross == pytest.approx(float((transport * sigma).sum()), rel=1e-10)


@pytest.mark.parametrize(("n", "m"), [(50, 300), (50, 40), (2, 300), (100, 100), (300, 50)])
def test_fewer_samples_than_dimensions(n: int, m: int) -> None:
    """Against singular values of the centred features, which are not squared before they add.

    The aim is 1e-8; spurious zeros would cost 1e-9, so it is 1e-11 that tells.
    """
    first, second = features(n, 100, 1), features(m, 100, 5)
    expected = by_singular_values(first, second)
    reference = gaussian(second)
    assert frechet_distance(*gaussian(first), *reference) == pytest.approx(expected, rel=1e-11)
    assert frechet_distance_low_rank(first, *reference) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("decay", [1.5, 2.5])
def test_steep_spectra_keep_their_digits(decay: float) -> None:
    """Variances over 6 and 10 decades: F^T S F has eigenvalues far below eps of its largest."""
    first, second = features(60, 100, 1, decay), features(400, 100, 5, decay)
    expected = by_singular_values(first, second)
    assert frechet_distance_low_rank(first, *gaussian(second)) == pytest.approx(expected, rel=1e-11)
    assert frechet_distance(*gaussian(first), *gaussian(second)) == pytest.approx(
        expected, rel=1e-11
    )


def test_dead_and_repeated_features() -> None:
    first, second = features(200, 20, 1), features(300, 20, 5)
    first[:, 3], second[:, [3, 7]] = 0.0, 0.0
    first[:, 5] = first[:, 6]
    expected = by_singular_values(first, second)
    assert frechet_distance(*gaussian(first), *gaussian(second)) == pytest.approx(
        expected, rel=1e-11
    )


def test_covariances_without_a_common_direction() -> None:
    diagonals = torch.tensor([[4.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 9.0]]).double()
    zero = torch.zeros(4).double()
    assert frechet_distance(zero, diagonals[0].diag(), zero, diagonals[1].diag()) == 15.0
    nothing = torch.zeros(4, 4).double()
    assert frechet_distance(zero, nothing, zero, diagonals[1].diag()) == 10.0
    assert frechet_distance(zero, nothing, zero, nothing) == 0.0


@pytest.mark.parametrize("n", [40, 100, 1000])
def test_distance_to_itself_is_zero(n: int) -> None:
    rows = features(n, 100, 1)
    mu, sigma = gaussian(rows)
    assert frechet_distance(mu, sigma, mu, sigma) == 0.0
    # The same statistics by another order of summation are equal to rounding only.
    assert frechet_distance(*gaussian(rows.flip(0)), mu, sigma) < 1e-10
    assert frechet_distance_low_rank(rows, mu, sigma) < 1e-10


@given(seed=st.integers(0, 10_000), scale=st.floats(1e-3, 1e3), n=st.integers(5, 60))
@settings(max_examples=25, deadline=None)
def test_symmetric_and_quadratic_in_scale(seed: int, scale: float, n: int) -> None:
    first, second = features(n, 30, seed), features(45, 30, seed + 3)
    found = frechet_distance(*gaussian(first), *gaussian(second))
    assert frechet_distance(*gaussian(second), *gaussian(first)) == pytest.approx(found, rel=1e-9)
    scaled = frechet_distance(*gaussian(first * scale), *gaussian(second * scale))
    assert scaled == pytest.approx(found * scale**2, rel=1e-9)


def test_reference_is_factorised_once_and_gives_the_same() -> None:
    mu, sigma = gaussian(features(300, 30, 1))
    reference = FrechetReference(mu, sigma)
    assert reference.factor is reference.factor
    for n in (20, 300):
        rows = features(n, 30, n)
        assert reference.distance(*gaussian(rows)) == frechet_distance(*gaussian(rows), mu, sigma)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, ">f8", np.longdouble])
def test_arrays_and_dtypes(dtype: Any) -> None:
    first, second = gaussian(features(300, 30, 1)), gaussian(features(300, 30, 4))
    expected = frechet_distance(*first, *second)
    arrays = [array.numpy().astype(dtype) for array in (*first, *second)]
    for array in arrays:
        array.flags.writeable = False
    # Entries rounded to float32 are off by 6e-8 of themselves.
    assert frechet_distance(*arrays) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("n", "dim"), [(40, 100), (300, 600)])
def test_singular_covariance_summed_in_float32(n: int, dim: int) -> None:
    """Its eigenvalues scatter about zero by the rounding of float32, not of float64."""
    first, second = features(n, dim, 1), features(3 * dim, dim, 5)
    found = frechet_distance(*gaussian(first.float()), *gaussian(second))
    # Its zero variances came out as some 1e-9, whose roots add up.
    assert found == pytest.approx(by_singular_values(first, second), rel=1e-3)


@pytest.mark.parametrize(("n", "dim"), [(40, 100), (500, 300), (2, 3), (1, 1)])
def test_factors_have_the_rank_and_the_product(n: int, dim: int) -> None:
    root = randn(n, dim, seed=n)
    sigma = root.T @ root
    factor = factorise(sigma)
    assert factor.rank == min(n, dim)
    torch.testing.assert_close(factor.matrix @ factor.matrix.T, sigma, rtol=1e-12, atol=1e-11)
    other = (sigma @ sigma).tril()
    other = other + other.tril(-1).T
    expected = factor.matrix.T @ other @ factor.matrix
    scale = float(expected.abs().max())
    torch.testing.assert_close(
        congruence(factor, other).tril() / scale, expected.tril() / scale, rtol=0, atol=1e-13
    )


EYE, ZERO = np.eye(3), np.zeros(3)
SKEW, NAN = EYE + np.triu(np.ones((3, 3)), 1), np.where(EYE > 0, np.nan, 0)
INFINITE = EYE.copy()
INFINITE[0, 1] = INFINITE[1, 0] = np.inf


@pytest.mark.parametrize(
    ("mu", "sigma", "message"),
    [
        (np.array(0.5), np.array(1.0), r"must be \(d,\) and \(d, d\), got \(\) and \(\)"),
        (np.zeros((2, 3)), EYE, r"\(d, d\), got \(2, 3\)"),
        (ZERO, np.eye(4), r"got \(3,\) and \(4, 4\)"),
        (np.zeros(0), np.zeros((0, 0)), r"got \(0,\)"),
        (np.zeros(4), np.eye(4), "sizes 4 and 3 cannot be compared.*same extractor"),
        (ZERO, NAN, "nan or infinite.*at least 2 samples"),
        (ZERO, INFINITE, "sigma of the samples has values that are nan or infinite"),
        (np.array([0, np.inf, 0]), EYE, "nan or infinite"),
        (ZERO, SKEW, r"not symmetric \(entries differ by up to 1\)"),
        (ZERO, np.diag([1.0, 1.0, -0.1]), "eigenvalue -0.1 .*not a covariance"),
        (ZERO, np.fliplr(EYE).copy(), "eigenvalue -1 .*not a covariance"),
        (ZERO, -EYE, "not a covariance"),
        (ZERO, EYE.astype(int), "sigma of the samples must be floating point, got int64"),
    ],
)
def test_bad_statistics_are_refused(mu: Any, sigma: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        frechet_distance(mu, sigma, ZERO, EYE)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros(5), r"must be \(n, d\).*got shape \(5,\); use features.reshape"),
        (np.zeros((4, 3, 1, 1)), "reshape"),
        (np.zeros((1, 3)), "at least 2 samples, got 1"),
        (np.full((4, 3), np.nan), "nan or infinite"),
        (np.zeros((4, 3), dtype=np.uint8), "floating point, got uint8"),
        (np.zeros((4, 2)), "same extractor"),
    ],
)
def test_bad_features_are_refused(rows: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        frechet_distance_low_rank(rows, ZERO, EYE)


def test_scipy_is_not_needed() -> None:
    code = """
import sys
sys.modules["scipy"] = None
import numpy as np
from fewstep.eval.metrics.frechet import frechet_distance
print(frechet_distance(np.zeros(2), np.eye(2), np.ones(2), 4 * np.eye(2)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "4.0", done.stderr


@pytest.mark.parametrize("size", [1e-150, 1e-100, 1e80, 1e150, 1e153])
@pytest.mark.parametrize("n", [10, 60])  # by rungs 2 and 3
def test_any_size_that_has_squares(n: int, size: float) -> None:
    """Products of two covariances have none, which no factorisation may come to see."""
    first, second = features(n, 30, 1), features(90, 30, 5)
    expected = by_singular_values(first, second)
    reference = gaussian(second * size)
    found = [
        frechet_distance_low_rank(first * size, *reference),
        frechet_distance(*gaussian(first * size), *reference),
    ]
    # As for size 1; the smallest squares are of 1e-300, still with all their digits.
    assert [distance / size / size for distance in found] == pytest.approx([expected] * 2, rel=1e-9)


@pytest.mark.parametrize("n", [3, 50])  # by rungs 2 and 3
def test_samples_without_bounds_are_not_perfect(n: int) -> None:
    """A run in float64 may diverge to finite values whose squares are not."""
    reference = FrechetReference(torch.zeros(3), torch.eye(3))
    for size in (1e150, 3e154, 1e155, 1e200, 1e300, 2e307):
        assert reference.distance_of_features(features(n, 3, seed=0) * size) > 1e290
