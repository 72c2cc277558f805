"""Frechet distance beside that of pytorch-fid: equal where both are exact."""

import pytest
from gaussians import by_singular_values, features, gaussian
from peer_frechet import pytorch_fid_distance

from fewstep.eval.metrics.frechet import (
    FrechetReference,
    frechet_distance,
    frechet_distance_low_rank,
)


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])
def test_regular_covariances_agree_with_pytorch_fid(decay: float) -> None:
    first, second = gaussian(features(1000, 256, 1, decay)), gaussian(features(1000, 256, 9, decay))
    assert frechet_distance(*first, *second) == pytest.approx(
        pytorch_fid_distance(*first, *second), rel=1e-9
    )


@pytest.mark.slow
def test_agreement_at_2048() -> None:
    first, second = (gaussian(features(6000, 2048, seed, 1.0)) for seed in (1, 5))
    assert frechet_distance(*first, *second) == pytest.approx(
        pytorch_fid_distance(*first, *second), rel=1e-9
    )


@pytest.mark.slow
def test_few_samples_at_2048() -> None:
    """By each way to the distance, against another formula."""
    rows, reference = features(1000, 2048, 1), features(6000, 2048, 5)
    first, second = gaussian(rows), gaussian(reference)
    expected = by_singular_values(rows, reference)
    assert FrechetReference(*second).distance_of_features(rows) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance_low_rank(rows, *second) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance(*first, *second) == pytest.approx(expected, rel=1e-8)
