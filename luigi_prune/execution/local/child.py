"""A job's process in the local backend: set-up, the job function, messages to the driver."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import Process, forkserver
from multiprocessing.connection import Connection, wait
from typing import Any

from luigi_prune.execution.job import Context, Job, Outcome
from luigi_prune.execution.job_run import run
from luigi_prune.execution.output import write_output_to

logger = logging.getLogger(__name__)

PROGRESS_SECONDS = 0.2  # at most five messages a second
MESSAGE_CHARACTERS = 10_000  # of a failure message, from its end; a pipe buffers that many without a reader
PROGRESS_CHARACTERS = 300  # keeps a message below the 4096 bytes that a pipe writes atomically


@dataclass(frozen=True)
class ChildStart:
    """The input of one process of a job."""

    job: dict[str, Any]
    context: dict[str, Any]  # fields of Context, without functions
    environment: dict[str, str]
    log: str
    rendezvous: str  # folder to delete if the driver has ended
    driver_pid: int
    name: str = field(default="job")

    def _bootstrap(self, parent_sentinel: int) -> int:
        """Run in the new process and return its exit code; called by the fork server, as with a `Process`."""
        descriptors = forkserver.get_inherited_fds()
        assert descriptors is not None
        messages = Connection(descriptors[0], readable=False)
        process = Process(target=run_process, args=(self, messages, parent_sentinel), name=self.name)
        return process._bootstrap(parent_sentinel=parent_sentinel)  # type: ignore[attr-defined]


def run_process(start: ChildStart, messages: Connection, driver: int) -> None:
    """Run the job in this process and send its outcome; `driver`: descriptor, readable once the driver has ended."""
    os.environ.update(start.environment)  # first: libraries read visible devices and numbers of threads only once
    with suppress(OSError):
        os.setpgid(0, 0)  # a separate group gets no Ctrl-C, and is killed with its data loader workers
    if wait([driver], timeout=0):
        return  # cancelled before the fork
    stop = threading.Event()
    _set_signals(stop)
    write_output_to(start.log)
    threading.Thread(target=_exit_with_driver, args=(driver, start), daemon=True).start()
    sender = _Sender(messages)
    os.register_at_fork(after_in_child=messages.close)  # forks of this process must not hold the pipe open
    sender.send({"started": time.monotonic()})
    context = Context(**start.context, job_id=str(os.getpid()), should_stop=stop.is_set)
    if context.rank == 0:
        context.progress = sender.progress
    rank, pid = context.rank + 1, os.getpid()
    logger.info(
        "%s: process %d of %d, pid %d, of driver %d", start.name, rank, context.world_size, pid, start.driver_pid
    )
    outcome = _run_job(Job(**start.job), context)
    if outcome.status != "done":
        print(outcome.message, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    sender.send({"outcome": asdict(replace(outcome, message=outcome.message[-MESSAGE_CHARACTERS:]))})


def _run_job(job: Job, context: Context) -> Outcome:
    began = time.monotonic()
    try:
        return run(job, context)
    except BaseException:  # SystemExit too: the driver gets every outcome
        return Outcome("failed", traceback.format_exc(), seconds=time.monotonic() - began)


def _set_signals(stop: threading.Event) -> None:
    """Make SIGTERM set `stop` and a second SIGTERM kill; ignore SIGINT, which the driver handles."""

    def on_terminate(number: int, frame: object) -> None:
        stop.set()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, on_terminate)
    # a data loader worker must end on SIGTERM, or the process that terminates it would wait forever
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def _exit_with_driver(driver: int, start: ChildStart) -> None:
    """Kill this process and its group once the driver or the fork server has ended."""
    server_pid = os.getppid()
    watched = [driver]
    for pid in (start.driver_pid, server_pid):
        # a fork of the driver may hold its pipes open, so watch the process, too
        with suppress(AttributeError, OSError):
            watched.append(os.pidfd_open(pid))
    timeout = None if len(watched) == 3 else 1.0
    while not wait(watched, timeout) and os.getppid() == server_pid:
        pass
    if start.rendezvous:
        shutil.rmtree(start.rendezvous, ignore_errors=True)
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


class _Sender:
    """Sends messages to the driver; never raises, and progress never blocks."""

    def __init__(self, messages: Connection):
        self._messages = messages
        self._lock = threading.Lock()
        self._last = 0.0
        os.set_blocking(messages.fileno(), False)

    def send(self, message: dict[str, Any]) -> None:
        """Send a message; blocks while the pipe is full."""
        with self._lock, suppress(OSError):
            os.set_blocking(self._messages.fileno(), True)
            self._messages.send_bytes(json.dumps(message).encode())
            os.set_blocking(self._messages.fileno(), False)

    def progress(self, fraction: float, message: str) -> None:
        """Send a progress message; drop it if the last one is recent or the pipe is full."""
        now = time.monotonic()
        if now - self._last < PROGRESS_SECONDS and fraction < 1:
            return
        self._last = now
        with self._lock, suppress(OSError, TypeError, ValueError):
            data = json.dumps({"progress": [float(fraction), str(message)[:PROGRESS_CHARACTERS]]})
            self._messages.send_bytes(data.encode())
