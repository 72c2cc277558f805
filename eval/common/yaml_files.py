"""YAML in which every value has one reading.

YAML 1.1, which PyYAML reads, takes ``010`` for 8, ``yes`` for true and ``1:30`` for 90; YAML 1.2
takes them for 10 and for texts. What the two read differently is refused, and so is a key that is
there twice, of which one would count. Anchors are refused as well: a few lines of them unfold to
gigabytes.
"""

import re
from itertools import accumulate
from pathlib import Path
from typing import Any

import yaml

MAX_BYTES = 2**20
MAX_DEPTH = 20
# Plain texts of the core schema of YAML 1.2 (chapter 10.3.2); others are strings. Whole numbers
# that begin with a zero are left to "float", whose tag they do not have in YAML 1.1.
CORE = (
    ("null", re.compile(r"null|Null|NULL|~|")),
    ("bool", re.compile(r"true|True|TRUE|false|False|FALSE")),
    ("int", re.compile(r"[-+]?(0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+")),
    ("float", re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")),
    ("float", re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")),
)


def read_yaml(path: Path) -> Any:
    """The one value of a file, made of mappings, lists, texts, numbers, true, false and null.

    Raises:
        ValueError: in one line with the file, for what is no YAML, has two readings, or is larger
            than ``MAX_BYTES``.
    """
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"{path} is larger than {MAX_BYTES:,} bytes, and no file of options is")
    # PyYAML looks far ahead for the end of a key, which takes seconds among open brackets.
    depths = accumulate((c in b"[{") - (c in b"]}") for c in content)
    if max(depths, default=0) > MAX_DEPTH:
        raise ValueError(f"{path}: nested more than {MAX_DEPTH} times")
    try:
        return yaml.load(content.decode(), OneReading)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    except ValueError as error:  # ours, and that of int() about thousands of digits
        raise ValueError(f"{path}: {error}") from error


def yaml_text(value: Any) -> str:
    """A value as YAML that :func:`read_yaml` reads."""
    text: str = yaml.dump(value, Dumper=Quoting, sort_keys=False)
    return text


class Quoting(yaml.SafeDumper):
    """A dumper that quotes texts which YAML 1.2 would take for numbers, as ``1e5``."""

    def represent_str(self, data: str) -> Any:
        quoted = any(form.fullmatch(data) for _, form in CORE)
        return self.represent_scalar("tag:yaml.org,2002:str", data, '"' if quoted else None)


Quoting.add_representer(str, Quoting.represent_str)


class OneReading(yaml.SafeLoader):
    """A safe loader that refuses what can be read in two ways."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """The next node, unless it is an alias, an ambiguous text, or below too many others."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "anchor", None) is not None:
            raise _refused(event, "anchors (&) and aliases (*) are not taken: write the value out")
        if isinstance(event, yaml.ScalarEvent) and event.implicit[0]:
            self._check_reading(event)
        if self.depth >= MAX_DEPTH:
            raise _refused(event, f"nested more than {MAX_DEPTH} times")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def _check_reading(self, event: Any) -> None:
        tag: str = self.resolve(yaml.ScalarNode, event.value, event.implicit)  # type: ignore[no-untyped-call]
        modern = next((name for name, form in CORE if form.fullmatch(event.value)), "str")
        if tag != f"tag:yaml.org,2002:{modern}":
            raise _refused(
                event,
                f"{event.value!r} is read in two ways: write a plain number, true or false, or put "
                f'a text in quotes, "{event.value}"',
            )

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """The mapping, each of whose keys is there once."""
        mapping: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise _refused(key_node, f"a name is a text, got {key!r}")
            if key in mapping:
                raise _refused(key_node, f"{key!r} is there twice: leave one out")
            mapping[key] = self.construct_object(value_node, deep)
        return mapping


def _refused(at: Any, problem: str) -> ValueError:
    return ValueError(f"line {at.start_mark.line + 1}: {problem}")
