"""From the names in a method's row to the functions that they stand for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TypeVar, cast

from luigi_prune.errors import ConfigError, nearest

T = TypeVar("T")


def resolve(kind: str, name: str, table: Mapping[str, T]) -> T:
    """Return the entry of `table` called `name`, or the function at an import path "package.module:function".

    Raises ConfigError when there is neither.
    """
    if name in table:
        return table[name]
    if ":" not in name:
        raise ConfigError(f"there is no {kind} {name!r}{nearest(name, table)}")
    module_name, _, attribute = name.partition(":")
    try:
        found: object = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{kind} {name!r} cannot be imported: {error}") from error
    return cast(T, found)
