"""Scores of sets: the same for every batching and number of processes, and complete."""

import pickle
from dataclasses import dataclass

import pytest
import torch
from gaussians import features, gaussian, randn
from torch import Tensor

from fewstep.eval.metrics import scores
from fewstep.eval.metrics.choices import METRIC_CHOICES
from fewstep.eval.metrics.extrapolation import fd_infinity
from fewstep.eval.metrics.frechet import frechet_distance_low_rank
from fewstep.eval.metrics.kid import kid
from fewstep.eval.metrics.manifold import manifold
from fewstep.eval.metrics.moments import ExactMoments
from fewstep.eval.metrics.names import metric_key
from fewstep.eval.metrics.references import Reference, load_reference, subset
from fewstep.eval.metrics.scores import KeptRows, SetScores, needs_features
from fewstep.eval.metrics.sliced import sliced_wasserstein
from fewstep.eval.metrics.statistics_files import FeatureStatistics
from fewstep.eval.networks.extractors import FashionExtractor

DIM = 6


@dataclass
class Described:
    """What is known of an extractor."""

    name: str = "colour:mean"
    dim: int = DIM
    fingerprint: str = "0" * 64
    comparable: bool = False
    bound: float = 16.0
    scale: float = 2.0**19

    def __call__(self, images: Tensor) -> Tensor:
        return images.float().mean(dim=(2, 3))


EXTRACTOR = Described()
REAL = features(300, DIM, seed=0).float()
MEAN, COVARIANCE = gaussian(REAL.double())
BARE = Reference(FeatureStatistics(MEAN.numpy(), COVARIANCE.numpy(), 300))
REFERENCE = Reference(BARE.statistics, REAL)
ROWS = features(80, DIM, seed=5).float() * 1.1


def scored(*batches: Tensor, metrics: tuple[str, ...] = METRIC_CHOICES) -> SetScores:
    found = SetScores(EXTRACTOR, REFERENCE, metrics)
    for batch in batches:
        found.add(batch)
    return found


def test_every_metric_is_its_functions() -> None:
    found = scored(ROWS).result()
    assert found.pop("fd") == pytest.approx(
        REFERENCE.frechet.distance(*gaussian(ROWS.double())), rel=1e-5
    )  # features are rounded to 2^-19
    assert found == {
        "fd_infinity": fd_infinity(ROWS, REFERENCE.frechet).value,
        "kid": kid(ROWS, REAL, size=80)[0],
        **vars(manifold(ROWS, REAL, k=3)),
        "sw2": sliced_wasserstein(ROWS, REAL),
    }


@pytest.mark.parametrize("metric", METRIC_CHOICES)
def test_only_what_is_asked_for(metric: str) -> None:
    found = scored(ROWS, metrics=(metric,)).result()
    expected = {"prdc": {"precision", "recall", "density", "coverage"}}.get(metric, {metric})
    assert found.keys() == expected
    whole = scored(ROWS).result()
    assert all(whole[key] == value for key, value in found.items())


def test_batches_and_processes_change_no_bit() -> None:
    whole = scored(ROWS).result()
    assert scored(ROWS[:1], ROWS[1:1], ROWS[1:50], ROWS[50:]).result() == whole
    first, second = scored(), scored()
    for start in range(0, 80, 8):  # units in turn
        rank = (first, second)[start // 8 % 2]
        rank.add(ROWS[start : start + 8], first=start)
    second.merge(pickle.loads(pickle.dumps(first)))
    assert second.n == 80
    assert second.result() == whole
    assert torch.equal(second.features, ROWS)


def test_processes_must_tell_their_samples_apart() -> None:
    first, second = scored(ROWS[:40]), scored(ROWS[40:])
    with pytest.raises(ValueError, match=r"sample 0 is there twice; .* add\(\.\.\., first=index\)"):
        first.merge(second)
    only = scored(ROWS[:40], metrics=("fd",))
    only.merge(scored(ROWS[40:], metrics=("fd",)))
    assert only.result() == scored(ROWS, metrics=("fd",)).result()
    assert len(only.features) == 0  # sums are enough


def test_fewer_samples_than_dimensions() -> None:
    """By the pivoted factor of their covariance, as by the features themselves."""
    wide = Described(dim=40)
    real, rows = features(200, 40, seed=0), features(15, 40, seed=3).float()
    mean, covariance = (part.numpy() for part in gaussian(real))
    found = SetScores(wide, Reference(FeatureStatistics(mean, covariance)))
    found.add(rows)
    units = (rows.double() * wide.scale).round() / wide.scale
    expected = frechet_distance_low_rank(units, mean, covariance)
    assert found.result()["fd"] == pytest.approx(expected, rel=1e-8)  # row 3 of fid_harness.md


def test_memory_stays_constant_after_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "KEPT", 50)
    found = scored(ROWS[:30], ROWS[30:60], ROWS[60:])
    assert torch.equal(found.features, ROWS[:50])
    assert found.n == 80
    assert found.result()["sw2"] == sliced_wasserstein(ROWS[:50], REAL[subset(300, 50)])


