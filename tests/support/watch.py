"""What a pipeline did while it ran."""

from collections.abc import Iterable, Iterator
from typing import Any, Self

import numpy as np
import torch

MADE = ("frames", "images", "audios", "audio")  # a film first, then its sound


def network(pipe: Any) -> torch.nn.Module:
    return pipe.transformer if "transformer" in pipe.components else pipe.unet


def results(pipe: Any, n: int | None = None, *, seed: int = 1, **kwargs: Any) -> list[np.ndarray]:
    """What the pipeline makes, all of it finite: one array, or a film and its sound."""
    kwargs = {"generator": torch.Generator().manual_seed(seed), "output_type": "np", **kwargs}
    if n is not None:
        kwargs["num_inference_steps"] = n
    result = pipe(**kwargs)
    made = [np.asarray(result[name]) for name in MADE if name in result]
    assert all(np.isfinite(part).all() for part in made)
    return made


def run(pipe: Any, n: int | None = None, **kwargs: Any) -> np.ndarray:
    """What the pipeline makes, finite; arrays unless ``output_type`` says otherwise."""
    return results(pipe, n, **kwargs)[0]


class Watch:
    """Counts network calls and keeps their inputs and times, and what the progress bar was told.

    ``with Watch(pipe) as seen: pipe(...)``.
    """

    def __init__(self, pipe: Any) -> None:
        self.pipe, self.inputs = pipe, list[torch.Tensor]()
        self.times = list[float]()
        self.ticks, self.total = 0, None

    @property
    def calls(self) -> int:
        return len(self.inputs)

    def __enter__(self) -> Self:
        self._hook = network(self.pipe).register_forward_pre_hook(self._look, with_kwargs=True)
        self.pipe.progress_bar = self._bar
        return self

    def __exit__(self, *_: object) -> None:
        self._hook.remove()
        del self.pipe.progress_bar

    def _look(self, module: object, args: tuple, kwargs: dict) -> None:
        named = kwargs.get("hidden_states", kwargs.get("sample"))
        time = args[1] if len(args) > 1 else kwargs.get("timestep")
        given = args[0] if args else named
        self.inputs.append(torch.stack(given) if isinstance(given, list) else given.clone())
        self.times.append(float(torch.as_tensor(time).flatten()[0]))

    def _bar(self, iterable: Iterable | None = None, total: int | None = None) -> "_Bar":
        self.total = total if iterable is None else len(iterable)
        return _Bar(self, iterable)


class _Bar:
    def __init__(self, watch: Watch, iterable: Iterable | None) -> None:
        self.watch, self.iterable = watch, iterable

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def __iter__(self) -> Iterator:
        for item in [] if self.iterable is None else self.iterable:
            yield item
            self.update()

    def update(self, count: int = 1) -> None:
        self.watch.ticks += count
