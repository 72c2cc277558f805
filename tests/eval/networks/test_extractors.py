"""Every registered extractor keeps the protocol's promises, and names say what is an FID."""

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from random_inception import pictures, random_tensors, save
from torch import Tensor

from fewstep.eval.common.limits import LARGEST_FEATURE
from fewstep.eval.metrics.choices import NOT_COMPARABLE
from fewstep.eval.metrics.judge import Judge
from fewstep.eval.metrics.names import comparison_note, metric_name
from fewstep.eval.networks import extractors, inception, inception_weights
from fewstep.eval.networks.extractors import Extractor
from fewstep.eval.networks.families import EXTRACTORS, load_extractor
from fewstep.eval.networks.inception import InceptionExtractor
from fewstep.eval.networks.inception_weights import VARIABLE, ExtractorUnavailableError
from fewstep.models.bundled import weights_sha256
from fewstep.models.data import to_signed

NAMES = ["inception:edm", "fd-cnn:fashion", "pixels:1x28x28"]


@pytest.fixture(scope="module", params=NAMES)
def extractor(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Extractor:
    if not request.param.startswith("inception"):
        return load_extractor(request.param)
    pytest.importorskip("pytorch_fid")
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    sha256 = save(random_tensors(), path)
    return InceptionExtractor(weights=path, expected_sha256=sha256)


def test_every_family_is_tested() -> None:
    assert {name.partition(":")[0] for name in NAMES} == EXTRACTORS.keys()


def test_features_fit_the_description(extractor: Extractor) -> None:
    images = pictures(3, channels=1, size=28)
    found = extractor(images)
    assert found.shape == (3, extractor.dim)
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    assert found.abs().max() <= extractor.bound
    assert not torch.equal(found[0], found[1])
    assert extractor.name in NAMES
    assert re.fullmatch("[0-9a-f]{64}", extractor.fingerprint)
    assert extractor(images[:0]).shape == (0, extractor.dim)


def test_scale_leaves_room_for_exact_sums(extractor: Extractor) -> None:
    assert extractor.bound * extractor.scale <= LARGEST_FEATURE
    assert math.log2(extractor.scale).is_integer()
    assert 128 * LARGEST_FEATURE**2 <= 2**53


def test_each_row_depends_on_its_image_alone(extractor: Extractor) -> None:
    images = pictures(9, channels=1, size=28)
    together = extractor(images)
    assert torch.equal(torch.cat([extractor(images[:2]), extractor(images[2:])]), together)
    assert torch.equal(extractor(images.flip(0)), together.flip(0))


def test_only_eight_bit_images_are_taken(extractor: Extractor) -> None:
    with pytest.raises(TypeError, match="must be uint8"):
        extractor(torch.zeros(1, 1, 28, 28))
    with pytest.raises(ValueError, match=r"got \(1, 28, 28\)"):
        extractor(torch.zeros(1, 28, 28, dtype=torch.uint8))


def test_fashion_features_are_the_judges() -> None:
    extractor, images = load_extractor("fd-cnn:fashion"), pictures(5, channels=1, size=28)
    # Another batch size: convolutions sum in another order.
    torch.testing.assert_close(
        extractor(images), Judge()(to_signed(images))[0], rtol=1e-5, atol=1e-5
    )
    assert extractor.fingerprint == weights_sha256("classifier")
    with pytest.raises(ValueError, match=r"28 x 28 pixels, got \(2, 1, 32, 32\)"):
        extractor(pictures(2, channels=1))


def test_pixel_features_are_the_pixels() -> None:
    extractor, images = load_extractor("pixels:3x8x6"), pictures(2, size=8)[..., :6]
    assert extractor.dim == 144
    back = (extractor(images) + 1) * 127.5
    assert torch.equal(back.round().to(torch.uint8).view(2, 3, 8, 6), images)
    with pytest.raises(
        ValueError, match=r"pixels:3x8x6 cannot take images of shape \(1, 3, 6, 8\)"
    ):
        extractor(images[:1].transpose(2, 3))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dino", "unknown extractor 'dino'; known families: inception, fd-cnn, pixels"),
        ("fd-cnn", "fd-cnn has a classifier of fashion only, got ''"),
        ("fd-cnn:cifar10", "got 'cifar10'"),
        ("pixels", "as in pixels:3x32x32; got ''"),
        ("pixels:3x32", "as in pixels:3x32x32; got '3x32'"),
        ("pixels:0x8x8", "got '0x8x8'"),
        ("inception:tf2", "unknown protocol 'tf2'"),
    ],
)
def test_unknown_names_are_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        load_extractor(name)


