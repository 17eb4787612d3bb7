"""Failures of jobs as notes on the terminal: many at once with the same message are one note."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable

_GATHER_SECONDS = 1.0
_SHOWN = 8  # titles in the summary


class FailureNotes:
    """Gathers failures for a moment: when a user cancels 300 jobs, they all fail within one."""

    def __init__(self, note: Callable[[str], None], seconds: float = _GATHER_SECONDS):
        """`note` prints a permanent text."""
        self._note = note
        self._seconds = seconds
        self._lock = threading.Lock()
        self._gathered: dict[str, list[tuple[str, str]]] = {}  # message without what differs -> title, message
        self._timer: threading.Timer | None = None

    def add(self, title: str, message: str) -> None:
        """Take a failure, to be printed soon."""
        with self._lock:
            self._gathered.setdefault(_common(message), []).append((title, message))
            if self._timer is None:
                self._timer = threading.Timer(self._seconds, self.flush)
                self._timer.daemon = True
                self._timer.start()

    def flush(self) -> None:
        """Print the failures gathered so far."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            gathered, self._gathered, self._timer = self._gathered, {}, None
        for failures in gathered.values():
            (title, message), others = failures[0], len(failures) - 1
            if not others:
                self._note(f"[failed] {title}\n{message}")
                continue
            text = "\n".join(line for line in message.splitlines() if not line.startswith("log: "))
            self._note(f"[failed] {title} and {others} more:{' ' if len(text.splitlines()) == 1 else chr(10)}{text}")


def listed(titles: list[str]) -> list[str]:
    """Return a line per failed task for the summary, and one for the rest of many."""
    lines = [f"  failed: {title}" for title in titles[:_SHOWN]]
    return lines + ([f"  failed: {len(titles) - _SHOWN} more"] if len(titles) > _SHOWN else [])


def _common(message: str) -> str:
    """Return a message without ids, times and paths, and without the line that names the log."""
    lines = [line for line in message.splitlines() if not line.startswith("log: ")]
    return re.sub(r"\S*[\d/]\S*", "#", "\n".join(lines))
