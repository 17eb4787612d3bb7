"""User-facing errors. Each is printed as one line, never as a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class LuigiPruneError(Exception):
    """An error that the user can fix; its message is one line."""


class ConfigError(LuigiPruneError):
    """An invalid setting; the message names the file, the key, the value and the nearest valid choice."""


class UnreachableRatio(LuigiPruneError):
    """A keep ratio that a method cannot reach on a network."""


class OutOfMemory(LuigiPruneError):
    """A device has too little memory; the message names the stage or method, the batch size and a remedy."""


class Interrupted(Exception):
    """A training was stopped after saving a checkpoint; all its processes raise this at the same step."""


class Superseded(Exception):
    """A job finished after another run had taken over its result; it writes nothing."""


class DamagedResult(LuigiPruneError):
    """A result file whose content does not match its checksum."""

    def __init__(self, path: str | Path, reason: str):
        super().__init__(f"{path}: damaged ({reason})")
        self.path = Path(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type[DamagedResult], tuple[str, str]]:
        return DamagedResult, (str(self.path), self.reason)


def reason_of(error: BaseException) -> str:
    """Return an error of a library as "its type: the first line of its message"."""
    return f"{type(error).__name__}: {(str(error).splitlines() or ['no reason given'])[0]}"


def first_line(error: BaseException | str) -> str:
    """Return the first line of an error's message, or of a text; its type if it has none."""
    return (str(error).splitlines() or [""])[0] or type(error).__name__


def nearest(value: object, choices: Iterable[str], *, listed: bool = True) -> str:
    """Return `; did you mean 'x'?` for the choice closest to `value`, or the choices, if `listed`, if none is close."""
    options = sorted(choices)
    folded = {option.lower(): option for option in options}
    close = difflib.get_close_matches(str(value).lower(), folded, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {folded[close[0]]!r}?"
    shown = ", ".join(options[:12]) + (", ..." if len(options) > 12 else "")
    return f"; choose from {shown}" if options and listed else ""
