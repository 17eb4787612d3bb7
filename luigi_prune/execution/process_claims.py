"""Claims of processes: one driver computes a result, all others wait for it, until it exists or the driver has died.

For the backends whose jobs end with their driver. The owner touches its claims as long as it lives. On the owner's own
machine, the process itself tells whether it lives; elsewhere, a claim that nobody has touched for `STALE_SECONDS` is
that of a dead one. Their age is not read from a clock: the watcher waits whether the file changes.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from luigi_prune.execution import claims
from luigi_prune.execution.claims import Claim
from luigi_prune.execution.remote_jobs import RemoteJobs

BEAT_SECONDS = 15.0
STALE_SECONDS = 150.0  # network file systems show a change up to a minute late
POLL_SECONDS = 1.0

_held: dict[str, int] = {}  # output -> attempt, of all drivers in this process
_lock = threading.RLock()


class ProcessClaims:
    """The claims of a driver: those that it holds, and those of others that it waits for."""

    def __init__(self, remote_jobs: Callable[[], list[RemoteJobs]] = list):
        """`remote_jobs`: of the backends whose jobs may compute a result, too."""
        self._remote_jobs = remote_jobs
        self._mine: set[str] = set()
        self._watched: dict[str, Callable[[], None]] = {}
        self._signs: dict[str, tuple[object, float]] = {}  # output -> last sign of life of its owner, and its time
        self._wake = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    def take(self, output: str | Path) -> int:
        """Claim a result for this process and return the attempt; 0 if another driver computes it. Raises OSError."""
        output = str(output)
        if output in self._mine:
            return _held[output]
        while True:
            claim, attempt = claims.newest_and_last(output)
            if attempt and self._owner_lives(output, claim, attempt):
                return 0
            with _lock:
                if claims.make_claim(output, "", 0, attempt + 1):
                    _held[output] = attempt + 1
                    self._mine.add(output)
                    self._start()
                    return attempt + 1

    def release(self, output: str | Path) -> None:
        """Give up the claim to a result, if this driver holds it."""
        output = str(output)
        with _lock:
            if output not in self._mine:
                return
            self._mine.discard(output)
            attempt = _held.pop(output)
        with suppress(OSError):
            claims.release(output, attempt)

    def watch(self, output: str | Path, on_change: Callable[[], None]) -> None:
        """Call `on_change` once, from another thread, when the result exists or its claim is void."""
        with _lock:
            self._watched[str(output)] = on_change
            self._start()
            self._wake.set()

    def unwatch(self, output: str | Path) -> None:
        """Stop waiting for a result."""
        with _lock:
            self._watched.pop(str(output), None)

    def owner(self, output: str | Path) -> str:
        """Return for people who computes a result: "process 123 of n3"; "" if it is not claimed."""
        claim = claims.newest(output)
        if claim is None:
            return ""
        if claim.is_of_process:
            return describe(claim)
        path = Path(output)
        return next((place.text for jobs in self._remote_jobs() for place in jobs.where([path]).values()), claim.name)

    def is_void(self, output: str | Path) -> bool:
        """Return whether no living driver has claimed a result."""
        claim, attempt = claims.newest_and_last(output)
        return not (attempt and self._owner_lives(str(output), claim, attempt))

    def close(self) -> None:
        """Give up all claims and stop waiting."""
        self._closed = True
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        for output in list(self._mine):
            self.release(output)

    def _owner_lives(self, output: str, claim: Claim | None, attempt: int) -> bool:
        if claim is not None and claim.attempt == attempt and claim.is_of_process and claim.is_of_this_machine:
            return is_alive(output, claim)
        if claim is not None and claims.driver_is_alive(claim):
            return True
        sign = self._sign(output, claim, attempt)
        last, since = self._signs.get(output, (None, 0.0))
        now = time.monotonic()
        if last != sign:
            self._signs[output] = (sign, now)
            return True
        return now - since < STALE_SECONDS

    def _sign(self, output: str, claim: Claim | None, attempt: int) -> tuple[object, ...]:
        """Return a value that changes as long as the owner of a claim lives, or may be writing it."""
        changed = 0
        with suppress(OSError):
            changed = claims.claim_path(output, attempt).stat().st_mtime_ns
        pulses = [] if claim is None or claim.is_of_process else [j.pulse(Path(output)) for j in self._remote_jobs()]
        return attempt, changed, *pulses

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="claims", daemon=True)
            self._thread.start()

    def _serve(self) -> None:
        beat = time.monotonic() + BEAT_SECONDS
        while not self._closed:
            self._wake.wait(POLL_SECONDS if self._watched else max(0.0, beat - time.monotonic()))
            self._wake.clear()
            if time.monotonic() >= beat:
                self._touch()
                beat = time.monotonic() + BEAT_SECONDS
            for output in list(self._watched):
                if self._has_changed(output):
                    with _lock:
                        on_change = self._watched.pop(output, None)
                    if on_change is not None:
                        on_change()
            if self._watched and not self._closed:
                time.sleep(POLL_SECONDS / 10)  # `_wake` may be set all the time

    def _touch(self) -> None:
        with _lock:
            paths = [claims.claim_path(output, _held[output]) for output in self._mine]
        for path in paths:
            with suppress(OSError):
                os.utime(path)

    def _has_changed(self, output: str) -> bool:
        return os.path.exists(output) or self.is_void(output)


def is_alive(output: str | Path, claim: Claim) -> bool:
    """Return whether the process that made a claim lives; one of another machine does if it was active lately."""
    if claim.is_of_this_machine:
        if claim.pid == os.getpid():  # else left behind by an earlier run of this process
            return _held.get(str(output)) == claim.attempt
        return claims.driver_is_alive(claim)
    return age(output, claim) < STALE_SECONDS


def age(output: str | Path, claim: Claim) -> float:
    """Return the seconds since a claim was touched, by this machine's clock."""
    try:
        return max(0.0, time.time() - claims.claim_path(output, claim.attempt).stat().st_mtime)
    except OSError:
        return float("inf")


def describe(claim: Claim) -> str:
    """Return the process that made a claim, for people: its number, its host, and whether it is stopped."""
    where = "" if claim.host == socket.gethostname() else f" of {claim.host}"
    return f"process {claim.pid}{where}" + (", which is stopped" if _is_stopped(claim) else "")


def _is_stopped(claim: Claim) -> bool:
    with suppress(OSError, IndexError):
        return claim.is_of_this_machine and Path(f"/proc/{claim.pid}/stat").read_text().rpartition(")")[2].split()[
            0
        ] in ("T", "t")
    return False
