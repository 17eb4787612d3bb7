"""What pydantic finds, in words that name key, value and the nearest valid choice."""

from __future__ import annotations

import re
from typing import Any

from pydantic import ValidationError

from luigi_prune.config.key_names import KeyPath, SettingError, field_name, known_keys, shown_key, shown_path
from luigi_prune.errors import nearest

_LONGEST_VALUE = 60

_WANTED = {
    "int": "a whole number is wanted",
    "float": "a number is wanted",
    "finite": "a finite number is wanted",
    "bool": "true or false is wanted",
    "string": "a text is wanted",
    "tuple": "a list is wanted",
    "list": "a list is wanted",
    "dict": "a dictionary is wanted",
    "model": "a dictionary is wanted",
}


def setting_error(error: ValidationError) -> SettingError:
    """Return the first finding as a SettingError."""
    first = error.errors(include_url=False)[0]
    path: KeyPath = tuple(field_name(step) if isinstance(step, str) else step for step in first["loc"])
    return SettingError(path, _reason(path, first["type"], first.get("ctx", {}), first["input"]))


def unknown_key(path: KeyPath) -> SettingError:
    """Return the error for a key that does not exist, with the nearest one that does."""
    *above, name = path
    choices = [shown_key(choice) for choice in known_keys(above) or ()]
    where = f" of {shown_path(above)!r}" if above else ""
    return SettingError(path, f"{str(name)!r} is not a key{where}{nearest(name, choices)}")


def _reason(path: KeyPath, kind: str, context: dict[str, Any], value: object) -> str:
    """Return one line for an error type of pydantic."""
    shown = repr(value)
    shown = shown if len(shown) <= _LONGEST_VALUE else shown[:_LONGEST_VALUE] + "..."
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return unknown_key(path).reason
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", str(context["expected"]))
        return f"{shown} is not a choice{nearest(value, choices)}"
    if kind == "string_too_short":
        return "a text is wanted, not ''"
    if kind == "too_short":
        return "at least one entry is wanted"
    for name, words in (
        ("greater_than_equal", "must be at least"),
        ("less_than_equal", "must be at most"),
        ("greater_than", "must be above"),
        ("less_than", "must be below"),
    ):
        if kind == name:
            limit = next(iter(context.values()))
            return f"{words} {limit:g}, not {shown}"
    return f"{_WANTED.get(kind.split('_')[0], 'a value of another kind is wanted')}, not {shown}"
