"""Errors of pydantic as messages with key, value and the nearest valid choice."""

from __future__ import annotations

import re
from typing import Any

from pydantic import ValidationError

from luigi_prune.config.key_names import KeyPath, SettingError, field_name, known_keys, shown_key, shown_path
from luigi_prune.errors import nearest

_MAX_SHOWN = 60
_SINGLE = (("network",), ("training",), ("retraining",))  # sections whose values one may want to vary

_EXPECTED = {
    "int": "an integer",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "string": "a string",
    "tuple": "a list",
    "list": "a list",
    "dict": "a dictionary",
    "model": "a dictionary",
}


def setting_error(error: ValidationError) -> SettingError:
    """Return the first error as a SettingError."""
    first = error.errors(include_url=False)[0]
    path: KeyPath = tuple(field_name(step) if isinstance(step, str) else step for step in first["loc"])
    path += getattr(first.get("ctx", {}).get("error"), "below", ())
    return SettingError(path, _reason(path, first["type"], first.get("ctx", {}), first["input"]))


def unknown_key(path: KeyPath) -> SettingError:
    """Return the error for an unknown key, with the nearest valid one."""
    *above, name = path
    choices = [shown_key(choice) for choice in known_keys(above) or ()]
    where = f" of {shown_path(above)!r}" if above else ""
    return SettingError(path, f"{str(name)!r} is not a key{where}{nearest(name, choices)}")


def _reason(path: KeyPath, kind: str, context: dict[str, Any], value: object) -> str:
    """Return one line for an error type of pydantic."""
    shown = repr(value)
    shown = shown if len(shown) <= _MAX_SHOWN else shown[:_MAX_SHOWN] + "..."
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return unknown_key(path).reason
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", str(context["expected"]))
        return f"{shown} is not a choice{nearest(value, choices)}"
    if kind == "string_type" and path[:1] == ("network_colors",):
        digits = f"{value:06d}" if isinstance(value, int) else "1f77b4"
        return f"expected a colour, got {shown}: hexadecimal ones need a # and quotes, '#{digits}'"
    if kind == "string_too_short":
        return "expected a non-empty string, got ''"
    if kind == "too_short":
        return "expected at least one entry"
    for name, words in (
        ("greater_than_equal", "must be at least"),
        ("less_than_equal", "must be at most"),
        ("greater_than", "must be above"),
        ("less_than", "must be below"),
    ):
        if kind == name:
            limit = next(iter(context.values()))
            return f"{words} {limit:g}, got {shown}"
    if kind.endswith("_type") and isinstance(value, list) and path[:1] in _SINGLE:
        shown += "; a sweep has an entry of `customizations` for each value"
    return f"expected {_EXPECTED.get(kind.split('_')[0], 'a value of another type')}, got {shown}"
