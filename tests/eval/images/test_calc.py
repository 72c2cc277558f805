"""References and scores of sets: right, equal for every way the images are kept, and checkable."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gaussians import gaussian
from generation_runs import SHAPE, small_run
from image_files import coloured, save_all

from fewstep.eval.common.image_sets import ImageSet, SetHash
from fewstep.eval.generate.collected import export_npz, export_png, statistics
from fewstep.eval.generate.generation import generate_images
from fewstep.eval.images import calculate as calculate_module
from fewstep.eval.images.calculate import SetScore, calculate, column_title, find_reference
from fewstep.eval.images.make_reference import make_reference
from fewstep.eval.images.paired import paired_difference
from fewstep.eval.images.samples import Samples, open_samples
from fewstep.eval.images.sources import open_images
from fewstep.eval.metrics.frechet import frechet_distance
from fewstep.eval.metrics.references import load_reference, save_reference, subset
from fewstep.eval.networks.extractors import FashionExtractor, PixelExtractor

PIXELS = PixelExtractor(SHAPE)


def images_of(pixels: torch.Tensor, name: str = "set") -> ImageSet:
    n, c, h, w = pixels.shape
    return ImageSet(name, n, (c, h, w), lambda: iter(pixels.split(7)))


def noise(n: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, *SHAPE), generator=generator, dtype=torch.uint8)


def score(samples: Samples, real: ImageSet, **settings: Any) -> list[SetScore]:
    return calculate(samples, make_reference(real, PIXELS), **settings)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 22 samples with images and features, in units of 4."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("runs") / "run"
    generate_images(small_run(extractor=PIXELS), folder)
    return folder


def test_a_reference_has_the_moments_of_all_and_features_of_some(tmp_path: Path) -> None:
    pixels = noise(50)
    found = make_reference(images_of(pixels), PIXELS, features=20, seed=3)
    features = PIXELS(pixels).double()
    mu, sigma = gaussian(features)
    # Features are rounded to 2^-16, half of which is 8e-6.
    np.testing.assert_allclose(found.statistics.mu, mu, atol=8e-6)
    np.testing.assert_allclose(found.statistics.sigma, sigma, atol=3e-5)
    assert found.features is not None
    assert torch.equal(found.features, PIXELS(pixels)[subset(50, 20, 3)])
    whole = SetHash(SHAPE)
    whole.add(pixels)
    assert found.describe() == {
        "name": "set", "hash": found.hash, "extractor": "pixels:1x4x4", "n": 50, "features": 20,
        "weights_sha256": PIXELS.fingerprint, "dataset_hash": whole.hexdigest(),
    }  # fmt: skip
    save_reference(found, tmp_path / "ref.npz")
    again = load_reference(tmp_path / "ref.npz", PIXELS, features=True)
    assert again.hash == found.hash
    assert again.features is not None
    assert torch.equal(again.features, found.features)


@pytest.mark.parametrize("batch", [1, 8, 64])
def test_a_reference_does_not_depend_on_the_batch(batch: int) -> None:
    """Bit for bit, on a network too: it works in micro-batches of a fixed size."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (70, 1, 28, 28), generator=generator, dtype=torch.uint8)
    extractor = FashionExtractor()
    first, other = (
        make_reference(images_of(pixels), extractor, features=9, batch=size) for size in (30, batch)
    )
    assert first.hash == other.hash
    assert first.features is not None
    assert other.features is not None
    assert torch.equal(first.features, other.features)


def test_another_seed_keeps_other_features() -> None:
    first, other = (
        make_reference(images_of(noise(50)), PIXELS, features=20, seed=seed) for seed in (0, 1)
    )
    assert first.hash == other.hash
    assert first.features is not None
    assert other.features is not None
    assert not torch.equal(first.features, other.features)
    assert make_reference(images_of(noise(50)), PIXELS, features=0).features is None


