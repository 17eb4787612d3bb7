"""The local backend: a process per job, several for DDP, forked warm; as many jobs at once as this machine allows."""

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
class _Careful:
    """A listener whose exceptions are logged: no listener may stop the thread that serves all of them."""

    listener: Listener

    def started(self) -> None:
        self._call(self.listener.started)

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
    """Return what starts the processes: a fork server where it is tested, else a new Python for each."""
    if sys.version_info[:2] in TESTED_PYTHONS:
        return WarmServer()
    first, last = (".".join(map(str, version)) for version in (TESTED_PYTHONS[0], TESTED_PYTHONS[-1]))
    logger.warning(
        "Python %d.%d: the fork server is tested on %s to %s; here every job starts a Python of its own, which imports"
        " torch for itself",
        *(*sys.version_info[:2], first, last),
    )
    return FreshServer()


class LocalBackend(Backend):
    """Runs jobs in processes of this machine, first come, first served.

    One thread, started here, launches the processes, waits for all of them at once and calls the listeners. A fork
    server imports torch meanwhile; `submit` never waits for it. Every process ends with the driver, however that ends.
    """

    name = "local"

    def __init__(self, settings: ComputeSettings, grace_seconds: float = 10.0):
        """`grace_seconds`: how long a job may take to save and stop before it is killed. Raises ConfigError."""
        self._slots = Slots(settings)
        self.slots = self._slots.total
        self._settings = settings
        self._grace_seconds = grace_seconds
        self._server = _new_server()
        self._lock = threading.Lock()  # guards the next five
        self._waiting: deque[tuple[Job, Listener]] = deque()
        self._dropped: list[Listener] = []  # of jobs that were cancelled before they started
        self._cancelled: list[Job] = []
        self._closing = False
        self._impatient = False
        self._running: list[Attempt] = []  # the thread's own, like the server and the slots
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="local backend", daemon=True)
        self._thread.start()

    def submit(self, job: Job, listener: Listener) -> None:
        """Queue the job; it starts as soon as everything submitted before it has started and slots are free."""
        with self._lock:
            if self._closing:
                raise RuntimeError("the local backend is closed")
            self._waiting.append((job, _Careful(listener)))
        self._wake()

    def cancel(self, job: Job) -> None:
        """Stop the job, running or waiting; returns at once, the listener hears `ended` when it has ended."""
        with self._lock:
            self._cancelled.append(job)
            self._drop(lambda waiting: waiting == job)
        self._wake()

    def close(self) -> None:
        """Cancel everything and wait until no process is left; Ctrl-C while it waits kills them at once."""
        try:
            self._close()
        except KeyboardInterrupt:
            self._impatient = True
            self._close()
            raise

    def _close(self) -> None:
        with self._lock:
            self._closing = True
            self._drop(lambda waiting: True)
        self._wake()
        if threading.current_thread() is not self._thread:  # where a listener closes it, the thread ends later
            self._stopped.wait()  # not `join`: interrupted once, it believes that the thread has ended

    def _drop(self, chosen: Callable[[Job], bool]) -> None:
        self._dropped += [listener for job, listener in self._waiting if chosen(job)]
        self._waiting = deque(entry for entry in self._waiting if not chosen(entry[0]))

    def _wake(self) -> None:
        with self._lock:
            if self._wake_write >= 0:
                with suppress(BlockingIOError):  # full of calls that wake it anyway
                    os.write(self._wake_write, b"\0")

    def _serve(self) -> None:
        try:
            self._server.start()
        except OSError:
            logger.exception("the fork server could not be started; the next job tries again")
        try:
            while self._obey():
                self._launch_waiting()
                self._wait()
        except Exception as error:  # a fault of this file; still nobody may wait for ever
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

    def _obey(self) -> bool:
        """Cancel what is to be cancelled; return whether there is anything left to serve, now or later."""
        with self._lock:
            closing, cancelled = self._closing, self._cancelled
            self._cancelled = []
            dropped, self._dropped = self._dropped, []
        for listener in dropped:
            listener.ended(Outcome("failed", "cancelled", retry=False))
        for attempt in self._running:
            if closing or attempt.job in cancelled:
                attempt.cancel()
            if self._impatient:
                attempt.kill_at = 0.0
        self._reap()
        return bool(self._running) or not closing

    def _launch_waiting(self) -> None:
        """Start jobs in order while the first of the queue finds enough free slots; nobody overtakes it."""
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
                self._wake()  # nothing may be left that `_wait` could hear of

    def _wait(self) -> None:
        """Sleep until a process says something or ends, somebody wakes us, or a grace period is over."""
        sources: dict[int | Connection, Callable[[], None]] = {
            source: answer for attempt in self._running for source, answer in attempt.sources()
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
        """Kill the late, and tell the listeners of the jobs that have ended."""
        now = time.monotonic()
        for attempt in list(self._running):
            attempt.kill_if_late(now)
            if attempt.over:
                self._running.remove(attempt)
                self._slots.give_back(attempt.job.family, attempt.gpus)
                attempt.listener.ended(attempt.finish())
