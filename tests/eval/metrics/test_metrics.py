"""Metrics: closed forms, invariances, and the shipped statistics of real images."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewstep.eval.metrics.frechet import frechet_distance as gaussian_distance
from fewstep.eval.metrics.in_memory import frechet_distance, statistics
from fewstep.eval.metrics.judge import Judge, fd_floor, real_features
from fewstep.eval.metrics.statistics_files import FeatureStatistics

HAVE_CLASSIFIER = (Path(__file__).parents[3] / "models/weights/classifier.safetensors").exists()
needs_classifier = pytest.mark.skipif(not HAVE_CLASSIFIER, reason="no bundled classifier")


def features(n: int, seed: int = 0, dim: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
    return torch.randn(n, dim, generator=generator, dtype=torch.float64) @ mix + 40


def gaussian(mean: float, variances: torch.Tensor, basis: torch.Tensor) -> FeatureStatistics:
    covariance = basis @ torch.diag(variances) @ basis.T
    centre = torch.full((len(variances),), mean, dtype=torch.float64)
    return FeatureStatistics(centre.numpy(), covariance.numpy(), 100)


def between(first: FeatureStatistics, second: FeatureStatistics) -> float:
    return gaussian_distance(first.mu, first.sigma, second.mu, second.sigma)


def test_distance_to_itself_is_zero() -> None:
    for n in (100, 4):  # of full rank, and not
        own = statistics(features(n))
        # The trace is some 30, and sums of n products about a mean of 40 lose three digits of it.
        assert frechet_distance(features(n), own) < 1e-10


@given(seed=st.integers(0, 10_000), dim=st.integers(1, 12), shift=st.floats(-3, 3))
@settings(max_examples=30, deadline=None)
def test_commuting_covariances_have_a_closed_form(seed: int, dim: int, shift: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(dim, dim, generator=generator, dtype=torch.float64))[0]
    first, second = (torch.rand(2, dim, generator=generator, dtype=torch.float64) * 4).unbind()
    found = between(gaussian(0.0, first, basis), gaussian(shift, second, basis))
    expected = dim * shift**2 + float((first.sqrt() - second.sqrt()).square().sum())
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_statistics_are_those_of_numpy() -> None:
    rows = features(200)
    found = statistics(rows)
    assert found.n == 200
    # The mean of 40 costs (40 / 2)^2 in the sums of products.
    torch.testing.assert_close(torch.from_numpy(found.mu), rows.mean(0), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(torch.from_numpy(found.sigma), rows.T.cov(), rtol=1e-9, atol=1e-9)


def test_different_extractors_are_refused() -> None:
    with pytest.raises(ValueError, match="5"):
        frechet_distance(features(9, dim=5), statistics(features(9)))


def test_statistics_need_two_samples() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        statistics(features(1))


@needs_classifier
def test_diverged_samples_have_no_scores() -> None:
    images = torch.zeros(4, 1, 28, 28)
    images[2, 0, 3, 3] = float("nan")
    judged, logits = Judge()(images)
    assert judged.isnan().any(1).tolist() == [False, False, True, False]
    assert logits.isnan().any(1).tolist() == [False, False, True, False]
    assert math.isnan(frechet_distance(judged, statistics(features(70, dim=64))))


@needs_classifier
def test_floor_falls_with_n_and_noise_is_far_from_it() -> None:
    floors = [fd_floor(n) for n in (64, 512, 10_000)]
    assert floors[0] > 2 * floors[1] > 4 * floors[2] > 0
    train, test, labels = real_features()
    assert train.n == 60_000
    assert labels.bincount().tolist() == [1000] * 10
    assert test.shape == (10_000, 64)
    noise = torch.rand(64, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    noisy = Judge()(noise)[0]
    assert frechet_distance(noisy, train) > 10 * floors[0]
    # One class alone is further from all of them than a balanced sample.
    assert frechet_distance(test[labels == 3][:512], train) > 10 * floors[1]


@needs_classifier
def test_judge_sees_images_as_eight_bits() -> None:
    judge = Judge()
    images = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(1)) * 3 - 1.5
    rounded = (images.clamp(-1, 1) * 127.5 + 127.5).round() / 127.5 - 1
    assert torch.equal(judge(images)[0], judge(rounded)[0])
    assert judge(images)[1].shape == (3, 10)