def test_real_features_are_taken_from_all_over_the_reference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those of an image folder are in the order of its classes."""
    monkeypatch.setattr(scores, "KEPT", 60)
    real = REAL / 10 + torch.arange(300)[:, None] // 100 * 5.0
    sorted_by_class = SetScores(EXTRACTOR, Reference(BARE.statistics, real), ("prdc",))
    sorted_by_class.add(real[::5])
    assert sorted_by_class.result()["precision"] > 0.5


def test_kept_rows_are_in_the_order_of_the_samples() -> None:
    kept = KeptRows()
    kept.add(ROWS[9_998:], 9_998)
    for first in (20, 0, 10):
        kept.add(ROWS[first : first + 10], first)
    assert torch.equal(kept.result(), ROWS[:30])
    kept.add(ROWS[:5], 9_998)
    assert torch.equal(kept.result()[30:], ROWS[:2])
    with pytest.raises(ValueError, match=r"sample \d+ is there twice"):
        kept.add(ROWS[:10], 15)


def test_a_run_that_diverged_has_no_scores() -> None:
    found = scored(ROWS, torch.full((2, DIM), torch.nan))
    found.add(ROWS)
    assert found.n == 162
    assert found.result() == {}
    other = scored()
    other.merge(found)
    assert other.result() == {}


@pytest.mark.parametrize(
    ("n", "keys"),
    [
        (0, set()),
        (1, set()),
        (3, {"fd", "kid", "sw2"}),
        (4, {"fd", "kid", "sw2", "precision", "recall", "density", "coverage"}),
    ],
)
def test_what_needs_more_samples_is_left_out(n: int, keys: set[str]) -> None:
    assert scored(ROWS[:n]).result().keys() == keys


def test_a_seeded_subset_is_kept_if_the_total_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "KEPT", 20)
    expected = ROWS[subset(80, 20)]
    whole = SetScores(EXTRACTOR, REFERENCE, ("sw2",), total=80)
    whole.add(ROWS)
    assert torch.equal(whole.features, expected)
    halves = [SetScores(EXTRACTOR, REFERENCE, ("sw2",), total=80) for _ in range(2)]
    halves[0].add(ROWS[33:], first=33)
    halves[1].add(ROWS[:33], first=0)
    halves[0].merge(halves[1])
    assert torch.equal(halves[0].features, expected)
    unknown = SetScores(EXTRACTOR, REFERENCE, ("sw2",))
    unknown.add(ROWS)
    assert torch.equal(unknown.features, ROWS[:20])


def test_sums_are_enough_for_the_distance() -> None:
    moments = ExactMoments(DIM, EXTRACTOR.scale, EXTRACTOR.bound)
    moments.add(ROWS)
    found = SetScores(EXTRACTOR, BARE)
    found.add_sums(moments)
    assert (found.n, found.result()) == (80, scored(ROWS, metrics=("fd",)).result())
    with pytest.raises(ValueError, match="fd, sw2 cannot be had of sums, and no features"):
        scored(metrics=("fd", "sw2")).add_sums(moments)
    with pytest.raises(ValueError, match="cannot merge totals of the scales"):
        found.add_sums(ExactMoments(DIM, 2.0**10))


def test_mistakes_are_found_before_any_sample() -> None:
    with pytest.raises(ValueError, match=r"of fd, kid, prdc, sw2, fd_infinity, got 'fid'"):
        SetScores(EXTRACTOR, REFERENCE, ("fd", "fid"))
    for metric in ("kid", "prdc", "sw2"):
        assert needs_features(["fd", metric])
        with pytest.raises(ValueError, match="has no features, which kid, prdc and sw2 need"):
            SetScores(EXTRACTOR, BARE, (metric,))
    assert not needs_features(["fd", "fd_infinity"])
    with pytest.raises(ValueError, match=r"must be \(n, 6\)"):
        scored(ROWS[:, :5])


def test_the_key_of_the_distance_is_its_extractors() -> None:
    assert metric_key(Described("inception:edm", comparable=True)) == "fid"
    assert metric_key(Described("inception:edm")) == "fd"
    assert metric_key(FashionExtractor()) == "fd_fashion"
    assert metric_key(EXTRACTOR) == "fd"


def test_the_bundled_reference_scores_images() -> None:
    extractor = FashionExtractor()
    found = SetScores(extractor, load_reference("fashion", extractor))
    noise = (randn(20, 1, 28, 28, seed=0) * 64 + 128).clamp(0, 255).to(torch.uint8)
    found.add(extractor(noise))
    assert found.result()["fd_fashion"] > 1  # 0.26 of 512 real test images
