"""What a scheduler's step returns."""

from collections.abc import Callable, Iterator
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

    The second is computed when it is read, since most callers take the first alone.
    """

    _data: Callable[[], Tensor]

    def __new__(cls, previous: Tensor, data: Callable[[], Tensor]) -> "StepPair":
        pair = super().__new__(cls, (previous, None))
        pair._data = data
        return pair

    def __getitem__(self, index: Any) -> Any:
        if index == 0:
            return super().__getitem__(0)
        return (super().__getitem__(0), self._data())[index]

    def __iter__(self) -> Iterator[Tensor]:
        yield super().__getitem__(0)
        yield self._data()

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, ([*self],)
