"""Denoisers around networks: whatever a network predicts, they return the data prediction x0."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fewstep.models.calls import called, name_of, returned
from fewstep.models.prediction import (
    PredictionType,
    check_prediction_type,
    edm_input,
    to_data,
)
from fewstep.schedules import NoiseProcess
from fewstep.types import Level

__all__ = [
    "CallableDenoiser",
    "DiffusersDenoiser",
    "EDMDenoiser",
    "PredictionType",
    "to_data",
]


def _module_dtype(model: Any, default: torch.dtype) -> torch.dtype:
    """What a network computes in: its first floating-point parameter's dtype."""
    if isinstance(model, nn.Module):
        for parameter in model.parameters():
            if parameter.is_floating_point():
                return parameter.dtype
    return default


def _module(model: Any) -> nn.Module | None:
    # Code that torch.compile made does not see hooks that are set later.
    compiled = hasattr(model, "_orig_mod")
    return model if isinstance(model, nn.Module) and not compiled else None


def _times(x: Tensor, time: float) -> Tensor:
    """``time`` for each of the n rows of x, at least in float32: bfloat16 would round 999."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    return torch.full((x.shape[0],), time, dtype=dtype, device=x.device)


def _expand(value: Any, n: int) -> Any:
    """``value`` for n samples: tensors of one row, or of none, are repeated, in dicts too."""
    if isinstance(value, Mapping):
        return {key: _expand(entry, n) for key, entry in value.items()}
    if isinstance(value, Tensor) and (value.ndim == 0 or value.shape[0] == 1):
        return value.expand(n, *value.shape[1:])
    return value


class DiffusersDenoiser:
    """A diffusers U-Net or transformer as a denoiser.

    The forward signature is read once: ``sample`` or ``hidden_states`` for x, ``timestep`` for the
    time, ``encoder_hidden_states`` or ``class_labels`` for a condition given as a tensor. A
    condition given as a dict is passed as keyword arguments. Outputs with twice the channels
    (learned variances, arXiv:2102.09672) are cut to the first half. The network computes in its own
    dtype; the result has that of ``x``.

    Args:
        model: called as ``model(**inputs, return_dict=False)``; should be in evaluation mode.
        process: the process it was trained with.
        prediction_type: what its output means.
        cond_key: keyword of a tensor condition, where the signature does not tell.
        uncond: condition of the unconditional prediction: a label, an embedding of one row, or a
            dict of them; None leaves the keyword out.
        time_scale: factor on the process's time (Flux is told sigma: 0.001).
        num_classes: how many classes its labels name; None if not known, or without labels.

    Raises:
        ValueError: for an unknown prediction type, or a signature without a sample or a time.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        process: NoiseProcess,
        *,
        prediction_type: PredictionType = "epsilon",
        cond_key: str | None = None,
        uncond: Any = None,
        time_scale: float = 1.0,
        num_classes: int | None = None,
    ) -> None:
        check_prediction_type(prediction_type)
        self.model, self.process, self.prediction_type = model, process, prediction_type
        self.uncond, self.time_scale, self.num_classes = uncond, time_scale, num_classes
        plain = getattr(model, "_orig_mod", model)  # torch.compile hides the signature
        names = inspect.signature(getattr(plain, "forward", plain)).parameters
        self._x_key = _first(names, ("sample", "hidden_states", "x"), "the noisy sample")
        self._time_key = _first(names, ("timestep", "timesteps", "t"), "the time")
        self._options = {"return_dict": False} if "return_dict" in names else {}
        self._cond_key = cond_key or _guess_cond_key(names)

    @property
    def network(self) -> nn.Module | None:
        """The module with the weights, whose parts can be hooked; None for functions."""
        return _module(self.model)

    def __call__(self, x: Tensor, level: Level, cond: Any = None) -> Tensor:
        dtype = _module_dtype(self.model, x.dtype)
        inputs = {
            self._x_key: x.to(dtype),
            self._time_key: _times(x, self.time_scale * level.time),
            **self._cond_inputs(_expand(self.uncond, len(x)) if cond is None else cond, x, dtype),
            **self._options,
        }
        how = f"model({', '.join(f'{key}=' for key in inputs)})"
        output = _sample_of(called(self.model, how, **inputs))
        if isinstance(output, Tensor) and output.ndim > 1 and output.shape[1] == 2 * x.shape[1]:
            output = output[:, : x.shape[1]]
        output = returned(output, x, name_of(self.model))
        return to_data(output.to(x.dtype), x, level, self.prediction_type)

    def null_cond(self, cond: Any) -> Any:
        """``uncond`` repeated to the rows of ``cond``; None where there is no ``uncond``."""
        if self.uncond is None:
            return None
        entries = cond.values() if isinstance(cond, Mapping) else [cond]
        return _expand(self.uncond, next(len(e) for e in entries if isinstance(e, Tensor)))

    def _cond_inputs(self, cond: Any, x: Tensor, dtype: torch.dtype) -> dict[str, Any]:
        if cond is None:
            return {}
        if not isinstance(cond, Mapping):
            if self._cond_key is None:
                raise ValueError(
                    "the model's forward names neither class_labels nor encoder_hidden_states; "
                    "pass cond_key=, or cond as a dict of its keyword arguments"
                )
            cond = {self._cond_key: cond}
        return {key: _to_network(value, x, dtype) for key, value in cond.items()}


