"""What tells one model from another: hashes of its weights and settings, and of its own code.

What it does besides is in its answers (:mod:`fewstep.eval.problems.answers`).
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewstep.eval.common.cache import digest
from fewstep.eval.common.imports import file_of, is_ours, is_own
from fewstep.eval.common.source_code import LOADED, Code

WEIGHTS, READ = "weights and settings", "values that its code reads"
# Keys of configs that say who saved a network, and how, not what it is.
_INCIDENTAL = ("transformers_version", "dtype", "torch_dtype")


def model_fingerprint(modules: Mapping[str, nn.Module], *texts: str) -> str:
    """SHA-256 of networks by name, in the order of their names, and of texts beside them.

    Every entry of a state dict counts with its name, shape, dtype and bits, and so do a network's
    class and its ``config``, as diffusers and transformers have one.
    """
    return digest(_parts(modules, texts))


def own_code(*values: Any, beside: Iterable[ModuleType] = ()) -> dict[str, str]:
    """SHA-256 of each file of the user's own behind objects, and of what their functions read.

    Comments, docstrings and layout do not count. Code of installed packages does not either: their
    versions are elsewhere, and what they do shows in a model's answers.

    Args:
        values: a model's parts.
        beside: modules that count with all that they import, installed or not.
    """
    code = Code()
    code.add_readable(*values)
    named = [module.__name__ for module in beside]
    code.modules.update(name for name in named if file_of(name) is not None)
    packages = {name.partition(".")[0] for name in named}
    sources = code.sources(lambda name: not is_ours(name), packages)
    files = {f"code of {name}": digest([text]) for name, text in sources.items()}
    told = ((label.removeprefix(LOADED), _plain(value)) for label, value in code.data)
    read = sorted({f"{label} = {text}" for label, text in told if text})
    return {**files, **({READ: digest(read)} if read else {})}


def fingerprint_of(parts: Mapping[str, str]) -> str:
    """One hash of all parts of a model."""
    return digest(f"{name}: {parts[name]}" for name in sorted(parts))


def written(value: Any) -> str:
    """A setting as a text: tensors, also those in dicts, by a hash of their values."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {written(entry)}" for key, entry in value.items())
    if isinstance(value, Tensor):
        return f"{value.dtype} {digest([_readable(value)])}"
    return repr(value)


def _parts(modules: Mapping[str, nn.Module], texts: tuple[str, ...]) -> Iterator[str | Tensor]:
    yield from texts
    for name in sorted(modules):
        yield f"{name}: {type(modules[name]).__name__} {_settings(modules[name])}"
        buffers = dict(modules[name].named_buffers())  # those that are not saved, too
        weights = {**buffers, **modules[name].state_dict()}
        for key in sorted(weights):
            yield f"{key}: {weights[key].dtype}"
            yield _readable(weights[key])


def _settings(module: nn.Module) -> str:
    """Its config; of the user's own classes, and of those in it, also the plain attributes."""
    own = [
        f"{name} {key} = {text}"
        for name, part in module.named_modules() if _is_users(type(part))
        for key, value in sorted(vars(part).items())
        if not key.startswith("_") and (text := _plain(value))
    ]  # fmt: skip
    return "; ".join([_config(module), *own])


def _is_users(kind: type) -> bool:
    path = file_of(kind.__module__)
    return path is not None and is_own(kind.__module__, path) and not is_ours(kind.__module__)


def _plain(value: Any) -> str:
    """Numbers, texts and tensors, alone or together; nothing for anything else.

    Paths are nothing too: they change with the place, and what is read there shows elsewhere.
    """
    if isinstance(value, str):
        return "" if os.sep in value else repr(value)
    if value is None or isinstance(value, bool | int | float | complex):
        return repr(value)
    if isinstance(value, Tensor):
        return "" if value.is_meta else written(value)
    if isinstance(value, np.ndarray | np.generic):
        return "" if value.dtype.hasobject else f"{value.dtype} {digest([value.tobytes()])}"
    if isinstance(value, Mapping):
        value = [entry for item in value.items() for entry in item]
    if not isinstance(value, list | tuple):
        return ""
    entries = [_plain(entry) for entry in value]
    return f"[{', '.join(entries)}]" if all(entries) else ""


def _config(module: nn.Module) -> str:
    config: Any = getattr(module, "config", None)
    if hasattr(config, "to_diff_dict"):  # of transformers: what differs from its class' defaults
        config = config.to_diff_dict()
    if not isinstance(config, Mapping):
        return ""
    known = {
        key: value for key, value in config.items()
        if not key.startswith("_") and key not in _INCIDENTAL
    }  # fmt: skip
    return json.dumps(known, sort_keys=True, default=str)


def _readable(weight: Tensor) -> Tensor:
    # numpy, through which tensors are hashed, has no bfloat16; two bytes are two bytes.
    return weight.view(torch.int16) if weight.dtype == torch.bfloat16 else weight
