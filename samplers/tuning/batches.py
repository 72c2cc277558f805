"""Tensors and conditions in parts of bounded size."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from fewstep.finite import finite
from fewstep.schedules.process import Array


def parts(rows: Tensor, size: int) -> Iterator[slice]:
    """Slices of at most ``size`` of the first axis.

    Raises:
        ValueError: for size < 1, or a tensor without rows.
    """
    if size < 1:
        raise ValueError(f"batch must be at least 1, got {size}")
    if rows.ndim < 2 or not len(rows):
        raise ValueError(f"samples and noises need the shape (n, ...), got {tuple(rows.shape)}")
    for start in range(0, len(rows), size):
        yield slice(start, min(start + size, len(rows)))


def rows_of(cond: Any, part: slice) -> Any:
    """The rows of a condition: of a tensor, of each one in a mapping, list or tuple, or None."""
    if cond is None:
        return None
    if isinstance(cond, Mapping):
        return {key: rows_of(value, part) for key, value in cond.items()}
    if isinstance(cond, list | tuple):
        return type(cond)(rows_of(value, part) for value in cond)
    return cond[part]


def finite_costs(table: Array) -> Array:
    """The table, if all of it is finite.

    Raises:
        ValueError: otherwise.
    """
    return finite(
        table,
        "the denoiser's results are not finite on the fine grid: check the model, its conditions "
        "and the levels",
    )
