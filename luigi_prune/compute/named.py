"""The object that a row of the registry names."""

from __future__ import annotations

import importlib
from typing import Any

from luigi_prune.registry import is_foreign, load_part
from luigi_prune.registry.rows import Function


def resolve(path: Function) -> Any:
    """Return the object at a row's `path`: "module:attribute", with "@digest" for a foreign part, or the object itself.

    Raises ConfigError for a foreign module that cannot be imported.
    """
    if not isinstance(path, str):
        return path
    if is_foreign(path):
        return load_part(path)
    module, attribute = path.split(":")
    return getattr(importlib.import_module(module), attribute)
