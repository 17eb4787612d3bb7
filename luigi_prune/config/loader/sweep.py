"""Hyper-parameter sweeps: the members defined by the `customizations` of a file."""

from __future__ import annotations

import hashlib
import json
import re

from luigi_prune.config.key_names import KeyPath, SettingError, field_name, known_keys, shown_path
from luigi_prune.config.loader.yaml_positions import Node
from luigi_prune.errors import ConfigError, nearest

_MAX_NAME = 80


def sweep_members(root: Node) -> list[tuple[str, Node]]:
    """Return (name, tree) per entry of `customizations`, or the tree itself with an empty name without any.

    An entry's value replaces the value at its key path. A dictionary missing below `retraining` is first copied from
    `training`, so that a path into it changes a single value. Raises ConfigError for an invalid entry.
    """
    assert isinstance(root.value, dict)
    if "customizations" not in root.value:
        return [("", root)]
    sweep = root.value["customizations"]
    plain = Node({key: node for key, node in root.value.items() if key != "customizations"}, root.place)
    if not isinstance(sweep.value, list) or not sweep.value:
        raise ConfigError(f"{sweep.place}: customizations: expected a list of entries with 'key' and 'value'")
    members: dict[str, Node] = {}
    lines: dict[str, int] = {}
    for index, entry in enumerate(sweep.value):
        path, value = _entry(entry, index)
        name = _member_name(path, value)
        if name in members:
            raise ConfigError(
                f"{entry.place}: customizations[{index}]: the same as the customization in line {lines[name]}"
            )
        members[name] = _assign(plain, path, value, plain if path[0] == "retraining" else None)
        lines[name] = entry.place.line
    return list(members.items())


def _entry(entry: Node, index: int) -> tuple[tuple[str, ...], Node]:
    """Return the checked key path and the value of an entry; the value's place is the entry's."""
    where = f"{entry.place}: customizations[{index}]"
    if not isinstance(entry.value, dict):
        raise ConfigError(f"{where}: expected a dictionary with 'key' and 'value', got {entry.plain()!r}")
    for name in entry.value:
        if name not in ("key", "value"):
            raise ConfigError(f"{where}: unknown key {name!r}{nearest(name, ['key', 'value'])}")
    for name in ("key", "value"):
        if name not in entry.value:
            raise ConfigError(f"{where}: {name!r} is missing")
    key = entry.value["key"]
    steps = key.plain()
    if not isinstance(steps, list) or not steps or not all(isinstance(step, str) for step in steps):
        raise ConfigError(f"{key.place}: customizations[{index}].key: expected a list of names, got {steps!r}")
    path: tuple[str, ...] = ()
    for step in steps:
        try:
            choices = known_keys(path)
        except SettingError:
            raise ConfigError(
                f"{key.place}: customizations[{index}].key: {shown_path(path)!r} has no keys, so {step!r} is not one"
            ) from None
        name = step if choices is None else field_name(step)
        if choices is not None and name not in choices:
            hint = nearest(step, [shown_path((*path, choice)).rsplit(".", 1)[-1] for choice in choices])
            raise ConfigError(f"{key.place}: customizations[{index}].key: {step!r} is not a known key{hint}")
        path = (*path, name)
    return path, entry.value["value"]


def _assign(node: Node, path: KeyPath, value: Node, root: Node | None, at: KeyPath = ()) -> Node:
    """Return `node` with `value` at `path`; with `root`, dictionaries missing along it are copied from training."""
    first, *rest = path
    entries = dict(node.value) if isinstance(node.value, dict) else {}
    if not rest:
        entries[str(first)] = value
        return Node(entries, node.place)
    inner = entries.get(str(first))
    if inner is None or inner.value is None:
        inner = Node({}, value.place)
        if root is not None and at:
            template = root.find(("training", *at[1:], first))
            parent = root.find(("training", *at[1:]))
            inner = template if template is not parent and isinstance(template.value, dict) else inner
    entries[str(first)] = _assign(inner, tuple(rest), value, root, (*at, first))
    return Node(entries, node.place)


def _member_name(path: tuple[str, ...], value: Node) -> str:
    """Return the name of a member, valid as a file name: `training.batchSize=64`."""
    plain = value.plain()
    text = plain if isinstance(plain, str) else json.dumps(plain, sort_keys=True)
    shown = shown_path(path)
    name = re.sub(r"[^A-Za-z0-9._+=-]+", "_", f"{shown}={text}")
    if isinstance(plain, dict | list) or len(name) > _MAX_NAME or name != f"{shown}={text}":
        digest = hashlib.sha256(f"{shown}={text}".encode()).hexdigest()[:8]
        name = f"{name[: _MAX_NAME - 9]}-{digest}"
    return name
