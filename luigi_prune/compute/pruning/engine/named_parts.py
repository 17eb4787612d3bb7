"""The functions that the names in a method's row refer to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar, cast

from luigi_prune.compute import named
from luigi_prune.errors import ConfigError, nearest
from luigi_prune.registry.rows import Function

T = TypeVar("T")


def resolve_function(kind: str, name: Function, table: Mapping[str, T]) -> T:
    """Return the entry of `table` called `name`, the function at an import path, or `name` if it is a function itself.

    Raises ConfigError if there is none.
    """
    if not isinstance(name, str):
        return cast(T, name)
    if name in table:
        return table[name]
    if ":" not in name:
        raise ConfigError(f"there is no {kind} {name!r}{nearest(name, table)}")
    try:
        return cast(T, named.resolve(name))
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{kind} {name!r} cannot be imported: {error}") from error
