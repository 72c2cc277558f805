"""Reference solutions on disk: slow to compute, never changing for the same inputs and code."""

import hashlib
import json
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fewstep.eval.common.folders import cache_folder
from fewstep.eval.common.sketches import agree

ANSWERS = "answers"  # of the model, in a file's metadata
_TOLD: set[Path] = set()


def digest(parts: Iterable[str | bytes | Tensor]) -> str:
    """SHA-256 of texts, bytes and tensors (dtype, shape and values), as hex digits."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            data = part.detach().cpu().contiguous()
            content = repr((data.dtype, tuple(data.shape))).encode() + data.numpy().tobytes()
        else:
            content = part.encode() if isinstance(part, str) else part
        # The length keeps ("ab", "c") and ("a", "bc") apart.
        total.update(f"{len(content)}:".encode() + content)
    return total.hexdigest()


def cached(
    key: str | None,
    compute: Callable[[], Tensor],
    answers: Mapping[str, Any] | None = None,
) -> Tensor:
    """The tensor stored under ``key`` (a file-name-safe text), or a computed and stored one.

    The file appears whole or not at all, so processes may share the folder. Without a key the
    tensor is computed anew. A folder that cannot be used is warned about, once, and done without.

    Args:
        key: holds all that the tensor depends on, but for what the model answers.
        compute: makes the tensor.
        answers: of the model (``Problem.answers``), stored beside the tensor; a
            tensor of other answers is computed anew.
    """
    if key is None:
        return compute()
    path = cache_folder() / "references" / f"{key}.safetensors"
    stored = _stored(path, answers)
    if stored is not None:
        return stored
    value = compute().contiguous()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            unfinished = Path(folder) / "x.safetensors"
            save_file({"x": value}, unfinished, {ANSWERS: json.dumps(answers)})
            unfinished.replace(path)
    except (OSError, SafetensorError) as error:  # a full disk is either
        _warn(path, error)
    return value


def _stored(path: Path, answers: Mapping[str, Any] | None) -> Tensor | None:
    try:
        with safe_open(path, "pt") as file:
            known = json.loads((file.metadata() or {}).get(ANSWERS, "null"))
            return file.get_tensor("x") if agree(known, answers) else None
    except (FileNotFoundError, SafetensorError):  # one that is damaged is made again
        return None
    except OSError as error:
        _warn(path, error)
        return None


def _warn(path: Path, error: Exception) -> None:
    """Tells of a folder, once."""
    if path.parent in _TOLD:
        return
    _TOLD.add(path.parent)
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    warnings.warn(
        f"the cache in {path.parent} cannot be used ({reason}): this run computes what it needs, "
        "and keeps nothing; set FEWSTEP_CACHE to a folder that can be written",
        stacklevel=3,
    )
