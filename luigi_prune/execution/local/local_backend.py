"""The local backend: starts, monitors and stops the processes of jobs on this machine."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

from luigi_prune.execution.job import Backend, ComputeSettings, Job, Listener, Outcome, most_together
from luigi_prune.execution.local.attempt import Attempt
from luigi_prune.execution.local.bundle_attempt import BundleAttempt
from luigi_prune.execution.local.fork_server import TESTED_PYTHONS, WarmServer
from luigi_prune.execution.local.fresh_server import FreshServer
from luigi_prune.execution.slots import Slots
from luigi_prune.execution.waiting_jobs import WaitingJob, WaitingJobs

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class _SafeListener:
    """A listener whose exceptions are logged, so that it cannot end the backend's thread."""

    listener: Listener

    def started(self) -> None:
        self._call(self.listener.started)

    def requeued(self) -> None:
        self._call(self.listener.requeued)

    def progressed(self, fraction: float, message: str) -> None:
        self._call(self.listener.progressed, fraction, message)

    def ended(self, outcome: Outcome) -> None:
        self._call(self.listener.ended, outcome)

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        try:
            function(*arguments)
        except Exception:
            logger.exception("a listener failed")


def _new_server() -> WarmServer | FreshServer:
    """Return the fork server, or on untested versions of Python one that starts a new Python per process."""
    if sys.version_info[:2] in TESTED_PYTHONS:
        return WarmServer()
    first, last = (".".join(map(str, version)) for version in (TESTED_PYTHONS[0], TESTED_PYTHONS[-1]))
    logger.warning(
        "Python %d.%d: the fork server is tested on %s to %s only; here every job starts a new Python, which takes"
        " seconds to import torch",
        *(*sys.version_info[:2], first, last),
    )
    return FreshServer()


