"""Finds the FID Inception weights, fetches them where that is possible, and checks them.

The network of TTUR's FID (inception-2015-12-05) as tensors for torch: one file, published under
two names. It is not part of fewstep (91 MiB); nothing else ever takes its place.
"""

import hashlib
import io
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

if TYPE_CHECKING:
    import torch
    from torch import Tensor

URL = (
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth"
)
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
# pytorch-fid's name and torch-fidelity's, for the same bytes.
PUBLISHED_NAMES = (
    "pt_inception-2015-12-05-6726825d.pth",
    "weights-inception-2015-12-05-6726825d.pth",
)
VARIABLE = "FEWSTEP_INCEPTION"
TIMEOUT = 20  # seconds without an answer

logger = logging.getLogger(__name__)


class ExtractorUnavailableError(OSError):
    """An extractor cannot be had on this machine; the command line ends with ``exit_code``."""

    exit_code = 3


def find_weights(given: Path | None = None, *, download: bool = True) -> Path:
    """Where the weights are; looks for a file, does not read it.

    In this order: ``given``, the file that ``FEWSTEP_INCEPTION`` names, torch hub's checkpoint
    folder under either published name, a download into that folder. A file that is asked for by
    name and missing is an error: nothing else is taken instead.

    Args:
        given: the path that the user named, if any.
        download: whether to try that.

    Raises:
        ExtractorUnavailableError: if the file is nowhere, with the address, the place it belongs
            and what works without it.
    """
    origin = "given"
    if given is None and (named := os.environ.get(VARIABLE)):
        given, origin = Path(named), VARIABLE
    if given is not None:
        if not given.is_file():
            raise ExtractorUnavailableError(_absent(f"no file at {given} ({origin})"))
        return given
    for name in PUBLISHED_NAMES:
        if (_checkpoints() / name).is_file():
            return _checkpoints() / name
    if not download:
        raise ExtractorUnavailableError(_absent("not in torch hub's folder"))
    target = _checkpoints() / PUBLISHED_NAMES[0]
    try:
        _download(target)
    except (OSError, HTTPException) as error:  # URLError and time-outs are OSErrors
        reason = f"not in torch hub's folder, and the download failed: {error}"
        raise ExtractorUnavailableError(_absent(reason)) from error
    return target


def _checkpoints() -> Path:
    """Torch hub's folder; where torch is not imported yet, by the variables that it goes by."""
    if hub := sys.modules.get("torch.hub"):
        return Path(hub.get_dir()) / "checkpoints"
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))
    return Path(home).expanduser() / "hub" / "checkpoints"


def _absent(reason: str) -> str:
    return (
        f"the FID Inception weights are missing ({reason}); fetch {URL} where there is a network "
        f"and put it at {_checkpoints() / PUBLISHED_NAMES[0]}, or set {VARIABLE} to its path; "
        "offline, fd-cnn:fashion needs no download (its distance is not an FID)"
    )


def _download(target: Path) -> None:
    """Fetches the file; at ``target`` it appears whole and right, or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        unfinished = Path(folder) / target.name
        with urlopen(URL, timeout=TIMEOUT) as answer, unfinished.open("wb") as file:
            shutil.copyfileobj(answer, file)
        found = hashlib.sha256(unfinished.read_bytes()).hexdigest()
        if found != INCEPTION_SHA256:
            raise OSError(f"what came has SHA-256 {found}, not {INCEPTION_SHA256}")
        unfinished.replace(target)


def read_weights(
    path: Path, shapes: "Mapping[str, torch.Size]", expected_sha256: str = INCEPTION_SHA256
) -> "dict[str, Tensor]":
    """The tensors of the file, after checks of its SHA-256, its names, shapes and dtypes.

    Args:
        path: the file.
        shapes: the shape of every tensor that the network has, by name; those that end in
            ``num_batches_tracked`` play no part in evaluation and may be missing.
        expected_sha256: of the whole file; another one than the default is for tests.

    Raises:
        ExtractorUnavailableError: if any check fails.
    """
    import torch

    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    logger.info("FID Inception weights: %s, SHA-256 %s", path, found)
    if found != expected_sha256:
        raise _refused(path, f"its SHA-256 is {found}, not {expected_sha256}")
    try:
        tensors = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes end in nearly any: IndexError, struct.error, ...
        raise _refused(path, f"torch cannot read it ({type(error).__name__})") from error
    if not isinstance(tensors, dict):
        raise _refused(path, f"it holds a {type(tensors).__name__}, not tensors by name")
    if problem := _mismatch(tensors, shapes):
        raise _refused(path, problem)
    return tensors


def _mismatch(tensors: Mapping[str, object], shapes: "Mapping[str, torch.Size]") -> str:
    """What the tensors lack, in words; nothing if they fit."""
    import torch

    needed = {name for name in shapes if not name.endswith("num_batches_tracked")}
    missing, unknown = needed - tensors.keys(), tensors.keys() - shapes.keys()
    if missing or unknown:
        examples = ", ".join(sorted(map(str, missing | unknown))[:3])
        return f"{len(missing)} tensors are missing, {len(unknown)} unknown ({examples})"
    for name in sorted(needed):
        tensor, wanted = tensors[name], f"{tuple(shapes[name])} {torch.float32}"
        got = type(tensor).__name__
        if isinstance(tensor, torch.Tensor):
            got = f"{tuple(tensor.shape)} {tensor.dtype}"
        if got != wanted:
            return f"{name} is {got}, not {wanted}"
    return ""


def _refused(path: Path, reason: str) -> ExtractorUnavailableError:
    return ExtractorUnavailableError(
        f"{path} is not the published FID Inception file: {reason}; delete it or name another, "
        f"from {URL}"
    )
