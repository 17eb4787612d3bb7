"""The functions that the names in a method's row refer to."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TypeVar, cast

from luigi_prune.errors import ConfigError, nearest

T = TypeVar("T")


def resolve_function(kind: str, name: str, table: Mapping[str, T]) -> T:
    """Return the entry of `table` called `name`, or the function at an import path "package.module:function".

    Raises ConfigError if there is neither.
    """
    if name in table:
        return table[name]
    if ":" not in name:
        raise ConfigError(f"there is no {kind} {name!r}{nearest(name, table)}")
    module_name, _, attribute = name.partition(":")
    try:
        value: object = importlib.import_module(module_name)
        for part in attribute.split("."):
            value = getattr(value, part)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{kind} {name!r} cannot be imported: {error}") from error
    return cast(T, value)
