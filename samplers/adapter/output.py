"""What a scheduler's step returns."""

from collections.abc import Iterator
from typing import Any

from diffusers.utils.outputs import BaseOutput
from torch import Tensor


class StepOutput(BaseOutput):
    """What ``step`` returns.

    Attributes:
        prev_sample: the sample to call the network with next.
        pred_original_sample: the data prediction of this call, for previews.
    """

    prev_sample: Tensor
    pred_original_sample: Tensor | None = None


class StepPair(tuple[Any, ...]):
    """(prev_sample, pred_original_sample) of a ``step`` with ``return_dict=False``.

    The second is computed when it is read, since most callers take the first alone: the tuple holds
    the executor and its arguments in its place, which makes it as cheap as any. Read it before you
    write into the network's output or the sample.
    """

    __slots__ = ()

    def __getitem__(self, index: Any) -> Any:
        previous, (executor, *arguments) = super().__iter__()
        if index == 0:
            return previous
        return (previous, executor.data_prediction(*arguments))[index]

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self[0], self[1]))

    def __add__(self, other: tuple[Any, ...]) -> tuple[Any, ...]:
        return (*self, *other)

    def __repr__(self) -> str:
        return repr((*self,))

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, ([*self],)
