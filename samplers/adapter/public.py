"""The tensors of a scheduler that pipelines and training scripts read: what they show is what runs.

They follow from the config or from ``set_timesteps``, so that to write into them would change what
is shown and not what runs. Moved to another device or dtype they may be assigned; any other value,
assigned or written in place, is refused with the call that does what was meant.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

_CONFIG = (
    "it follows from the config: pass trained_betas=, or rescale_betas_zero_snr=True, to "
    "from_config"
)
REMEDIES = {
    "timesteps": "call set_timesteps(timesteps=...) with these times",
    "sigmas": "call set_timesteps(sigmas=...) with these levels",
    "alphas_cumprod": _CONFIG,
    "alphas": _CONFIG,
    "betas": _CONFIG,
}


class PublicTensors:
    """Tensors by name, and what they should hold.

    Args:
        values: float32 tensors on the CPU.
        device: of those that are named in ``on_device``; the others stay on the CPU.
    """

    def __init__(
        self,
        values: Mapping[str, Tensor],
        device: torch.device | str | None = None,
        on_device: Iterable[str] = (),
    ) -> None:
        self._values = dict(values)
        self._shown: dict[str, Tensor] = {}
        self._versions: dict[str, int] = {}
        places = dict.fromkeys(on_device, device)
        with torch.inference_mode(False):  # inference tensors do not count what is written
            for name, value in values.items():
                self._show(name, value.clone().to(places.get(name)))

    def __contains__(self, name: str) -> bool:
        return name in self._shown

    def __getitem__(self, name: str) -> Tensor:
        return self._shown[name]

    def replace(self, name: str, tensor: Any) -> None:
        """Shows another tensor of the same values.

        Raises:
            ValueError: if its values are others.
        """
        if not isinstance(tensor, Tensor) or not self._holds(name, tensor):
            raise ValueError(f"scheduler.{name} was assigned other values: {REMEDIES[name]}")
        self._show(name, tensor)

    def rewrite(self, name: str, start: int, values: Tensor) -> None:
        """Puts new values in from an entry on, where views of the tensor see them."""
        self._values[name][start:] = values
        with torch.no_grad():
            self._shown[name][start:] = values.to(self._shown[name])
        self._show(name, self._shown[name])

    def check(self, *names: str) -> None:
        """Refuses values that were written in place.

        Raises:
            ValueError: if there are any.
        """
        for name in names:
            tensor = self._shown.get(name)
            if tensor is None:
                continue
            if not self._intact(name, tensor):
                raise ValueError(f"scheduler.{name} was written to: {REMEDIES[name]}")
            self._show(name, tensor)

    def _intact(self, name: str, tensor: Tensor) -> bool:
        own = self._values[name]
        if tensor.is_cpu and tensor.dtype == own.dtype:
            return bool(np.array_equal(own.numpy(), tensor.detach().numpy()))
        # On a device nothing is read unless torch has counted a write, or this is a copy.
        return _version(tensor) == self._versions[name] or self._holds(name, tensor)

    def _show(self, name: str, tensor: Tensor) -> None:
        self._shown[name] = tensor
        self._versions[name] = _version(tensor)

    def _holds(self, name: str, tensor: Tensor) -> bool:
        own = self._values[name]
        return own.shape == tensor.shape and torch.equal(own.to(tensor.dtype), tensor.cpu())


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


class Shown:
    """The attribute of a scheduler that shows one of its :class:`PublicTensors`."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, scheduler: Any, owner: type) -> Any:
        if scheduler is None:
            return self
        tensors: PublicTensors = scheduler._public
        if self.name not in tensors:
            raise AttributeError(f"a {owner.__name__} of this config has no {self.name}")
        return tensors[self.name]

    def __set__(self, scheduler: Any, value: Any) -> None:
        tensors: PublicTensors = scheduler._public
        if self.name not in tensors:
            raise AttributeError(f"this scheduler's process has no {self.name}")
        tensors.replace(self.name, value)
        if scheduler._run is not None:
            scheduler._run.follow()
