"""From a row of the light catalogue to the object it names."""

from __future__ import annotations

import importlib
from typing import Any


def resolve(path: str) -> Any:
    """Return what a catalogue row's `path`, "module:attribute", stands for."""
    module, attribute = path.split(":")
    return getattr(importlib.import_module(module), attribute)
