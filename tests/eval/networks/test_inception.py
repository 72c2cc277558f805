"""The Inception extractor, on random weights in a file like the published one.

With those the network is pytorch-fid's up to rounding; that it gives published FIDs with the
published weights cannot be tested offline.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("pytorch_fid")

from random_inception import pictures, random_tensors, released, save

from fewstep.eval.networks import inception
from fewstep.eval.networks.inception import MICRO_BATCH, InceptionExtractor, build_network
from fewstep.eval.networks.inception_weights import INCEPTION_SHA256, ExtractorUnavailableError
from fewstep.eval.networks.resize import PROTOCOLS

Make = Callable[[str], InceptionExtractor]
AS_RELEASED = MICRO_BATCH["cpu"]


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return random_tensors()


@pytest.fixture(scope="module")
def make(tensors: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Make:
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    sha256 = save(tensors, path)
    return lambda protocol: InceptionExtractor(protocol, weights=path, expected_sha256=sha256)


@pytest.fixture(scope="module", autouse=True)
def few_at_a_time() -> Iterator[None]:
    """Most tests look at one to three images, which would be filled up to eight."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MICRO_BATCH, "cpu", 2)
        yield


@pytest.fixture(scope="module")
def extractor(make: Make) -> InceptionExtractor:
    return make("pytorch-fid")


@torch.no_grad()
def pool3(net: nn.Module, inputs: Tensor) -> Tensor:
    (features,) = net(inputs)
    return features.flatten(1)  # type: ignore[no-any-return]


def relative(found: Tensor, expected: Tensor) -> float:
    """The largest difference of a feature vector, in units of its length."""
    return float(((found - expected).norm(dim=1) / expected.norm(dim=1)).max())


def test_published_file_has_566_tensors() -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in build_network().state_dict().items()}
    assert len(shapes) == 566
    assert shapes["Conv2d_1a_3x3.conv.weight"] == (32, 3, 3, 3)
    assert shapes["Mixed_7c.branch_pool.bn.running_var"] == (192,)
    assert shapes["fc.weight"] == (1008, 2048)


def test_features_are_those_of_pytorch_fid(
    extractor: InceptionExtractor, tensors: dict[str, Tensor]
) -> None:
    """As it is released, resize included; ours has no batch norms and another layout."""
    images = pictures(3)
    expected = pool3(released(tensors), images / 255)
    found = extractor(images)
    assert found.shape == (3, extractor.dim)
    assert found.dtype == torch.float32
    assert relative(found, expected) < 1e-5  # measured: 3e-7
    # The images differ by far more, so that another picture's features would not pass.
    assert relative(found.roll(1, 0), expected) > 1e-2


@pytest.mark.parametrize("protocol", ["edm", "clean"])
def test_other_protocols_feed_the_same_network(
    make: Make, tensors: dict[str, Tensor], protocol: str
) -> None:
    images = pictures(2, size=40)
    net = released(tensors, resize_input=False, normalize_input=False)
    expected = pool3(net, PROTOCOLS[protocol](images))
    assert relative(make(protocol)(images), expected) < 1e-5


def test_features_do_not_depend_on_the_batch(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit: alone, in other company, elsewhere in the batch, in another memory layout."""
    monkeypatch.setitem(MICRO_BATCH, "cpu", AS_RELEASED)
    extractor, images = make("pytorch-fid"), pictures(AS_RELEASED + 1)
    together = extractor(images)  # the last one alone
    assert torch.equal(extractor(images[1:]), together[1:])
    assert torch.equal(extractor(images[:-1].flip(0)), together[:-1].flip(0))
    other_layout = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(extractor(other_layout[:2]), together[:2])


def test_without_onednn_features_are_the_same(
    make: Make, extractor: InceptionExtractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inception, "has_fused_convolutions", lambda: False)
    images = pictures(2)
    assert relative(make("pytorch-fid")(images), extractor(images)) < 1e-5  # measured: 2e-7


def test_grey_images_are_rgb_with_equal_channels(extractor: InceptionExtractor) -> None:
    grey = pictures(2, channels=1)
    assert torch.equal(extractor(grey), extractor(grey.repeat(1, 3, 1, 1)))


def test_autocast_outside_changes_nothing(extractor: InceptionExtractor) -> None:
    images = pictures(1)
    plain = extractor(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(extractor(images), plain)
    assert not plain.requires_grad


def test_loading_draws_nothing_from_the_global_generator(make: Make) -> None:
    before = torch.get_rng_state()
    make("edm")
    assert torch.equal(torch.get_rng_state(), before)


def test_only_the_published_weights_are_comparable(
    extractor: InceptionExtractor, tmp_path: Path, tensors: dict[str, Tensor]
) -> None:
    assert not extractor.comparable
    assert extractor.fingerprint != INCEPTION_SHA256
    path = tmp_path / "random.pth"
    save(tensors, path)
    with pytest.raises(ExtractorUnavailableError, match="its SHA-256 is"):
        InceptionExtractor(weights=path)


def test_images_are_checked(extractor: InceptionExtractor) -> None:
    with pytest.raises(TypeError, match=r"must be uint8 in 0..255, got torch.float32"):
        extractor(pictures(1).float())
    with pytest.raises(ValueError, match=r"c = 1 or 3, got \(1, 2, 32, 32\)"):
        extractor(pictures(1, channels=2))
    with pytest.raises(ValueError, match=r"got \(3, 32, 32\)"):
        extractor(pictures(1)[0])


def test_unknown_protocols_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown protocol 'adm' of inception; known: edm, "):
        InceptionExtractor("adm")


def test_without_pytorch_fid_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_fid.inception", None)
    with pytest.raises(ExtractorUnavailableError, match=r"pip install fewstep\[fid\]") as caught:
        InceptionExtractor()
    assert caught.value.exit_code == 3
