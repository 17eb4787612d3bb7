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
from functools import partial
from multiprocessing import Process, forkserver
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from luigi_prune.execution.bundles import MemberLog, run_members
from luigi_prune.execution.job import Context, Job, Outcome
from luigi_prune.execution.output import write_output_to

logger = logging.getLogger(__name__)

PROGRESS_SECONDS = 0.2  # at most five messages a second
MESSAGE_CHARACTERS = 10_000  # of a failure message, from its end; a pipe buffers that many without a reader
PROGRESS_CHARACTERS = 300  # keeps a message below the 4096 bytes that a pipe writes atomically


@dataclass(frozen=True)
class ChildStart:
    """The input of one process of a job."""

    jobs: list[dict[str, Any]]  # the one job; of several, which may exceed a pipe's buffer, see `write_jobs`
    context: dict[str, Any]  # fields of Context, without functions
    environment: dict[str, str]
    log: str
    folder: str  # of the rendezvous, `write_jobs` and `stop_file`, to delete if the driver has ended; "": none
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
    """Run the jobs in this process, send their outcomes; `driver`: descriptor, readable once the driver has ended."""
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
    jobs = [Job(**job) for job in start.jobs or json.loads(_jobs_file(start.folder).read_text())]
    contexts = [_context(start, member, stop, sender) for member in range(len(jobs))]
    rank, pid = contexts[0].rank + 1, os.getpid()
    place = f"process {rank} of {contexts[0].world_size}, pid {pid}, of driver {start.driver_pid}"
    logger.info("%s: %s", start.name, place)
    _run_jobs(jobs, contexts, sender, place)


def _context(start: ChildStart, member: int, stop: threading.Event, sender: _Sender) -> Context:
    """Return the context of one of the jobs; only those of several can be stopped one by one."""
    context = Context(**start.context, job_id=str(os.getpid()), should_stop=stop.is_set)
    if context.rank == 0:
        context.progress = partial(sender.progress, member=member)
    if not start.jobs:
        context.is_superseded = partial(os.path.exists, stop_file(start.folder, member))
        context.should_stop = lambda: stop.is_set() or context.is_superseded()
    return context


def write_jobs(folder: str, jobs: list[dict[str, Any]]) -> None:
    """Write down the jobs that share a process."""
    _jobs_file(folder).write_text(json.dumps(jobs))


def _jobs_file(folder: str) -> Path:
    return Path(folder) / "jobs.json"


def stop_file(folder: str, member: int) -> str:
    """Return the file with which the driver stops one job of several in a process."""
    return os.path.join(folder, f"stop-{member}")


def _run_jobs(jobs: list[Job], contexts: list[Context], sender: _Sender, place: str) -> None:
    """Run the jobs and send their outcomes."""
    logs = {i: MemberLog(job, jobs[0].log, place) for i, job in enumerate(jobs) if i}
    for index, log in logs.items():
        contexts[index].log_line = log.line
    began = time.monotonic()
    ended: set[int] = set()

    def end(member: int, outcome: Outcome) -> None:
        ended.add(member)
        if member in logs:
            logs[member].end(outcome)
        with suppress(OSError):  # the disk is full
            if member not in logs and outcome.status != "done":
                print(outcome.message, file=sys.stderr)
            sys.stdout.flush()
            sys.stderr.flush()
        short = replace(outcome, message=outcome.message[-MESSAGE_CHARACTERS:])
        sender.send({"outcome": asdict(short), "member": member})

    try:
        run_members(jobs, contexts, end)
    except BaseException:  # SystemExit too: the driver gets every outcome
        message = traceback.format_exc()
        for index in range(len(jobs)):
            if index not in ended:
                end(index, Outcome("failed", message, seconds=time.monotonic() - began))


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
    if start.folder:
        shutil.rmtree(start.folder, ignore_errors=True)
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


class _Sender:
    """Sends messages to the driver; never raises, and progress never blocks."""

    def __init__(self, messages: Connection):
        self._messages = messages
        self._lock = threading.Lock()
        self._last: dict[int, float] = {}  # by job
        os.set_blocking(messages.fileno(), False)

    def send(self, message: dict[str, Any]) -> None:
        """Send a message; blocks while the pipe is full."""
        with self._lock, suppress(OSError):
            os.set_blocking(self._messages.fileno(), True)
            self._messages.send_bytes(json.dumps(message).encode())
            os.set_blocking(self._messages.fileno(), False)

    def progress(self, fraction: float, message: str, member: int = 0) -> None:
        """Send a progress message; drop it if the last one of the job is recent or the pipe is full."""
        now = time.monotonic()
        if now - self._last.get(member, float("-inf")) < PROGRESS_SECONDS and fraction < 1:
            return
        self._last[member] = now
        with self._lock, suppress(OSError, TypeError, ValueError):
            text = str(message)[:PROGRESS_CHARACTERS]
            data = json.dumps({"progress": [float(fraction), text], "member": member})
            self._messages.send_bytes(data.encode())