@pytest.mark.parametrize("name", NAMES[1:])
def test_weights_are_for_inception_only(name: str) -> None:
    with pytest.raises(ValueError, match=r"no weights of its own to choose, got mine\.pth"):
        load_extractor(name, weights=Path("mine.pth"))


def test_inception_without_weights_ends_before_any_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On construction, so a benchmark that makes its extractor first has sampled nothing yet."""
    pytest.importorskip("pytorch_fid")

    def offline(url: str, timeout: float) -> None:
        raise OSError("offline")

    monkeypatch.setattr(inception_weights, "urlopen", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(ExtractorUnavailableError, match="fd-cnn:fashion") as caught:
        load_extractor("inception:clean")
    assert caught.value.exit_code == 3


def test_variant_device_and_weights_reach_the_family(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inception, "InceptionExtractor", lambda *got: SimpleNamespace(got=got))
    path = Path("w.pth")
    assert load_extractor("inception").got == ("edm", "cpu", None)  # type: ignore[attr-defined]
    clean = load_extractor("inception:clean", "cuda", path)
    assert clean.got == ("clean", "cuda", path)  # type: ignore[attr-defined]


@dataclass
class Described:
    """An extractor of somebody else's."""

    name: str
    comparable: bool = False
    dim: int = 3
    fingerprint: str = "0" * 64
    bound: float = 1.0
    scale: float = 1.0

    def __call__(self, images: Tensor) -> Tensor:
        return images.float().mean(dim=(2, 3))


def test_a_family_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRACTORS, "colour", lambda variant, *_: Described(f"colour:{variant}"))
    assert load_extractor("colour:mean")(pictures(2)).shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "comparable", "n", "expected"),
    [
        ("inception:edm", True, 50_000, "FID-50k"),
        ("inception:clean", True, 5_000, "FID-5k"),
        ("inception:edm", True, 49_999, "FID-49999"),
        ("inception:edm", True, 500_000, "FID-500k"),
        ("inception:edm", False, 50_000, "FD-inception-edm-50k"),
        ("fd-cnn:fashion", False, 512, "FD-fashion-512"),
        ("pixels:3x32x32", False, 1_000, "FD-pixels-3x32x32-1k"),
        ("colour:mean", False, 50_000, "FD-colour-mean-50k"),
    ],
)
def test_names_carry_the_count_and_only_inception_is_fid(
    name: str, comparable: bool, n: int, expected: str
) -> None:
    extractor = replace(Described(name), comparable=comparable)
    assert metric_name(extractor, n) == expected
    assert comparison_note(extractor, n) == ("" if expected == "FID-50k" else NOT_COMPARABLE)


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_precision_of_products_does_not_get_into_features(precision: str) -> None:
    """A CPU shows it if it has instructions for bfloat16; the setting comes back afterwards."""
    extractor = extractors.FashionExtractor()
    images = torch.randint(
        256, (3, 1, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    features = extractor(images)
    logits = extractor.logits(features)
    torch.set_float32_matmul_precision(precision)
    try:
        assert torch.equal(extractor(images), features)
        assert torch.equal(extractor.logits(features), logits)
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision("highest")
