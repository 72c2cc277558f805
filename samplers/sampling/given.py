"""What ``sample`` is given, looked at before anything runs: a line for each mistake.

A mistake that is not stopped here comes out as a traceback from deep inside, or as samples of
something else: a class that is not there, one image less, noise that holds no numbers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewstep.checks import named, whole
from fewstep.finite import finite, is_readable
from fewstep.models.calls import unbindable
from fewstep.schedules.process import NoiseProcess
from fewstep.types import Guidance

ADAPTERS = (
    "wrap it in CallableDenoiser(fn, process), EDMDenoiser(net, process) or "
    "DiffusersDenoiser(model, process) of fewstep.models"
)
HOOK = ("check", "start", "after_step")


def check_denoiser(denoiser: Any) -> None:
    """Raises TypeError for what is no denoiser, with what makes one of it."""
    process = getattr(denoiser, "process", None)
    if callable(denoiser) and not isinstance(denoiser, type) and isinstance(process, NoiseProcess):
        return
    remedy = ADAPTERS
    if isinstance(denoiser, str):
        remedy = f"load it, as in load_problem({denoiser!r}).denoiser of fewstep.eval"
    elif hasattr(denoiser, "denoiser"):
        remedy = "pass its .denoiser"
    elif hasattr(denoiser, "scheduler"):
        remedy = "give the pipeline one of our schedulers and call it, or take its network apart"
    elif isinstance(process, NoiseProcess):
        remedy = "it must be called as denoiser(x, level, cond)"
    elif process is not None and not isinstance(denoiser, type):
        remedy = f"its .process is {named(process)}; take one of fewstep.schedules"
    raise TypeError(
        f"denoiser must be called and have a .process of fewstep.schedules, got {named(denoiser)}: "
        f"{remedy}"
    )


def start_shape(shape: Any, noise: Any, name: str = "noise") -> tuple[int, ...]:
    """The shape (n, ...) of the samples; ``name`` is that of the noise.

    Raises:
        TypeError: for noise that is no tensor, and a shape that is not made of whole numbers.
        ValueError: for noise that is not finite, not floating point or of no sample, and a shape
            that is another one, or of no sample.
    """
    sizes = None if shape is None else _sizes(shape)
    if noise is None:
        if sizes is None:
            raise ValueError("sample() needs shape=(n, ...) or noise=, and got neither")
        return sizes
    _check_noise(noise, name)
    if sizes not in (None, tuple(noise.shape)):
        raise ValueError(
            f"shape is {sizes} and noise has the shape {tuple(noise.shape)}: leave shape out, or "
            "give it that of the noise"
        )
    return tuple(noise.shape)


def _sizes(shape: Any) -> tuple[int, ...]:
    wanted = "shape must be (n, ...), whole numbers such as (4, 1, 28, 28)"
    if isinstance(shape, str) or not hasattr(shape, "__len__"):
        raise TypeError(f"{wanted}, got {named(shape)}")
    sizes = tuple(whole(size, wanted) for size in shape)
    if not sizes or min(sizes) < 1:
        raise ValueError(f"{wanted}, each at least 1, got {sizes}")
    return sizes


def _check_noise(noise: Any, name: str) -> None:
    if not isinstance(noise, Tensor):
        remedy = f"; write torch.from_numpy({name})" if isinstance(noise, np.ndarray) else ""
        raise TypeError(f"{name} must be a torch tensor (n, ...), got {named(noise)}{remedy}")
    if not noise.is_floating_point():
        remedy = "" if noise.is_complex() else f"; write {name}.float()"
        raise ValueError(f"{name} must be in floating point, got {noise.dtype}{remedy}")
    if not noise.ndim or not len(noise):
        raise ValueError(
            f"{name} must have the shape (n, ...), n at least 1, got {tuple(noise.shape)}"
        )
    if noise.layout is not torch.strided:
        raise ValueError(f"{name} must be a plain tensor, got one in the layout {noise.layout}")
    if noise.is_meta:
        raise ValueError(f"{name} must hold numbers, got a tensor on the meta device")
    if is_readable(noise):
        finite(noise.detach(), f"{name} must be finite, and some of it is inf or nan: draw it anew")


def sample_seeds(seeds: Any, n: int) -> Sequence[int]:
    """The n seeds; 0 .. n - 1 for None.

    Raises:
        TypeError: for what is no sequence of whole numbers.
        ValueError: for another number of them.
    """
    if seeds is None:
        return range(n)
    values = seeds.tolist() if isinstance(seeds, np.ndarray | Tensor) else seeds
    if isinstance(values, str) or not isinstance(values, Sequence):
        remedy = ""
        if isinstance(values, int) and not isinstance(values, bool):
            remedy = f"; write range({values}, {values} + {n}) for as many in turn"
        raise TypeError(
            f"seeds must be a list of whole numbers, one for each of {n} samples, got "
            f"{named(values)}{remedy}"
        )
    if len(values) != n:
        raise ValueError(f"{len(values)} seeds for {n} samples; give one for each")
    if isinstance(values, range):
        return values
    return [whole(seed, "seeds must be whole numbers, one for each sample") for seed in values]


def check_place(device: Any, dtype: Any) -> None:
    """Raises TypeError or ValueError for a device that is not here, and a dtype of no samples."""
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise TypeError(f"dtype must be one of torch, as torch.float32, got {named(dtype)}")
    if dtype is not None and not dtype.is_floating_point:
        raise ValueError(f"dtype must be one of floating point, as torch.float32, got {dtype}")
    if device is None:
        return
    if isinstance(device, bool) or not isinstance(device, str | int | torch.device):
        raise TypeError(f"device must be a torch device such as 'cuda', got {named(device)}")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # a name that is none, or none here
        reason = str(error).partition("\n")[0]
        raise ValueError(f"device {device!r} cannot be used ({reason}); try 'cpu'") from error


def read_guidance(guidance: Guidance | str | None) -> Guidance | None:
    """Guidance as it is, or of its written form.

    Raises:
        TypeError: for what is no guidance, with where it belongs.
        ValueError: for a text that cannot be read.
    """
    from fewstep.guidance.entry import as_guidance

    return as_guidance(guidance)


def check_beside(noise: Tensor, denoiser: Any) -> None:
    """Raises ValueError for noise on another device than all weights of the network, or none."""
    if noise.is_meta:
        raise ValueError("device 'meta' holds no numbers: nothing can be sampled there")
    network = getattr(denoiser, "network", None)
    if not isinstance(network, nn.Module) or hasattr(network, "_hf_hook"):
        return  # accelerate moves weights to where they are called
    places = {weights.device for weights in network.parameters()}
    if len(places) == 1 and noise.device not in places:
        place = places.pop()
        raise ValueError(
            f"noise is on the device {noise.device} and the denoiser's network on {place}: pass "
            f"device='{place}', or move the network"
        )


def check_hooks(hooks: Any) -> None:
    """Raises TypeError for what is no list of run hooks."""
    wanted = "hooks must be a list of run hooks, as [FKSteering(reward)]"
    if isinstance(hooks, str) or not isinstance(hooks, Sequence):
        remedy = "; leave it out for none" if hooks is None else ""
        raise TypeError(f"{wanted}, got {named(hooks)}{remedy}")
    for hook in hooks:
        acts = not isinstance(hook, type) and hasattr(hook, "start_rho")
        if not acts or not all(callable(getattr(hook, name, None)) for name in HOOK):
            remedy = "; guidance goes into guidance=" if hasattr(hook, "wrap") else ""
            raise TypeError(f"{wanted}, got {named(hook)} in it{remedy}")


def check_switches(callback: Any, differentiable: Any) -> None:
    """Raises TypeError for a callback that cannot be called so, and a switch of another kind."""
    if not isinstance(differentiable, bool):
        raise TypeError(f"differentiable must be True or False, got {named(differentiable)}")
    if callback is None:
        return
    if not callable(callback) or (wrong := unbindable(callback, 0, None)):
        reason = named(callback) if not callable(callback) else f"one that cannot: {wrong}"
        raise TypeError(f"callback must be called as callback(evaluation, sample), got {reason}")


def check_cond(cond: Any, denoiser: Any, n: int) -> None:
    """Looks at class labels, ``cond`` itself or its ``class_labels``; reads them once.

    Labels are whole numbers, one for each sample. A denoiser with ``num_classes`` = K takes
    0 .. K - 1, and the label that its ``null_cond`` makes of one.

    Raises:
        TypeError: for labels of such a denoiser, or an array, that are no tensor.
        ValueError: for another number of labels, labels that are not whole, or that it has not.
    """
    labels = cond.get("class_labels") if isinstance(cond, Mapping) else cond
    count = getattr(denoiser, "num_classes", None)
    count = count if isinstance(count, int) and count > 0 else None
    if labels is None and (cond is None or count is None or cond):
        return
    if not isinstance(labels, Tensor):
        if count is None and not isinstance(labels, np.ndarray):
            return  # whatever else a model conditions on
        listed = isinstance(labels, list | tuple | np.ndarray)
        remedy = "; write torch.tensor(cond)" if listed else f", as torch.tensor([0] * {n})"
        raise TypeError(
            f"cond must be a torch tensor of {n} class labels, got {named(labels)}{remedy}"
        )
    if count is None and (labels.is_floating_point() or labels.dtype is torch.bool):
        return
    if labels.shape[:1] != (n,):
        raise ValueError(
            f"cond must hold a label for each of {n} samples, got the shape {tuple(labels.shape)}"
        )
    if count is not None and labels.ndim == 1:
        _check_labels(labels, count, denoiser)


def _check_labels(labels: Tensor, count: int, denoiser: Any) -> None:
    if labels.is_floating_point() or labels.is_complex() or labels.dtype is torch.bool:
        raise ValueError(
            f"cond must hold class labels as whole numbers, got {labels.dtype}; write cond.long()"
        )
    if not is_readable(labels):
        return
    null = getattr(denoiser, "null_cond", lambda labels: None)(labels[:1])
    known = torch.zeros_like(labels, dtype=torch.bool)
    if isinstance(null, Tensor) and null.shape == (1,) and not null.is_floating_point():
        known = labels == null.to(labels.device)
    bad = labels[~(known | ((labels >= 0) & (labels < count)))]
    if len(bad):
        raise ValueError(
            f"cond must hold class labels in 0 .. {count - 1}, got {int(bad[0])}: the model has "
            f"{count} classes"
        )
