r"""Denoisers around networks: whatever a network predicts, they return the data prediction x0.

At x = alpha x0 + sigma eps the four usual predictions are related by

=================== ========================= ========================================
prediction type     the network's output      x0
=================== ========================= ========================================
``epsilon``         eps                       (x - sigma eps) / alpha
``sample``          x0                        itself
``v_prediction``    alpha eps - sigma x0      (alpha x - sigma v) / (alpha^2 + sigma^2)
``flow_prediction`` eps - x0                  (x - sigma v) / (alpha + sigma)
=================== ========================= ========================================

(v: Salimans and Ho, arXiv:2202.00512, appendix D; flow: Lipman et al., arXiv:2210.02747.) The
denominators are 1 for a variance-preserving process and for a flow.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from fewstep.schedules import NoiseProcess
from fewstep.types import Level

PredictionType = Literal["epsilon", "sample", "v_prediction", "flow_prediction"]


def to_data(output: Tensor, x: Tensor, level: Level, prediction_type: PredictionType) -> Tensor:
    """The data prediction x0 from a network's output at ``x``; shapes are equal.

    Raises:
        ValueError: for an unknown type, or epsilon where alpha = 0 (it does not determine x0).
    """
    alpha, sigma = level.alpha, level.sigma
    if prediction_type == "sample":
        return output
    if prediction_type == "v_prediction":
        return (alpha * x - sigma * output) / (alpha**2 + sigma**2)
    if prediction_type == "flow_prediction":
        return (x - sigma * output) / (alpha + sigma)
    if prediction_type != "epsilon":
        raise ValueError(_unknown(prediction_type))
    if alpha == 0:
        raise ValueError(
            f"an epsilon prediction says nothing about the data at time {level.time:g}, where "
            "alpha = 0; zero terminal SNR needs a network trained with v_prediction"
        )
    return (x - sigma * output) / alpha


def _unknown(prediction_type: str) -> str:
    known = ", ".join(get_args(PredictionType))
    return f"unknown prediction_type {prediction_type!r}; known: {known}"


def _module_dtype(model: Any, default: torch.dtype) -> torch.dtype:
    """What a network computes in: its first floating-point parameter's dtype."""
    if isinstance(model, nn.Module):
        for parameter in model.parameters():
            if parameter.is_floating_point():
                return parameter.dtype
    return default


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
    ) -> None:
        if prediction_type not in get_args(PredictionType):
            raise ValueError(_unknown(prediction_type))
        self.model, self.process, self.prediction_type = model, process, prediction_type
        self.uncond, self.time_scale = uncond, time_scale
        plain = getattr(model, "_orig_mod", model)  # torch.compile hides the signature
        names = inspect.signature(getattr(plain, "forward", plain)).parameters
        self._x_key = _first(names, ("sample", "hidden_states", "x"), "the noisy sample")
        self._time_key = _first(names, ("timestep", "timesteps", "t"), "the time")
        self._options = {"return_dict": False} if "return_dict" in names else {}
        self._cond_key = cond_key or _guess_cond_key(names)

    def __call__(self, x: Tensor, level: Level, cond: Any = None) -> Tensor:
        dtype = _module_dtype(self.model, x.dtype)
        inputs = {
            self._x_key: x.to(dtype),
            self._time_key: _times(x, self.time_scale * level.time),
            **self._cond_inputs(_expand(self.uncond, len(x)) if cond is None else cond, x, dtype),
            **self._options,
        }
        output = self.model(**inputs)
        output = output if isinstance(output, Tensor) else output[0]
        if output.shape[1] == 2 * x.shape[1]:
            output = output[:, : x.shape[1]]
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
    """

    def __init__(
        self, net: Callable[..., Tensor], process: NoiseProcess, *, null_class: int | None = None
    ) -> None:
        self.net, self.process, self.null_class = net, process, null_class

    def __call__(self, x: Tensor, level: Level, cond: Tensor | None = None) -> Tensor:
        """The data prediction, of the shape and dtype of ``x``.

        Raises:
            ValueError: at alpha = 0, where sigma / alpha is infinite.
        """
        if level.alpha == 0:
            raise ValueError(
                f"an EDM network has no noise level for alpha = 0 (time {level.time:g}); start at "
                "a finite sigma / alpha, with a VE or a discrete VP process"
            )
        dtype = _module_dtype(self.net, x.dtype)
        sigma = torch.full((len(x),), level.sigma / level.alpha, dtype=dtype, device=x.device)
        return self.net((x / level.alpha).to(dtype), sigma, cond).to(x.dtype)

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
        if prediction_type not in get_args(PredictionType):
            raise ValueError(_unknown(prediction_type))
        self.fn, self.process = fn, process
        self.prediction_type, self.passes = prediction_type, passes

    def __call__(self, x: Tensor, level: Level, cond: Any = None) -> Tensor:
        where = level if self.passes == "level" else _times(x, level.time)
        output = self.fn(x, where) if cond is None else self.fn(x, where, cond)
        return to_data(output, x, level, self.prediction_type)
