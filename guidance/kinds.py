"""Kinds of guidance by their written names; their classes need torch, and their names do not."""

import importlib
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class Kinds(Mapping[str, type[T]]):
    """Classes by name, each imported when it is asked for.

    Args:
        places: module of this package and class, as in ``"sources.contrast.CFG"``, by name.
    """

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = dict(places)

    def place(self, name: str) -> tuple[str, str]:
        """The full name of the module, and the name of the class in it; nothing is imported."""
        module, _, kind = self._places[name].rpartition(".")
        return f"fewstep.guidance.{module}", kind

    def __getitem__(self, name: str) -> type[T]:
        module, kind = self.place(name)
        found: Any = getattr(importlib.import_module(module), kind)
        return found  # type: ignore[no-any-return]

    def __contains__(self, name: object) -> bool:  # that of Mapping would import the class
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)