def _sample_of(output: Any) -> Any:
    """The tensor of what diffusers' networks return: a tuple, or an output with names."""
    if hasattr(output, "to_tuple"):
        output = output.to_tuple()
    return output[0] if isinstance(output, tuple) and output else output


def _to_network(value: Any, x: Tensor, dtype: torch.dtype) -> Any:
    if not isinstance(value, Tensor):
        return value
    return value.to(x.device, dtype) if value.is_floating_point() else value.to(x.device)


def _first(names: Mapping[str, Any], candidates: tuple[str, ...], what: str) -> str:
    for name in candidates:
        if name in names:
            return name
    raise ValueError(
        f"cannot tell which argument of the model's forward is {what}: looked for "
        f"{', '.join(candidates)}, found {', '.join(names)}; wrap the model in CallableDenoiser"
    )


def _guess_cond_key(names: Mapping[str, inspect.Parameter]) -> str | None:
    # U-Nets with cross-attention take optional class labels beside the text they require.
    text, labels = "encoder_hidden_states", "class_labels"
    if text in names and (names[text].default is inspect.Parameter.empty or labels not in names):
        return text
    return labels if labels in names else None


class EDMDenoiser:
    """A network of EDM's kind, D(x; sigma, labels) for x = x0 + sigma noise, on any process.

    At x = alpha x0 + sigma noise it is asked D(x / alpha; sigma / alpha).

    Args:
        net: called as ``net(x, sigma, labels)``, sigma of shape (n,), labels possibly None.
        process: which levels are sampled.
        null_class: integer label of the unconditional prediction; networks that take one-hot
            labels are given zeros.
        num_classes: how many classes its labels name; None if not known.
    """

    def __init__(
        self,
        net: Callable[..., Tensor],
        process: NoiseProcess,
        *,
        null_class: int | None = None,
        num_classes: int | None = None,
    ) -> None:
        self.net, self.process = net, process
        self.null_class, self.num_classes = null_class, num_classes

    @property
    def network(self) -> nn.Module | None:
        """The module with the weights, whose parts can be hooked; None for functions."""
        return _module(self.net)

    def __call__(self, x: Tensor, level: Level, cond: Tensor | None = None) -> Tensor:
        """The data prediction, of the shape and dtype of ``x``.

        Raises:
            TypeError: for a network that takes other arguments, or returns no tensor.
            ValueError: at alpha = 0, where sigma / alpha is infinite; for another shape.
        """
        dtype = _module_dtype(self.net, x.dtype)
        inputs = edm_input(x, level, dtype, "an EDM network")
        output = called(self.net, "net(x, sigma, labels)", *inputs, cond)
        return returned(output, x, name_of(self.net)).to(x.dtype)

    def null_cond(self, cond: Tensor) -> Tensor | None:
        """The unconditional labels of the shape of ``cond``; None where they are not known."""
        if cond.is_floating_point():
            return torch.zeros_like(cond)
        return None if self.null_class is None else torch.full_like(cond, self.null_class)


class CallableDenoiser:
    """A function as a denoiser.

    Args:
        fn: called as ``fn(x, time)`` or, if there is a condition, ``fn(x, time, cond)``.
        process: which levels are sampled.
        prediction_type: what it returns.
        passes: its second argument: ``"time"``, an (n,) tensor of network times, or ``"level"``.
    """

    def __init__(
        self,
        fn: Callable[..., Tensor],
        process: NoiseProcess,
        *,
        prediction_type: PredictionType = "sample",
        passes: Literal["time", "level"] = "time",
    ) -> None:
        check_prediction_type(prediction_type)
        self.fn, self.process = fn, process
        self.prediction_type, self.passes = prediction_type, passes

    @property
    def network(self) -> nn.Module | None:
        """The module with the weights, whose parts can be hooked; None for functions."""
        return _module(self.fn)

    def __call__(self, x: Tensor, level: Level, cond: Any = None) -> Tensor:
        where = level if self.passes == "level" else _times(x, level.time)
        inputs = (x, where) if cond is None else (x, where, cond)
        how = f"fn({', '.join(['x', self.passes, 'cond'][: len(inputs)])})"
        output = returned(called(self.fn, how, *inputs), x, name_of(self.fn))
        return to_data(output, x, level, self.prediction_type)
