"""Sweeps in YAML files: the options of ``fewstep bench`` by name.

    problem: fashion
    samplers: [ipndm, "deis:order=2"]
    nfe: [5, 10]
    guidance: ["none", "cfg:2"]
    out: runs/mine

What is given on the command line counts more. The whole of what ran is saved as ``sweep.yaml``
beside the results, and runs again as it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from fewstep.eval.bench.setup import Bench
from fewstep.eval.common.yaml_files import read_yaml, yaml_text
from fewstep.writing import write_whole

COMMA_LISTS = ("nfe", "metrics")
KINDS = {"int": "whole numbers", "bool": "true or false", "string": "text", "path": "a path"}
LISTS = ("samplers", "guidance", *COMMA_LISTS)


@dataclass(frozen=True)
class Sweep(Bench):
    """A benchmark and the folder of its report."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    out: Path = Path("runs/bench")


def read_sweep(path: Path | None = None, given: Mapping[str, Any] | None = None) -> Sweep:
    """A sweep from a file, from options that were given, or both, where the latter win.

    Args:
        path: a YAML file of options by name; ``model`` may be written for ``problem``.
        given: options by name.

    Raises:
        ValueError: in one line with the file and the option, for what is no option or no value.
        FileNotFoundError: if there is no such file.
    """
    written = {} if path is None else _written(path)
    values = {**written, **(given or {})}
    if empty := [name for name, value in values.items() if isinstance(value, str) and not value]:
        # As a path it would be the folder that we stand in.
        where = f"{path}: " if path is not None and empty[0] in written else ""
        raise ValueError(f"{where}{empty[0]} is an empty text; give a value, or leave it out")
    for name in LISTS:
        values |= {name: _listed(values[name], name)} if name in values else {}
    try:
        return TypeAdapter(Sweep).validate_python(values)
    except ValidationError as error:
        raise ValueError(_first_problem(error, path, written)) from None


def save_sweep(bench: Bench, path: Path) -> None:
    """Writes all options, also those that were left at their defaults."""
    write_whole(path, yaml_text(resolved(bench)))


def resolved(bench: Bench) -> dict[str, Any]:
    """All options as JSON values; a plain benchmark has no folder."""
    table: dict[str, Any] = TypeAdapter(type(bench)).dump_python(bench, mode="json")
    return table


def _listed(value: Any, name: str) -> Any:
    """A single value as one of a tuple, and a text of numbers or names as several."""
    if isinstance(value, str) and name in COMMA_LISTS:
        return tuple(part.strip() for part in value.split(","))
    if isinstance(value, str | int):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


def _written(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"no sweep at {path}; `fewstep bench` leaves one in its folder")
    table = read_yaml(path)
    if not isinstance(table, dict):
        raise ValueError(f"{path} must hold options by name, as in `nfe: [5, 8]`")
    if "model" in table:
        if "problem" in table:
            raise ValueError(f"{path}: model and problem are one option: leave one out")
        table["problem"] = table.pop("model")
    return table


def _first_problem(error: ValidationError, path: Path | None, written: Mapping[str, Any]) -> str:
    """pydantic's first finding in our words."""
    found = error.errors()[0]
    name = str(found["loc"][0]) if found["loc"] else ""
    if found["type"] == "unexpected_keyword_argument":
        known = ", ".join(part.name for part in fields(Sweep))
        text = f"unknown option {name!r}; known: {known}"
    elif found["type"] == "value_error":
        text = str(found["ctx"]["error"])
    else:
        kind = found["type"].partition("_")[0]
        text = f"{name} takes {KINDS.get(kind, 'another kind of value')}, got {found['input']!r}"
    return f"{path}: {text}" if path is not None and (not name or name in written) else text
