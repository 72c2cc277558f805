"""Where a network of the user's is called: what it was given, and what it must return."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor


def called(network: Callable[..., Any], how: str, *arguments: Any, **keywords: Any) -> Any:
    """What a network returns.

    An error of its own stays as it is, with a note on what it was given.

    Args:
        network: of the user's.
        how: it is called, as in ``net(x, sigma, labels)``.
        arguments, keywords: that it is called with.

    Raises:
        TypeError: if it cannot be called with so many, or such, arguments.
    """
    try:
        return network(*arguments, **keywords)
    except Exception as error:
        given = ", ".join(map(described, [*arguments, *keywords.values()]))
        forward = getattr(network, "forward", network)
        if isinstance(error, TypeError) and (wrong := unbindable(forward, *arguments, **keywords)):
            raise TypeError(
                f"{name_of(network)} cannot be called as {how}: {wrong}. It was given {given}; "
                "labels are passed where sample() gets cond=, and guidance leaves them out"
            ) from error
        error.add_note(f"fewstep called {name_of(network)} as {how} with {given}")
        raise


def returned(output: Any, x: Tensor, who: str) -> Tensor:
    """The output, if it is a tensor of the shape of ``x`` in floating point.

    Args:
        output: what was returned.
        x: what was put in, (n, ...).
        who: returned it.

    Raises:
        TypeError: if it is no tensor.
        ValueError: for another shape, or whole numbers.
    """
    if not isinstance(output, Tensor):
        raise TypeError(
            f"{who} returned {described(output)} for x of shape {tuple(x.shape)}: it must return "
            "one tensor of that shape"
        )
    if output.shape != x.shape:
        raise ValueError(
            f"{who} returned the shape {tuple(output.shape)} for x of shape {tuple(x.shape)}: it "
            "must return the shape of x"
        )
    if not (output.is_floating_point() or output.is_complex()):
        raise ValueError(
            f"{who} returned {output.dtype} for x of {x.dtype}: it must return floating point"
        )
    return output


def described(value: Any) -> str:
    """A value in a few words: of tensors the shape, of containers what is in them."""
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)}"
    if isinstance(value, tuple | list) and len(value) < 5:
        return f"a {type(value).__name__} of {', '.join(map(described, value)) or 'nothing'}"
    if isinstance(value, Mapping) and len(value) < 5:
        return f"a {type(value).__name__} of {', '.join(map(str, value)) or 'nothing'}"
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    return f"a {type(value).__name__}"


def name_of(network: Any) -> str:
    """A network as its code calls it."""
    plain = getattr(network, "_orig_mod", network)  # of torch.compile
    return str(getattr(plain, "__name__", type(plain).__name__))


def unbindable(function: Any, *arguments: Any, **keywords: Any) -> str:
    """Why a function cannot be called with these arguments; empty if it can, or does not tell."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # code in C often has none
        return ""
    try:
        signature.bind(*arguments, **keywords)
    except TypeError as error:
        return str(error)
    return ""
