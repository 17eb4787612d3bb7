"""A listener that remembers, and waiting for what other processes do."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from luigi_prune.execution.job import Backend, Job, Outcome

SLOW_SECONDS = 3.0  # how long the slow fork server imports
PATIENCE = 120.0  # seconds after which a test gives up; nothing asserts that anything is fast


class Ear:
    """A listener that remembers what it heard, and when."""

    def __init__(self) -> None:
        self.starts = 0
        self.progress: list[tuple[float, str]] = []
        self.outcomes: list[Outcome] = []
        self.ended_at = 0.0
        self._ended = threading.Event()

    def started(self) -> None:
        self.starts += 1

    def progressed(self, fraction: float, message: str) -> None:
        self.progress.append((fraction, message))

    def ended(self, outcome: Outcome) -> None:
        self.ended_at = time.monotonic()
        self.outcomes.append(outcome)
        self._ended.set()

    def outcome(self) -> Outcome:
        assert self._ended.wait(PATIENCE), "the job did not end"
        return self.outcomes[0]


def submit(backend: Backend, job: Job) -> Ear:
    ear = Ear()
    backend.submit(job, ear)
    return ear


def wait_until(condition: Callable[[], Any]) -> None:
    """Return once the condition holds; fail where it never does."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def running(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    if sys.platform != "linux":
        state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
        return bool(state) and not state.startswith("Z")
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
