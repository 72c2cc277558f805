"""Where a trajectory stands, and the noise it draws."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


class Position:
    """A counter over the entries of ``timesteps``.

    It starts at ``begin`` if that was set, else at the entry that the first timestep is a view of,
    else at the first entry of its value. Only that last way reads from the device, once.
    """

    def __init__(self, timesteps: Tensor | Sequence[float]) -> None:
        self.timesteps = timesteps
        self.begin: int | None = None
        self.index: int | None = None
        self.fresh = False

    def peek(self, timestep: Any) -> int:
        """The entry that the next step takes."""
        return self._start(timestep) if self.index is None else self.index

    def take(self, timestep: Any) -> int:
        """The entry of this step; ``fresh`` tells whether it opens a trajectory.

        Raises:
            ValueError: if ``timestep`` is a view of another entry, or all are used up.
        """
        self.fresh = self.index is None
        index = self.peek(timestep)
        if index >= len(self.timesteps):
            raise ValueError(
                f"all {len(self.timesteps)} steps are done; call set_timesteps(n) for another run"
            )
        seen = None if self.fresh and self.begin is None else self._view(timestep)
        if seen is not None and seen != index:
            raise ValueError(
                f"step() got entry {seen} of timesteps, expected entry {index}: pass each entry "
                "once and in order, and use one scheduler for each trajectory"
            )
        self.index = index
        return index

    def advance(self) -> None:
        assert self.index is not None
        self.index += 1

    def _start(self, timestep: Any) -> int:
        if self.begin is not None:
            return self.begin
        seen = self._view(timestep)
        if seen is not None:
            return seen
        if timestep is None or not len(self.timesteps):
            return 0
        assert isinstance(self.timesteps, Tensor)
        if isinstance(timestep, Tensor) and timestep.numel() > 1:
            raise ValueError(
                f"step() takes one entry of timesteps for the whole batch, got {timestep.numel()} "
                "values; for samples at different steps use fewstep.BatchedPlan"
            )
        distance = (self.timesteps.cpu() - float(timestep)).abs()
        return int(distance.argmin())

    def _view(self, timestep: Any) -> int | None:
        """The entry that ``timestep`` shares its memory with."""
        own = self.timesteps
        if not isinstance(timestep, Tensor) or not isinstance(own, Tensor):
            return None
        if torch.compiler.is_compiling() or timestep.device != own.device:
            return None
        offset = timestep.data_ptr() - own.data_ptr()
        size = own.element_size()
        inside = 0 <= offset < size * len(own) and timestep.dtype == own.dtype
        return offset // size if inside else None


Generators = torch.Generator | Sequence[torch.Generator] | None


def noise_source(
    draws: int, batch: int, generator: Generators, given: Tensor | None
) -> Callable[[Tensor], Tensor]:
    """Where the unit noise of a step comes from: ``given``, or drawn where the generator lives.

    With one generator for each sample, sample i depends on generator i alone.

    Raises:
        ValueError: if a list of generators is not as long as the batch, or noise is given for a
            step that needs it twice.
    """
    if draws and isinstance(generator, list | tuple) and len(generator) != batch:
        raise ValueError(
            f"{len(generator)} generators for a batch of {batch}: pass one for each sample, or a "
            "single one"
        )
    if draws > 1 and given is not None:
        raise ValueError(
            f"this step adds noise {draws} times: pass generator= instead of variance_noise="
        )

    def draw(like: Tensor) -> Tensor:
        if given is not None:
            return given.to(device=like.device, dtype=like.dtype)
        if isinstance(generator, list | tuple):
            return torch.stack([_draw(like.shape[1:], one, like) for one in generator])
        return _draw(like.shape, generator, like)

    return draw


def _draw(shape: Sequence[int], generator: Any, like: Tensor) -> Tensor:
    place = generator.device if generator is not None else like.device
    noise = torch.randn(tuple(shape), generator=generator, device=place, dtype=like.dtype)
    return noise.to(like.device)
