"""The errors that users see. Each becomes one line on the terminal, never a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class LuigiPruneError(Exception):
    """Something that the user can mend; its text is one line."""


class ConfigError(LuigiPruneError):
    """A setting that cannot work: names the file, the key, the value and the nearest valid choice."""


class UnreachableRatio(LuigiPruneError):
    """A keep ratio that a method cannot reach on a network."""


class OutOfMemory(LuigiPruneError):
    """A device is too small for what was asked of it: names the stage or method, the batch size and the cure."""


class Interrupted(Exception):
    """A training was asked to stop and has saved a checkpoint; every process of it raises this at the same step."""


class DamagedResult(LuigiPruneError):
    """A result file whose bytes are not those that were written."""

    def __init__(self, path: str | Path, reason: str):
        super().__init__(f"{path}: damaged ({reason})")
        self.path = Path(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type[DamagedResult], tuple[str, str]]:
        return DamagedResult, (str(self.path), self.reason)


def nearest(value: object, choices: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the choice closest to `value`, or the choices when none is close."""
    options = sorted(choices)
    folded = {option.lower(): option for option in options}
    close = difflib.get_close_matches(str(value).lower(), folded, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {folded[close[0]]!r}?"
    shown = ", ".join(options[:12]) + (", ..." if len(options) > 12 else "")
    return f"; choose from {shown}" if options else ""