def test_protocols_are_told_of_inception_alone() -> None:
    extractor = PixelExtractor(SHAPE)
    extractor.name = "inception:clean"
    assert make_reference(images_of(noise(3)), extractor).statistics.protocol == "clean"


def test_scores_are_the_distance_of_the_features(run: Path) -> None:
    real = images_of(noise(40))
    (found,) = score(open_samples(run, PIXELS), real)
    features = [PIXELS(torch.cat(list(s.batches(9)))).double() for s in (open_images(run), real)]
    wanted = frechet_distance(*gaussian(features[0]), *gaussian(features[1]))
    # The rounding of features to 2^-16 again.
    assert found.metrics["fd"] == pytest.approx(wanted, abs=1e-4)
    assert (found.first, found.n) == (0, 22)
    assert found.statistics_hash == calculate_module.statistics_hash(statistics(run, PIXELS))


def test_scores_do_not_depend_on_how_samples_are_kept(run: Path, tmp_path: Path) -> None:
    export_png(run, tmp_path / "png")
    export_npz(run, tmp_path / "all.npz")
    generate_images(small_run(), tmp_path / "images")
    generate_images(small_run(keep="features", extractor=PIXELS), tmp_path / "features")
    generate_images(small_run(keep="none", extractor=PIXELS), tmp_path / "sums")
    names = [run, *(tmp_path / name for name in ("images", "features", "sums", "png", "all.npz"))]
    real = images_of(noise(40))
    found = [score(open_samples(name, PIXELS), real, batch=5)[0] for name in names]
    assert len({one.statistics_hash for one in found}) == 1
    assert len({one.metrics["fd"] for one in found}) == 1
    assert len({one.samples_hash for one in found[:4]}) == 1  # of images, whatever is kept
    assert len({one.samples_hash for one in found[4:]}) == 1


