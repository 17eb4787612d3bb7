"""The local backend: starts, monitors and stops the processes of jobs on this machine."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

from luigi_prune.execution.job import Backend, ComputeSettings, Job, Listener, Outcome
from luigi_prune.execution.local.attempt import Attempt
from luigi_prune.execution.local.fork_server import TESTED_PYTHONS, WarmServer
from luigi_prune.execution.local.fresh_server import FreshServer
from luigi_prune.execution.slots import Slots

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
    """Runs jobs in processes of this machine, first come, first served.

    One thread launches the processes, waits for all of them and calls the listeners. Meanwhile, a fork server imports
    torch; `submit` does not wait for it. Every process ends with the driver, even if the driver is killed.
    """

    name = "local"

    def __init__(self, settings: ComputeSettings, grace_seconds: float = 10.0):
        """`grace_seconds`: time for a job to save and stop before it is killed. Raises ConfigError."""
        self._slots = Slots(settings)
        self.slots = self._slots.total
        self._settings = settings
        self._grace_seconds = grace_seconds
        self._server = _new_server()
        self._lock = threading.Lock()  # guards the next five attributes
        self._waiting: deque[tuple[Job, Listener]] = deque()
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
        """Queue the job; it starts once all jobs submitted before it have started and enough slots are free."""
        with self._lock:
            if self._closing:
                raise RuntimeError("the local backend is closed")
            self._waiting.append((job, _SafeListener(listener)))
        self._wake()

    def cancel(self, job: Job) -> None:
        """Stop the job, running or waiting; returns at once, and the listener gets `ended` later."""
        with self._lock:
            self._cancelled.append(job)
            self._drop(lambda waiting: waiting == job)
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
            self._drop(lambda waiting: True)
        self._wake()
        if threading.current_thread() is not self._thread:  # else a listener calls it: the thread ends later
            self._stopped.wait()  # not `join`, which after one interrupt takes the thread as ended

    def _drop(self, matches: Callable[[Job], bool]) -> None:
        self._dropped += [listener for job, listener in self._waiting if matches(job)]
        self._waiting = deque(entry for entry in self._waiting if not matches(entry[0]))

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
            self._drop(lambda waiting: True)
            listeners, self._dropped = self._dropped, []
        while self._running:
            attempt = self._running.pop()
            for child in attempt.children:
                child.kill()
                child.close()
            listeners.append(attempt.listener)
        for listener in listeners:
            listener.ended(Outcome("failed", f"the local backend stopped: {error!r}"))

    def _cancel_requested(self) -> bool:
        """Cancel jobs as requested; return False once the backend is closed and no job runs."""
        with self._lock:
            closing, cancelled = self._closing, self._cancelled
            self._cancelled = []
            dropped, self._dropped = self._dropped, []
        for listener in dropped:
            listener.ended(Outcome("failed", "cancelled", retry=False))
        for attempt in self._running:
            if closing or attempt.job in cancelled:
                attempt.cancel()
            if self._kill_now:
                attempt.kill_at = 0.0
        self._reap()
        return bool(self._running) or not closing

    def _launch_waiting(self) -> None:
        """Start jobs in order of submission while there are enough free slots for the first one."""
        while True:
            with self._lock:
                if not self._waiting or self._slots.needed(self._waiting[0][0].family) > self._slots.free:
                    return
                job, listener = self._waiting.popleft()
            attempt = Attempt(job, listener, self._grace_seconds)
            attempt.gpus = self._slots.take(job.family)
            self._running.append(attempt)
            try:
                attempt.launch(self._server, self._slots, self._settings.loader_workers)
            except Exception as error:
                logger.exception("%s could not be started", job.name)
                attempt.failures.append((0, Outcome("failed", f"could not be started: {error}")))
                attempt.terminate()
                self._wake()  # no process may be left that would wake `_wait`

    def _wait(self) -> None:
        """Wait until a process sends a message or ends, `_wake` is called, or a grace period ends."""
        sources: dict[int | Connection, Callable[[], None]] = {
            source: callback for attempt in self._running for source, callback in attempt.sources()
        }
        deadline = min((a.kill_at for a in self._running if a.kill_at is not None), default=float("inf"))
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
                attempt.listener.ended(attempt.finish())