class LocalBackend(Backend):
    """Runs jobs in processes of this machine, first come, first served; jobs of an equal schedule may share one.

    One thread launches the processes, waits for all of them and calls the listeners. Meanwhile, a fork server imports
    torch; `submit` does not wait for it. Every process ends with the driver, even if the driver is killed.
    """

    name = "local"
    bundles = True

    def __init__(self, settings: ComputeSettings, grace_seconds: float = 10.0):
        """`grace_seconds`: time for a job to save and stop before it is killed. Raises ConfigError."""
        self._slots = Slots(settings)
        self.slots = self._slots.total
        self.together = most_together(settings)
        self._settings = settings
        self._grace_seconds = grace_seconds
        self._server = _new_server()
        self._lock = threading.Lock()  # guards the next five attributes
        self._waiting = WaitingJobs(settings.together)
        self._dropped: list[Listener] = []  # of jobs that were cancelled before they started
        self._cancelled: list[Job] = []
        self._closing = False
        self._kill_now = False
        self._running: list[Attempt] = []  # used by the thread only, like the server and the slots
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="local backend", daemon=True)
        self._thread.start()

    def submit(self, job: Job, listener: Listener) -> None:
        """Queue the job; it starts once all jobs submitted before it have started and enough slots are free.

        One that can share its process starts after the next `all_submitted`.
        """
        with self._lock:
            if self._closing:
                raise RuntimeError("the local backend is closed")
            self._waiting.add(job, _SafeListener(listener))
        self._wake()

    def all_submitted(self) -> None:
        """Let the jobs that can share a process start."""
        with self._lock:
            late = self._waiting.all_submitted()
        if late:
            self._wake()

    def cancel(self, job: Job) -> None:
        """Stop the job, running or waiting; returns at once, and the listener gets `ended` later."""
        with self._lock:
            self._cancelled.append(job)
            self._dropped += self._waiting.drop(lambda waiting: waiting.job == job)
        self._wake()

    def close(self) -> None:
        """Cancel all jobs and wait until their processes have ended; Ctrl-C meanwhile kills them."""
        try:
            self._close()
        except KeyboardInterrupt:
            self._kill_now = True
            self._close()
            raise

    def _close(self) -> None:
        with self._lock:
            self._closing = True
            self._dropped += self._waiting.drop(lambda waiting: True)
        self._wake()
        if threading.current_thread() is not self._thread:  # else a listener calls it: the thread ends later
            self._stopped.wait()  # not `join`, which after one interrupt takes the thread as ended

    def _wake(self) -> None:
        with self._lock:
            if self._wake_write >= 0:
                with suppress(BlockingIOError):  # the pipe is full, so the thread wakes anyway
                    os.write(self._wake_write, b"\0")

    def _serve(self) -> None:
        try:
            self._server.start()
        except OSError:
            logger.exception("the fork server could not be started; the next job tries again")
        try:
            while self._cancel_requested():
                self._launch_waiting()
                self._wait()
        except Exception as error:  # a bug here; listeners must still get `ended`
            logger.exception("the local backend stops")
            self._give_up(error)
        self._server.stop()
        with self._lock:
            write, self._wake_write = self._wake_write, -1
        os.close(write)
        os.close(self._wake_read)
        self._stopped.set()

    def _give_up(self, error: Exception) -> None:
        with self._lock:
            self._closing = True
            self._dropped += self._waiting.drop(lambda waiting: True)
            listeners, self._dropped = self._dropped, []
        outcome = Outcome("failed", f"the local backend stopped: {error!r}")
        while self._running:
            self._running.pop().give_up(outcome)
        for listener in listeners:
            listener.ended(outcome)

    def _cancel_requested(self) -> bool:
        """Cancel jobs as requested; return False once the backend is closed and no job runs."""
        with self._lock:
            closing, cancelled = self._closing, self._cancelled
            self._cancelled = []
            dropped, self._dropped = self._dropped, []
        for listener in dropped:
            listener.ended(Outcome("failed", "cancelled", retry=False))
        for attempt in self._running:
            if closing or cancelled:
                attempt.cancel(None if closing else cancelled)
            if self._kill_now:
                attempt.kill_at = 0.0
        self._reap()
        return bool(self._running) or not closing

    def _launch_waiting(self) -> None:
        """Start jobs in order of submission while there are enough free slots for the first one."""
        while entries := self._next():
            job, listener = entries[0].job, entries[0].listener
            attempt = Attempt(job, listener, self._grace_seconds)
            if len(entries) > 1:
                members = [(entry.job, entry.listener) for entry in entries]
                attempt = BundleAttempt(job, listener, self._grace_seconds, members=members)
            attempt.gpus = self._slots.take(job.family)
            self._running.append(attempt)
            try:
                attempt.launch(self._server, self._slots, self._settings.loader_workers)
            except Exception as error:
                logger.exception("%s could not be started", attempt.name)
                attempt.failures.append((0, Outcome("failed", f"could not be started: {error}")))
                attempt.terminate()
                self._wake()  # no process may be left that would wake `_wait`

    def _next(self) -> list[WaitingJob]:
        """Take the jobs that start now in one process out of the queue; [] if there are none."""
        with self._lock:
            first = self._waiting.first()
            if first is None or self._slots.needed(first.job.family) > self._slots.free:
                return []
            return self._waiting.take(self._slots.free)

    def _wait(self) -> None:
        """Wait until a process sends a message or ends, `_wake` is called, or a grace period ends."""
        sources: dict[int | Connection, Callable[[], None]] = {
            source: callback for attempt in self._running for source, callback in attempt.sources()
        }
        deadline = min((a.deadline for a in self._running if a.deadline is not None), default=float("inf"))
        timeout = None if deadline == float("inf") else max(0.0, deadline - time.monotonic())
        sources[self._wake_read] = self._woken
        for source in wait(list(sources), timeout):
            sources[source]()  # type: ignore[index]
        self._reap()

    def _woken(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._wake_read, 4096)

    def _reap(self) -> None:
        """Kill attempts past their grace period; report the outcomes of those that have ended."""
        now = time.monotonic()
        for attempt in list(self._running):
            attempt.kill_if_late(now)
            if attempt.over:
                self._running.remove(attempt)
                self._slots.free_slots(attempt.job.family, attempt.gpus)
                attempt.finish()
