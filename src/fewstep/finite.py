"""Numbers are looked at before they are factorised.

What LAPACK makes of inf and nan is not defined: of one matrix one build returns nan, another raises
an error of its own, and a third does not come back. So nothing that may hold them reaches it.
"""

import math
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from fewstep.schedules.base import Array

Numbers = TypeVar("Numbers", "Tensor", "Array")


def is_readable(x: "Tensor") -> bool:
    """Whether values may be looked at: not where a graph of calls is traced or captured."""
    import torch

    if torch.compiler.is_compiling():
        return False
    return not (x.is_cuda and torch.cuda.is_current_stream_capturing())


def finite(numbers: Numbers, otherwise: str) -> Numbers:
    """The same tensor or array, all of it finite.

    Args:
        numbers: of any shape.
        otherwise: what the error says: what is not finite, and the remedy.

    Raises:
        ValueError: if an entry is inf or nan.
    """
    if isinstance(numbers, np.ndarray):
        good = bool(np.isfinite(numbers).all())
    else:
        # The sum is ten times as fast as a look at each entry; that of finite ones may be infinite.
        good = math.isfinite(numbers.sum()) or bool(numbers.isfinite().all())
    if not good:
        raise ValueError(otherwise)
    return numbers
