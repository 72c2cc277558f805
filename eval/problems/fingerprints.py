"""What tells one model from another: a hash of its weights and settings."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.eval.cache import digest

# Keys of configs that say who saved a network, and how, not what it is.
_INCIDENTAL = ("transformers_version", "dtype", "torch_dtype")


def model_fingerprint(modules: Mapping[str, nn.Module], *texts: str) -> str:
    """SHA-256 of networks by name, in the order of their names, and of texts beside them.

    Every entry of a state dict counts with its name, shape, dtype and bits, and so do a network's
    class and its ``config``, as diffusers and transformers have one.
    """
    return digest(_parts(modules, texts))


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
        weights = modules[name].state_dict()
        for key in sorted(weights):
            yield f"{key}: {weights[key].dtype}"
            yield _readable(weights[key])


def _settings(module: nn.Module) -> str:
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
