"""YAML with positions: every value of a file with its file and line."""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from luigi_prune.config.schema import Overflow
from luigi_prune.errors import ConfigError

Scalar: TypeAlias = str | int | float | bool | None
Value: TypeAlias = "Scalar | list[Node] | dict[str, Node]"

MAX_VALUES = 100_000
"""Maximum number of values in a file; the packaged ones have under 100. Nested aliases can expand to billions."""


@dataclass(frozen=True)
class Place:
    """A position in a file; `line` counts from 1, 0 if unknown."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True)
class Node:
    """A value and its place; the value of a key has the line of the key."""

    value: Value
    place: Place

    def plain(self) -> Any:
        """Return the value as ordinary dictionaries, lists and scalars."""
        if isinstance(self.value, dict):
            return {key: inner.plain() for key, inner in self.value.items()}
        if isinstance(self.value, list):
            return [inner.plain() for inner in self.value]
        return self.value

    def find(self, path: Iterable[str | int]) -> Node:
        """Return the node at `path`, or the last existing one along it."""
        node = self
        for step in path:
            inner = node.value
            below: dict[Any, Node] = {}
            if isinstance(inner, dict | list):
                below.update(inner if isinstance(inner, dict) else enumerate(inner))
            if step not in below:
                break
            node = below[step]
        return node


class UnreadableFile(ConfigError):
    """A file that is no experiment file as a whole, so that the message has no line of it."""


class _Loader(yaml.SafeLoader):
    """SafeLoader with the numbers of YAML 1.2: `1e-4` is one, `1:30` and `2020-01-01` are strings, `010` is ten."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rsplit(":", 1)[1] not in {"int", "float", "timestamp"}]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?[0-9]+$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"([-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)


def read_yaml(path: Path, shown: str) -> Node:
    """Return the tree of a YAML file whose top level is a dictionary; `shown`: the file's name in messages.

    Raises ConfigError for a file that cannot be read, is not UTF-8, not YAML or empty, has duplicate keys in a
    dictionary, or more than MAX_VALUES values after expanding aliases.
    """
    text = _text(path, shown)
    try:
        loader = _Loader(text)
        top = loader.get_single_node()
        if top is None:
            raise UnreadableFile(f"{Place(shown, 1)}: is empty")
        node = _Builder(loader, shown).build(top, Place(shown, top.start_mark.line + 1))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(shown, mark.line + 1) if mark else Place(shown)
        raise ConfigError(f"{place}: not valid YAML: {_one_line(error.problem or error.context)}") from None
    except yaml.YAMLError as error:
        raise UnreadableFile(f"{shown}: is not a text file: {_one_line(error)}") from None
    except RecursionError:
        raise UnreadableFile(f"{shown}: is nested too deeply") from None
    if (values := _count(node, {})) > MAX_VALUES:
        raise UnreadableFile(f"{shown}: has {values} values after expanding aliases; at most {MAX_VALUES} are allowed")
    if not isinstance(node.value, dict):
        raise ConfigError(f"{node.place}: expected a dictionary, got {_kind(node.value)}")
    return node


def _text(path: Path, shown: str) -> str:
    """Return the content of a file in UTF-8, with or without a byte-order mark."""
    if path.is_dir():
        raise UnreadableFile(f"{shown}: is a folder, not a file")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnreadableFile(f"{shown}: cannot be read: {error.strerror or error}") from None
    cure = "; save it as UTF-8"
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in content[:64]:
        raise UnreadableFile(f"{Place(shown, 1)}: is not UTF-8, but UTF-16, or not a text file{cure}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = Place(shown, content.count(b"\n", 0, error.start) + 1)
        raise ConfigError(f"{place}: is not UTF-8 (byte 0x{content[error.start]:02x}){cure}") from None


def _count(node: Node, known: dict[int, int]) -> int:
    """Return the number of values in a tree; an anchored one counts once per alias. `known`: counts by id."""
    if not isinstance(node.value, dict | list):
        return 1
    if id(node.value) not in known:
        below = node.value.values() if isinstance(node.value, dict) else node.value
        known[id(node.value)] = 1 + sum(_count(inner, known) for inner in below)
    return known[id(node.value)]


class _Builder:
    """Converts the nodes of PyYAML; an anchored value is built once and shared by its aliases."""

    def __init__(self, loader: _Loader, shown: str):
        self.loader = loader
        self.shown = shown
        self.open: set[int] = set()
        self.values: dict[int, Value] = {}  # by id of PyYAML's node

    def build(self, node: yaml.Node, place: Place) -> Node:
        if id(node) in self.open:
            raise ConfigError(f"{self._place(node)}: an alias contains itself")
        if id(node) not in self.values:
            self.open.add(id(node))
            self.values[id(node)] = self._value(node)
            self.open.remove(id(node))
        return Node(self.values[id(node)], place)

    def _value(self, node: yaml.Node) -> Value:
        if isinstance(node, yaml.MappingNode) and node.tag.endswith(":map"):
            return self._mapping(node)
        if isinstance(node, yaml.SequenceNode) and node.tag.endswith(":seq"):
            return [self.build(inner, self._place(inner)) for inner in node.value]
        if isinstance(node, yaml.ScalarNode):
            try:
                value = self.loader.construct_object(node)
            except ValueError:
                value = node
            if isinstance(value, float) and math.isinf(value) and "inf" not in node.value.lower():
                value = Overflow(node.value)
            if value is None or isinstance(value, str | int | float):
                return value
        raise ConfigError(f"{self._place(node)}: unsupported type {node.tag.rsplit(':', 1)[-1]!r}")

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        lines: dict[str, int] = {}
        for key, value in node.value:
            merge = key.tag.endswith(":merge")
            if not merge and not (isinstance(key, yaml.ScalarNode) and key.tag.endswith(":str")):
                shown = key.value if isinstance(key, yaml.ScalarNode) else "a list or dictionary"
                raise ConfigError(f"{self._place(key)}: a key must be a string, got {shown}")
            if key.value in lines:
                raise ConfigError(
                    f"{self._place(key)}: the key {key.value!r} appears twice (first in line {lines[key.value]})"
                )
            lines[key.value] = key.start_mark.line + 1
            if merge:
                merged = self._merged(value)
            else:
                entries[key.value] = self.build(value, self._place(key))
        return merged | entries

    def _merged(self, node: yaml.Node) -> dict[str, Node]:
        """Return the keys merged by `<<: node`; of several dictionaries the first takes precedence."""
        merged: dict[str, Node] = {}
        for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            value = self.build(source, self._place(source)).value
            if not isinstance(value, dict):
                raise ConfigError(f"{self._place(source)}: '<<' merges dictionaries, got {_kind(value)}")
            merged = value | merged
        return merged

    def _place(self, node: yaml.Node) -> Place:
        return Place(self.shown, node.start_mark.line + 1)


def _one_line(text: object) -> str:
    return " ".join(str(text).split())


def _kind(value: object) -> str:
    return "a list" if isinstance(value, list) else f"{value!r}"
