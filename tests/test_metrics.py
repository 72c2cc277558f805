"""Metrics: closed forms, invariances, and the shipped statistics of real images."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewstep.eval.features import Judge, Scores, fd_floor, real_features
from fewstep.eval.metrics import (
    GaussianStatistics,
    RunningAccuracy,
    RunningRmse,
    RunningStatistics,
    frechet_distance,
    statistics,
)

HAVE_CLASSIFIER = (Path(__file__).parents[1] / "models/weights/classifier.safetensors").exists()
needs_classifier = pytest.mark.skipif(not HAVE_CLASSIFIER, reason="no bundled classifier")


def features(n: int, seed: int = 0, dim: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
    return torch.randn(n, dim, generator=generator, dtype=torch.float64) @ mix + 40


def gaussian(mean: float, variances: torch.Tensor, basis: torch.Tensor) -> GaussianStatistics:
    covariance = basis @ torch.diag(variances) @ basis.T
    centre = torch.full((len(variances),), mean, dtype=torch.float64)
    return GaussianStatistics(centre, covariance, 100)


def test_distance_to_itself_is_zero() -> None:
    full, singular = statistics(features(100)), statistics(features(4))
    # Rounding in 64-bit square roots, relative to the trace.
    assert frechet_distance(full, full) < 1e-12 * float(full.covariance.trace())
    assert frechet_distance(singular, singular) < 1e-7 * float(singular.covariance.trace())


@given(seed=st.integers(0, 10_000), dim=st.integers(1, 12), shift=st.floats(-3, 3))
@settings(max_examples=30, deadline=None)
def test_commuting_covariances_have_a_closed_form(seed: int, dim: int, shift: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(dim, dim, generator=generator, dtype=torch.float64))[0]
    first, second = (torch.rand(2, dim, generator=generator, dtype=torch.float64) * 4).unbind()
    found = frechet_distance(gaussian(0.0, first, basis), gaussian(shift, second, basis))
    expected = dim * shift**2 + float((first.sqrt() - second.sqrt()).square().sum())
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_distance_is_symmetric_and_that_of_the_eigenvalue_formula() -> None:
    first, second = statistics(features(50, 1)), statistics(features(60, 2))
    found = frechet_distance(first, second)
    assert frechet_distance(second, first) == pytest.approx(found, rel=1e-10)
    eigenvalues = torch.linalg.eigvals(first.covariance @ second.covariance).real
    traces = first.covariance.trace() + second.covariance.trace()
    other = (first.mean - second.mean).square().sum() + traces - 2 * eigenvalues.sqrt().sum()
    assert found == pytest.approx(float(other), rel=1e-9)


def test_different_extractors_are_refused() -> None:
    with pytest.raises(ValueError, match="same extractor"):
        frechet_distance(statistics(features(9)), statistics(features(9, dim=5)))


@given(cuts=st.lists(st.integers(0, 200), max_size=6))
@settings(max_examples=30, deadline=None)
def test_running_statistics_do_not_depend_on_batches(cuts: list[int]) -> None:
    rows = features(200)
    running, edges = RunningStatistics(), [0, *sorted(cuts), 200]
    for start, end in pairwise(edges):
        running.add(rows[start:end])
    result = running.result()
    assert result.n == 200
    # float64 sums about a nearby point: the mean of 40 does not cost digits.
    torch.testing.assert_close(result.mean, rows.mean(0), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(result.covariance, rows.T.cov(), rtol=1e-11, atol=1e-11)


def test_statistics_need_two_samples() -> None:
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        statistics(features(1))


def test_statistics_survive_saving(tmp_path: Path) -> None:
    saved = statistics(features(30))
    saved.save(tmp_path / "s.npz", note="kept")
    read = GaussianStatistics.load(tmp_path / "s.npz")
    assert torch.equal(read.mean, saved.mean)
    assert torch.equal(read.covariance, saved.covariance)
    assert read.n == 30


def test_running_rmse_and_accuracy() -> None:
    rmse, accuracy = RunningRmse(), RunningAccuracy()
    rmse.add(torch.full((1, 2), 3.0), torch.zeros(1, 2))
    rmse.add(torch.full((3, 2), 1.0), torch.zeros(3, 2))
    assert rmse.result() == pytest.approx((24 / 8) ** 0.5)
    accuracy.add(torch.eye(3), torch.tensor([0, 1, 0]))
    accuracy.add(torch.eye(3)[:1], torch.tensor([1]))
    assert accuracy.result() == 0.5


def test_scores_without_a_judge_are_rmse_alone() -> None:
    scores = Scores()
    scores.add(torch.ones(2, 3), torch.zeros(2, 3))
    assert scores.result() == {"rmse": 1.0}


@needs_classifier
def test_diverged_samples_have_no_scores() -> None:
    scores, judge = Scores(), Judge()
    images = torch.full((4, 1, 28, 28), float("nan"))
    scores.add(images, torch.zeros_like(images), None, judge(images), torch.zeros(4, 64))
    assert scores.result() == {}


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
    assert frechet_distance(statistics(noisy), train) > 10 * floors[0]
    # One class alone is further from all of them than a balanced sample.
    one = statistics(test[labels == 3][:512])
    assert frechet_distance(one, train) > 10 * floors[1]


@needs_classifier
def test_judge_sees_images_as_eight_bits() -> None:
    judge = Judge()
    images = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(1)) * 3 - 1.5
    rounded = (images.clamp(-1, 1) * 127.5 + 127.5).round() / 127.5 - 1
    assert torch.equal(judge(images)[0], judge(rounded)[0])
    assert judge(images)[1].shape == (3, 10)
