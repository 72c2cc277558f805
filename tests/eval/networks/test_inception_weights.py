"""The search for the Inception file, its download and its checks; nothing here has a network."""

import hashlib
import io
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch

from fewstep.eval.networks import inception_weights
from fewstep.eval.networks.inception_weights import (
    INCEPTION_SHA256,
    PUBLISHED_NAMES,
    URL,
    VARIABLE,
    ExtractorUnavailableError,
    find_weights,
    read_weights,
)

SHAPES = {"a.weight": torch.Size([3, 2]), "a.num_batches_tracked": torch.Size([])}


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty torch hub checkpoint folder, no variable, no network."""

    def offline(url: str, timeout: float) -> None:
        raise URLError("no network here")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(inception_weights, "urlopen", offline)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def tensors() -> dict[str, Any]:
    return {"a.weight": torch.arange(6.0).view(3, 2), "a.num_batches_tracked": torch.tensor(0)}


def write(path: Path, content: object, **how: Any) -> str:
    torch.save(content, path, **how)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_search_order(tmp_path: Path, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each place is taken before all that come after it."""
    for path in reversed([tmp_path / "variable", *(hub / name for name in PUBLISHED_NAMES)]):
        path.touch()
        if path.parent == hub:
            assert find_weights() == path
        else:
            monkeypatch.setenv(VARIABLE, str(path))
            assert find_weights() == path
    given = tmp_path / "given"
    given.touch()
    assert find_weights(given) == given


def test_a_named_file_is_never_replaced(
    tmp_path: Path, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (hub / PUBLISHED_NAMES[0]).touch()
    with pytest.raises(ExtractorUnavailableError, match=r"no file at .*absent \(given\)"):
        find_weights(tmp_path / "absent")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "gone"))
    with pytest.raises(ExtractorUnavailableError, match=rf"gone \({VARIABLE}\)"):
        find_weights()


@pytest.mark.parametrize("download", [True, False])
def test_offline_message_says_what_to_do(hub: Path, download: bool) -> None:
    with pytest.raises(ExtractorUnavailableError) as caught:
        find_weights(download=download)
    message = str(caught.value)
    assert message.count("https://") == message.count(URL) == 1
    for part in (str(hub / PUBLISHED_NAMES[0]), VARIABLE, "fd-cnn:fashion"):
        assert part in message
    assert ("no network here" in message) == download
    assert "\n" not in message
    assert caught.value.exit_code == 3
    assert not list(hub.iterdir())


def answers(content: bytes) -> Callable[..., io.BytesIO]:
    return lambda url, timeout: io.BytesIO(content)


def test_download_goes_to_the_hub_folder(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"the right bytes"
    monkeypatch.setattr(inception_weights, "urlopen", answers(content))
    monkeypatch.setattr(inception_weights, "INCEPTION_SHA256", hashlib.sha256(content).hexdigest())
    path = find_weights()
    assert path == hub / PUBLISHED_NAMES[0]
    assert path.read_bytes() == content
    assert list(hub.iterdir()) == [path]


def test_a_wrong_download_leaves_nothing(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inception_weights, "urlopen", answers(b"<html>log in first</html>"))
    with pytest.raises(ExtractorUnavailableError, match="what came has SHA-256"):
        find_weights()
    assert not list(hub.iterdir())


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_reading_returns_the_tensors(
    tmp_path: Path, zipped: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "w.pth"
    sha256 = write(path, tensors(), _use_new_zipfile_serialization=zipped)
    with caplog.at_level(logging.INFO):
        found = read_weights(path, SHAPES, sha256)
    assert torch.equal(found["a.weight"], tensors()["a.weight"])
    assert sha256 in caplog.text
    assert str(path) in caplog.text


def test_counts_of_batches_may_be_missing(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    sha256 = write(path, {"a.weight": tensors()["a.weight"]})
    assert read_weights(path, SHAPES, sha256).keys() == {"a.weight"}


def test_another_file_is_refused_by_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    sha256 = write(path, tensors())
    with pytest.raises(ExtractorUnavailableError) as caught:
        read_weights(path, SHAPES)
    for part in (str(path), sha256, INCEPTION_SHA256, URL):
        assert part in str(caught.value)


def test_the_hash_is_that_of_the_published_names() -> None:
    for name in (*PUBLISHED_NAMES, URL):
        assert Path(name).stem.endswith(INCEPTION_SHA256[:8])


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_truncated_files_are_refused(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "w.pth"
    write(path, tensors(), _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    for length in range(0, len(content) - 100, max(1, len(content) // 23)):
        path.write_bytes(content[:length])
        with pytest.raises(ExtractorUnavailableError, match="torch cannot read it"):
            read_weights(path, SHAPES, hashlib.sha256(content[:length]).hexdigest())


class Dangerous:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("made by unpickling",)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([1, 2], "holds a list"),
        ({}, r"1 tensors are missing, 0 unknown \(a.weight\)"),
        (tensors() | {"b": torch.zeros(1)}, r"0 tensors are missing, 1 unknown \(b\)"),
        (tensors() | {"a.weight": torch.zeros(2, 3)}, r"\(2, 3\) torch.float32, not \(3, 2\)"),
        (tensors() | {"a.weight": torch.zeros(3, 2).half()}, r"a.weight is \(3, 2\) torch.float16"),
        (tensors() | {"a.weight": [0.0]}, "a.weight is list, not"),
        (tensors() | {"a.weight": Dangerous()}, "torch cannot read it"),
    ],
)
def test_other_contents_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "w.pth"
    sha256 = write(path, content)
    with pytest.raises(ExtractorUnavailableError, match=reason):
        read_weights(path, SHAPES, sha256)
    assert not (tmp_path / "made by unpickling").exists()