def test_kept_features_need_no_network(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = open_samples(run, PIXELS)
    reference = make_reference(images_of(noise(40)), PIXELS)

    def never(*args: Any) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(PixelExtractor, "__call__", never)
    assert calculate(samples, reference)[0].metrics["fd"] > 0


def test_parts_are_scored_as_if_they_were_alone(tmp_path: Path) -> None:
    pixels = noise(42)
    np.save(tmp_path / "all.npy", pixels.movedim(1, -1).numpy())
    reference = make_reference(images_of(noise(40, 1)), PIXELS)
    metrics = ("fd", "kid", "prdc", "sw2")
    found = calculate(
        open_samples(tmp_path / "all.npy", PIXELS), reference, metrics=metrics, repeats=3, batch=5
    )
    for i, part in enumerate(found):
        np.save(tmp_path / "part.npy", pixels[14 * i : 14 * i + 14].movedim(1, -1).numpy())
        (alone,) = calculate(
            open_samples(tmp_path / "part.npy", PIXELS), reference, metrics=metrics
        )
        assert (part.first, part.n) == (14 * i, 14)
        assert part.metrics == alone.metrics
        assert part.statistics_hash == alone.statistics_hash
    assert len({part.statistics_hash for part in found}) == 3
    first = open_samples(tmp_path / "all.npy", PIXELS, num=14)
    assert calculate(first, reference, metrics=metrics)[0].metrics == found[0].metrics


def test_the_first_samples_of_a_generated_folder(run: Path) -> None:
    generated, exported = open_samples(run, PIXELS, num=9), open_images(run, num=9)
    reference = make_reference(images_of(noise(40)), PIXELS)
    features = PIXELS(torch.cat(list(exported.batches(4))))
    assert torch.equal(torch.cat(list(generated.features(4))), features)
    assert calculate(generated, reference)[0].n == 9


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "parts": ({"repeats": 4}, "make no 4 equal parts; use --num 20"),
    "no parts": ({"repeats": 0}, "repeats must be at least 1"),
    "batch": ({"batch": 0}, "batch must be at least 1"),
    "metric": ({"metrics": ("fid",)}, "metrics must be of fd, kid"),
    "too few": ({"metrics": ("fd_infinity",)}, "fd_infinity needs at least 64 samples"),
    "too few in parts": ({"repeats": 11, "metrics": ("prdc",)}, "prdc needs at least 4 samples"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_scored_is_refused_first(
    run: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    settings, reason = REFUSED[name]
    samples = open_samples(run, PIXELS)
    reference = make_reference(images_of(noise(40)), PIXELS)
    monkeypatch.setattr(type(samples), "features", None)
    with pytest.raises(ValueError, match=reason):
        calculate(samples, reference, **settings)


def test_sums_are_of_all_samples(tmp_path: Path) -> None:
    generate_images(small_run(keep="none", extractor=PIXELS), tmp_path)
    with pytest.raises(ValueError, match="leave out --num"):
        open_samples(tmp_path, PIXELS, num=3)
    with pytest.raises(ValueError, match="leave out --repeats"):
        score(open_samples(tmp_path, PIXELS), images_of(noise(40)), repeats=2)
    with pytest.raises(ValueError, match="cannot be had of sums"):
        score(open_samples(tmp_path, PIXELS), images_of(noise(40)), metrics=("fd", "kid"))


def test_an_unfinished_folder_has_no_score(tmp_path: Path) -> None:
    generate_images(small_run(), tmp_path, rank=0, world=2)
    with pytest.raises(ValueError, match="lacks 3 of its units; generate the rest first"):
        open_samples(tmp_path, PIXELS)


def test_a_reference_may_be_statistics_or_images(tmp_path: Path) -> None:
    folder = save_all(tmp_path / "real", coloured(9, 4)[..., :1])
    made = find_reference(str(folder), PIXELS)
    assert made.features is None  # nothing asked for them
    assert find_reference(str(folder), PIXELS, metrics=("kid",)).features is not None
    save_reference(made, tmp_path / "ref.npz")
    assert find_reference(str(tmp_path / "ref.npz"), PIXELS).hash == made.hash
    np.savez(tmp_path / "images.npz", coloured(9, 4)[..., :1])
    assert find_reference(str(tmp_path / "images.npz"), PIXELS).hash == made.hash
    with pytest.raises(FileNotFoundError, match=r"no reference .*nowhere.npz; make one"):
        find_reference(str(tmp_path / "nowhere.npz"), PIXELS)


def test_titles_count_what_was_used() -> None:
    published = PixelExtractor(SHAPE)
    published.comparable = True  # type: ignore[misc]
    assert column_title(published, "fid", 50_000) == "FID-50k"
    assert column_title(FashionExtractor(), "fd_fashion", 512) == "FD-fashion-512"
    assert column_title(published, "kid", 50_000) == "KID-10k"  # of 10,000 of them
    assert column_title(FashionExtractor(), "recall", 300) == "Recall-fashion-300"


def test_pairs(tmp_path: Path, run: Path) -> None:
    first = noise(20)
    second = (first.long() + 1).clamp(max=255).to(torch.uint8)
    shares = float((first != second).double().mean())
    found = paired_difference(images_of(first), images_of(second), batch=6)
    assert found.n == 20
    assert found.rmse == pytest.approx(shares**0.5 / 127.5, rel=1e-12)  # exact but for the root
    assert found.psnr == pytest.approx(20 * np.log10(255 / shares**0.5), rel=1e-12)
    assert paired_difference(images_of(first), images_of(first)).psnr == float("inf")
    with pytest.raises(ValueError, match="make no pairs: images 20 and 22"):
        paired_difference(images_of(first), open_images(run))
    generate_images(small_run(seeds=range(200, 222)), tmp_path)
    with pytest.raises(ValueError, match="seeds 100-121 and 200-221"):
        paired_difference(open_images(run), open_images(tmp_path))


def test_json_is_json(run: Path) -> None:
    (found,) = score(open_samples(run, PIXELS), images_of(noise(40)))
    assert json.loads(json.dumps(found.table()))["metrics"]["fd"] == found.metrics["fd"]
