"""Reference solutions on disk: slow to compute, never changing for the same inputs and code."""

import hashlib
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from fewstep.eval.folders import cache_folder as cache_folder


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


def cached(key: str | None, compute: Callable[[], Tensor]) -> Tensor:
    """The tensor stored under ``key`` (a file-name-safe text), or a computed and stored one.

    The file appears whole or not at all, so processes may share the folder. Without a key the
    tensor is computed anew.
    """
    if key is None:
        return compute()
    path = cache_folder() / "references" / f"{key}.safetensors"
    if path.exists():
        return load_file(path)["x"]
    value = compute().contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        unfinished = Path(folder) / "x.safetensors"
        save_file({"x": value}, unfinished)
        unfinished.replace(path)
    return value
