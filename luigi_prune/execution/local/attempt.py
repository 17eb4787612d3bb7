"""One attempt at a job: its processes, their messages, and the outcome once all of them have ended.

Several jobs that share a process are in bundle_attempt.py.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

from luigi_prune.execution.job import Job, Listener, Outcome
from luigi_prune.execution.local.child import ChildStart, write_jobs
from luigi_prune.execution.local.fork_server import Child, WarmServer
from luigi_prune.execution.local.fresh_server import FreshServer
from luigi_prune.execution.output import last_lines
from luigi_prune.execution.slots import Slots


@dataclass(eq=False)
class Attempt:
    """A job that has slots; used by the backend's thread only."""

    job: Job
    listener: Listener
    grace_seconds: float
    gpus: list[str] = field(default_factory=list)
    children: list[Child] = field(default_factory=list)  # by rank
    outcomes: dict[int, Outcome] = field(default_factory=dict)  # as reported, by rank
    failures: list[tuple[int, Outcome]] = field(default_factory=list)  # with rank, the cause before its consequences
    folder: str = ""  # of the file for the rendezvous of the ranks
    log_start: int = 0  # size of the log before this attempt, in bytes
    started: bool = False
    cancelled: bool = False
    expected_exits: set[int] = field(default_factory=set)  # exit codes of processes that we terminated
    kill_at: float | None = None  # time.monotonic() at which the grace period ends

    @property
    def log(self) -> Path:
        """Path of the process's output."""
        return Path(self.job.log)

    @property
    def name(self) -> str:
        """The job's name."""
        return self.job.name

    def _jobs(self) -> list[Job]:
        """Return the jobs of the process."""
        return [self.job]

    def launch(self, server: WarmServer | FreshServer, slots: Slots, loader_workers: int) -> None:
        """Start the processes of the job."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            self.log_start = self.log.stat().st_size
        context = {
            "threads": slots.threads,
            "world_size": len(self.gpus),
            "init_method": "",
            "device": "cuda:0" if slots.cuda else "cpu",
            "loader_workers": loader_workers,
            "deterministic": slots.deterministic,
            "gpus": len(self.gpus) if slots.cuda else 0,
        }
        jobs = [job.as_json() for job in self._jobs()]
        if len(self.gpus) > 1 or len(jobs) > 1:
            self.folder = tempfile.mkdtemp(prefix="luigi_prune_")
        if len(self.gpus) > 1:
            context["init_method"] = f"file://{self.folder}/ranks"
        if len(jobs) > 1:
            write_jobs(self.folder, jobs)
        for rank, gpu in enumerate(self.gpus):
            start = ChildStart(
                jobs=jobs if len(jobs) == 1 else [],
                context={**context, "rank": rank},
                environment=slots.environment(gpu),
                log=str(self.log),
                folder=self.folder,
                driver_pid=os.getpid(),
                name=self.name,
            )
            self.children.append(server.launch(start))

    def sources(self) -> Iterator[tuple[int | Connection, Callable[[], None]]]:
        """Yield the pipes to wait for, each with the function to call when it is readable."""
        for rank, child in enumerate(self.children):
            if not child.ended:
                yield child.status_fd, partial(self._read_status, rank)
                if not child.messages_ended:
                    yield child.messages, partial(self._read_messages, rank)

    def _read_status(self, rank: int) -> None:
        child = self.children[rank]
        if child.ended:
            return
        child.read_status()
        if child.ended:
            self._read_messages(rank)
            if rank not in self.outcomes:
                # a crashed rank makes the others fail, and their messages may arrive first
                crashed = (child.exit_code or 0) < 0 and child.exit_code not in self.expected_exits
                self._fail(rank, Outcome("failed", self._crash_message(child)), first=crashed)

    def _crash_message(self, child: Child) -> str:
        message = _cause(child)
        if end := last_lines(self.log, self.log_start):
            message += f"\nlast lines of {self.log}:\n{end}"
        return message

    def _read_messages(self, rank: int) -> None:
        child = self.children[rank]
        try:
            while not child.messages_ended and child.messages.poll(0):
                self._handle(rank, json.loads(child.messages.recv_bytes()))
        except (EOFError, OSError, ValueError):  # it has ended, possibly in the middle of a message
            child.messages_ended = True

    def _handle(self, rank: int, message: dict) -> None:
        if "started" in message and not self.started:
            self.started = True
            self.listener.started()
        elif "progress" in message:
            self.listener.progressed(*message["progress"])
        elif "outcome" in message:
            outcome = self.outcomes[rank] = Outcome(**message["outcome"])
            if outcome.status != "done":
                self._fail(rank, outcome)
            elif len(self.outcomes) == len(self.children):
                self._end_within_grace()

    def _fail(self, rank: int, outcome: Outcome, first: bool = False) -> None:
        self.failures.insert(0 if first else len(self.failures), (rank, outcome))
        self.terminate()

    def cancel(self, jobs: Collection[Job] | None = None) -> None:
        """Stop the job at the user's request, if it is one of `jobs` (None: all)."""
        if jobs is None or self.job in jobs:
            self.cancelled = True
            self.terminate()

    def terminate(self) -> None:
        """Send SIGTERM to every process, once, to save and stop; drop those not forked yet."""
        if self.kill_at is None:
            self.expected_exits.add(-signal.SIGTERM)
            for child in self.children:
                if child.pid is None:
                    child.close()
                else:
                    child.terminate()
        self._end_within_grace()

    def _end_within_grace(self) -> None:
        if self.kill_at is None:
            self.kill_at = time.monotonic() + self.grace_seconds

    @property
    def deadline(self) -> float | None:
        """The `time.monotonic()` at which `kill_if_late` has something to do; None if there is none."""
        return self.kill_at

    def kill_if_late(self, now: float) -> None:
        """Kill the remaining processes if the grace period has ended."""
        if self.kill_at is not None and now >= self.kill_at:
            self.kill_at = float("inf")
            self.expected_exits.add(-signal.SIGKILL)
            for child in self.children:
                child.kill()

    @property
    def over(self) -> bool:
        """Whether every process has ended."""
        return all(child.ended for child in self.children)

    def finish(self) -> None:
        """Release pipes and files, and report the job's outcome."""
        self.release()
        self._report_end()

    def give_up(self, outcome: Outcome) -> None:
        """Kill the processes and report `outcome`."""
        for child in self.children:
            child.kill()
        self.release()
        self.listener.ended(outcome)

    def release(self) -> None:
        """Release pipes and files."""
        for child in self.children:
            child.close()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _report_end(self) -> None:
        self.listener.ended(replace(self._overall_outcome(), log=str(self.log)))

    def _overall_outcome(self) -> Outcome:
        done = [outcome for outcome in self.outcomes.values() if outcome.status == "done"]
        if self.children and len(done) == len(self.children):
            return self.outcomes[0]
        if self.cancelled:
            return Outcome("failed", "cancelled", retry=False)
        rank, outcome = self.failures[0]
        if len(self.gpus) == 1:
            return outcome
        return replace(outcome, message=f"process {rank} of {len(self.gpus)}: {outcome.message}")


def _cause(child: Child) -> str:
    """Return a message that explains why a process ended without an outcome."""
    if child.exit_code is None:
        return "the fork server ended, and the job with it"
    if child.exit_code >= 0:
        return f"ended with exit code {child.exit_code} before the job function returned"
    number = -child.exit_code
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = "unknown"
    if number == signal.SIGKILL:
        name += "; possibly out of memory: run fewer jobs at once or use smaller batches"
    return f"killed by signal {number} ({name})"
