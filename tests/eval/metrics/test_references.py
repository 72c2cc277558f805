"""References: files and the bundled one, and that no other extractor's is taken."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gaussians import features, gaussian

from fewstep.eval.metrics import references
from fewstep.eval.metrics.frechet import frechet_distance
from fewstep.eval.metrics.judge import real_features
from fewstep.eval.metrics.references import Reference, load_reference, save_reference, subset
from fewstep.eval.metrics.statistics_files import FeatureStatistics, load_statistics, save_npz
from fewstep.eval.networks.extractors import FashionExtractor, PixelExtractor
from fewstep.models.data import fashion_folder, load_fashion

EXTRACTOR = PixelExtractor((1, 2, 3))
ROWS = features(40, 6, seed=0)
MU, SIGMA = (part.numpy() for part in gaussian(ROWS))
KNOWN = FeatureStatistics(
    MU, SIGMA, 40, extractor=EXTRACTOR.name, weights_sha256=EXTRACTOR.fingerprint,
    dataset_hash="ab12",
)  # fmt: skip


def saved(tmp_path: Path, statistics: FeatureStatistics, real: torch.Tensor | None = None) -> Path:
    path = tmp_path / "ref.npz"
    save_reference(Reference(statistics, real), path)
    return path


def test_a_reference_survives_its_file(tmp_path: Path) -> None:
    real = ROWS[:7].float()
    reference = load_reference(saved(tmp_path, KNOWN, real), EXTRACTOR, features=True)
    assert reference.features is not None
    assert torch.equal(reference.features, real)
    assert reference.features.dtype == torch.float32
    assert reference.hash == Reference(KNOWN).hash
    assert reference.describe() == {
        "name": "ref.npz", "hash": reference.hash, "extractor": "pixels:1x2x3",
        "weights_sha256": EXTRACTOR.fingerprint, "dataset_hash": "ab12", "n": 40, "features": 7,
    }  # fmt: skip


def test_its_distance_is_that_of_the_statistics() -> None:
    reference, (mu, sigma) = Reference(KNOWN), gaussian(features(50, 6, seed=3))
    assert reference.frechet.distance(mu, sigma) == frechet_distance(mu, sigma, MU, SIGMA)
    assert reference.frechet is reference.frechet  # its factor is computed once


def test_the_hash_is_of_mean_and_covariance() -> None:
    assert re.fullmatch("[0-9a-f]{64}", Reference(KNOWN).hash)
    assert Reference(KNOWN).hash == Reference(FeatureStatistics(MU, SIGMA), ROWS, "other").hash
    for mu, sigma in ((MU + 1e-9, SIGMA), (MU, SIGMA * 1.000001)):
        assert Reference(FeatureStatistics(mu, sigma)).hash != Reference(KNOWN).hash


def test_files_of_others_are_taken_by_their_size(tmp_path: Path) -> None:
    np.savez(tmp_path / "edm.npz", mu=MU, sigma=SIGMA)
    reference = load_reference(tmp_path / "edm.npz", EXTRACTOR)
    assert reference.describe() == {"name": "edm.npz", "hash": reference.hash}
    with pytest.raises(ValueError, match=r"edm.npz has features of size 6, pixels:1x2x2 of 4; "):
        load_reference(tmp_path / "edm.npz", PixelExtractor((1, 2, 2)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extractor": "inception:edm"}, r"is of inception:edm, not of pixels:1x2x3; make one by"),
        (
            {"weights_sha256": "0" * 64},
            r"made with weights 00000000, pixels:1x2x3 has [0-9a-f]{8};",
        ),
    ],
)
def test_another_extractors_is_refused(
    tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    path = saved(tmp_path, replace(KNOWN, **changes))
    with pytest.raises(ValueError, match=message) as caught:
        load_reference(path, EXTRACTOR)
    assert "\n" not in str(caught.value)


def test_missing_features_are_found_before_sampling(tmp_path: Path) -> None:
    path = saved(tmp_path, KNOWN)
    assert load_reference(path, EXTRACTOR).features is None
    with pytest.raises(ValueError, match=r"ref.npz has no features, .* `fewstep ref DATA .*10000`"):
        load_reference(path, EXTRACTOR, features=True)


def test_what_is_no_reference_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no reference cifar10; .* bundled names: fashion"):
        load_reference("cifar10", EXTRACTOR)
    path = tmp_path / "ref.npz"
    save_npz(KNOWN, path, ROWS[:, :5].numpy())
    with pytest.raises(ValueError, match=r"ref.npz: its features must be finite and \(k, 6\)"):
        load_reference(path, EXTRACTOR)
    with pytest.raises(ValueError, match=r"must be \(k, 6\), got \(40, 5\)"):
        Reference(KNOWN, ROWS[:, :5])


@pytest.mark.parametrize(
    "real", [np.zeros((0, 6)), np.zeros((5, 6), int), np.zeros((5, 6), complex), 1e300 * MU[None]]
)
def test_features_that_none_of_ours_has(tmp_path: Path, real: np.ndarray) -> None:
    """None, no floats, or beyond float32: found before the samples are made."""
    np.savez(tmp_path / "ref.npz", mu=MU, sigma=SIGMA, features=real)
    with (
        np.errstate(over="ignore"),
        pytest.raises(ValueError, match=r"its features must be finite and \(k, 6\), floats"),
    ):
        load_reference(tmp_path / "ref.npz", EXTRACTOR, features=True)


def test_other_harnesses_do_not_mind_the_features(tmp_path: Path) -> None:
    path = saved(tmp_path, KNOWN, ROWS)
    assert np.array_equal(load_statistics(path).mu, MU)
    with np.load(path) as file:
        assert np.array_equal(file["sigma"], SIGMA)


def test_subsets_are_seeded_and_sorted() -> None:
    chosen = subset(100, 30)
    assert torch.equal(chosen, subset(100, 30))
    assert not torch.equal(chosen, subset(100, 30, seed=1))
    assert len(chosen.unique()) == 30
    assert bool((chosen.diff() > 0).all())
    assert torch.equal(subset(5, 30), torch.arange(5))


def test_the_bundled_reference_is_of_the_training_images() -> None:
    extractor, (train, _, _) = FashionExtractor(), real_features()
    reference = load_reference("fashion", extractor)
    assert np.array_equal(reference.statistics.mu, train.mu)
    assert np.array_equal(reference.statistics.sigma, train.sigma)
    assert reference.features is None  # those in the file are of test images
    described = reference.describe()
    assert (described["n"], described["extractor"]) == (60_000, extractor.name)
    with pytest.raises(ValueError, match="fashion is of fd-cnn:fashion, not of pixels:1x2x3"):
        load_reference("fashion", EXTRACTOR)


def test_without_the_dataset_it_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(download: bool) -> Path:
        raise FileNotFoundError("it is nowhere")

    monkeypatch.setattr(references, "fashion_folder", absent)
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"needs the training images .* leave those metric"):
        load_reference("fashion", FashionExtractor(), features=True)


@pytest.mark.slow
def test_its_features_are_of_training_images() -> None:
    try:
        fashion_folder(download=False)
    except FileNotFoundError:
        pytest.skip("needs Fashion-MNIST")
    extractor = FashionExtractor()
    found = load_reference("fashion", extractor, features=True).features
    assert found is not None
    assert found.shape == (10_000, 64)
    chosen = subset(60_000)[:20]
    assert torch.equal(found[:20], extractor(load_fashion("train")[0][chosen]))
