"""Progress of a run on the terminal: tasks done, running, queued and remaining, estimates, failures, paths of reports.

A task that is submitted but not started is in the queue. Such tasks are counted by their reason for waiting: the words
in the first brackets of the backend's message.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections import Counter
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from luigi.scheduler import PENDING
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from luigi_prune.execution.job import Backend
from luigi_prune.workflow.estimates import Running, seconds_left, shown_range
from luigi_prune.workflow.failure_notes import FailureNotes, listed
from luigi_prune.workflow.job_task import family_counts

if TYPE_CHECKING:
    from luigi_prune.workflow.job_task import JobTask
    from luigi_prune.workflow.tasks import Report

_LINE_EVERY = 10.0  # seconds between lines if the output is no terminal
_FIRST_SHARE = 20  # an estimate needs one in so many tasks done, or as many as run at once
_SHOWN = 8  # maximum number of tasks listed, running ones first


class LastingConsole(Console):
    """Standard output, without which a run continues: if a pipe closes (`| head`), the rest is discarded."""

    def on_broken_pipe(self) -> None:
        """Write to /dev/null from now on; rich would end the process."""
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), self.file.fileno())


class Board:
    """Counts tasks and draws their progress; its methods may be called from any thread."""

    def __init__(self, backend: Backend):
        self.backend = backend
        self.console = LastingConsole(highlight=False)
        self._lock = threading.RLock()
        self._failures = FailureNotes(self.note)
        self._live: Live | None = None
        self._todo: dict[str, str] = {}  # task id -> family, of tasks incomplete when they were scheduled
        self._queue: dict[str, tuple[str, str]] = {}  # task id -> title, the backend's message
        self._running: dict[str, Running] = {}
        self._elsewhere: dict[str, str] = {}  # task id -> title, of tasks that another run computes
        self._done_elsewhere: set[str] = set()  # of `_done`, those that another run has computed
        self._done: set[str] = set()
        self._failed: dict[str, str] = {}  # task id -> title
        self._seconds: dict[str, list[float]] = {}
        self._began = self._last_line = time.monotonic()
        self._first_submission: float | None = None

    @property
    def done_count(self) -> int:
        """The number of tasks that are done."""
        return len(self._done)

    def scheduled(self, task: JobTask, status: str) -> None:
        """Count a task that is added to Luigi's scheduler."""
        with self._lock:
            if status == PENDING and task.task_id not in self._running | self._queue | self._elsewhere:
                self._todo[task.task_id] = task.task_family
                self._done.discard(task.task_id)
                self._done_elsewhere.discard(task.task_id)

    def idle_tasks(self) -> list[str]:
        """Return the ids of the tasks that nobody computes, as far as this run has been told."""
        with self._lock:
            busy = self._done | self._failed.keys() | self._queue.keys() | self._running.keys() | self._elsewhere.keys()
            return [task_id for task_id in self._todo if task_id not in busy]

    def computed_elsewhere(self, task: JobTask, message: str) -> None:
        """Count a task that another run computes."""
        with self._lock:
            self._running.pop(task.task_id, None)
            self._queue.pop(task.task_id, None)
            self._elsewhere[task.task_id] = f"{task.title}  {message}"
        self._draw()

    def done_elsewhere(self, task: JobTask) -> None:
        """Count a task as done that another run has computed."""
        with self._lock:
            self._elsewhere.pop(task.task_id, None)
            if task.task_id not in self._done:
                self._done.add(task.task_id)
                self._done_elsewhere.add(task.task_id)
        self._draw()

    def stopped(self, task: JobTask) -> None:
        """Count a job as not running any more."""
        with self._lock:
            self._running.pop(task.task_id, None)
            self._queue.pop(task.task_id, None)

    def failed_attempt(self, task: JobTask, message: str) -> None:
        """Print why a job has failed that is tried again."""
        with self._lock:
            self.stopped(task)
            self._failures.add(task.title, message)

    @property
    def todo(self) -> list[str]:
        """The ids of the tasks to do."""
        with self._lock:
            return list(self._todo)

    def submitted(self, task: JobTask) -> None:
        """Count a task whose job was submitted to the backend, or is in its queue again."""
        with self._lock:
            self._running.pop(task.task_id, None)
            self._elsewhere.pop(task.task_id, None)
            self._failed.pop(task.task_id, None)  # a retry
            self._first_submission = self._first_submission or time.monotonic()
            self._queue[task.task_id] = (task.title, "")

    def started(self, task: JobTask) -> None:
        """Count a task whose job has started."""
        with self._lock:
            self._queue.pop(task.task_id, None)
            self._running[task.task_id] = Running(task.title)
        self._draw()

    def progressed(self, task: JobTask, fraction: float, message: str) -> str:
        """Record a job's progress or reason for waiting; return the message with the estimated time left."""
        with self._lock:
            if task.task_id in self._running:
                now = time.monotonic()
                self._running[task.task_id].update(fraction, message, now)
                message = self._running[task.task_id].status(now)
            elif task.task_id in self._queue:
                self._queue[task.task_id] = (task.title, message)
        self._draw()
        return message

    def ended(self, task: JobTask, success: bool, message: str, seconds: float) -> None:
        """Count a task that has ended."""
        with self._lock:
            self._running.pop(task.task_id, None)
            self._queue.pop(task.task_id, None)
            self._elsewhere.pop(task.task_id, None)
            if success:
                self._done.add(task.task_id)
                self._failed.pop(task.task_id, None)
                self._seconds.setdefault(task.task_family, []).append(seconds)
            else:
                self._failed[task.task_id] = task.title
                self._failures.add(task.title, message)
        self._draw()

    def note(self, text: str) -> None:
        """Print a permanent line; if the output is closed (a broken pipe), the run continues without it."""
        with contextlib.suppress(OSError, ValueError):
            self.console.print(Text(text), soft_wrap=True)

    def open(self) -> None:
        """Start drawing."""
        if not self._todo:
            return
        families = family_counts(self._todo.values())
        each = f", each with up to {together} trainings" if (together := self.backend.together) > 1 else ""
        at_once = f"{self.backend.slots} at once{each}"
        self.note(f"{len(self._todo)} tasks to do ({families}); backend {self.backend.name}, {at_once}")
        if self.console.is_terminal:
            self._live = Live(get_renderable=self._render, console=self.console, refresh_per_second=4, transient=True)
            self._live.start()

    def close(self) -> None:
        """Stop drawing."""
        self._failures.flush()
        if self._live:
            with contextlib.suppress(OSError, ValueError):  # a terminal that is gone
                self._live.stop()
            self._live = None

    def summary(self, reports: list[Report]) -> None:
        """Print the outcome of the run and the paths of its reports."""
        minutes, seconds = divmod(round(time.monotonic() - self._began), 60)
        failed = f", {len(self._failed)} failed" if self._failed else ""
        if self._todo:
            done = f"{len(self._done)} of {len(self._todo)} tasks done{self._shared()}"
            self.note(f"{done}{failed} in {minutes} min {seconds} s")
        else:
            self.note("Nothing to compute: all results exist.")
        for line in listed(list(self._failed.values())):
            self.note(line)
        for report in reports:
            if report.complete():
                self.note(f"Report: {_short(report.path)}")
        if finished := next((report for report in reports if report.complete()), None):
            # Not the folder of all results: TensorBoard selects no run if there are more than forty.
            folder = _short(Path(finished.path).parent / "tensorboard")
            self.note(f"Curves: tensorboard --logdir {quote(str(folder))}")

    def line(self) -> str:
        """Return the state of the run in one line."""
        with self._lock:
            busy = len(self._running) + len(self._queue) + len(self._elsewhere)
            left = len(self._todo) - len(self._done) - len(self._failed) - busy
            text = f"{len(self._done)}/{len(self._todo)} tasks done{self._shared()}, {len(self._running)} running, "
            text += f"{len(self._elsewhere)} running in another run, " if self._elsewhere else ""
            text += f"{self._queued()}{left} remain"
            if self._failed:
                text += f", {len(self._failed)} failed"
            estimate = self._estimate()
        return text + (f", {shown_range(*estimate)} left" if estimate is not None else "")

    def _shared(self) -> str:
        """Return how many of the tasks that are done were computed here, if another run has computed some."""
        elsewhere = len(self._done_elsewhere)
        return f" ({len(self._done) - elsewhere} here, {elsewhere} by another run)" if elsewhere else ""

    def _queued(self) -> str:
        """Return the number of tasks in the backend's queue, by reason, most frequent first."""
        if not self._queue:
            return ""
        reasons = Counter(_reason(message) for _, message in self._queue.values())
        known = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common() if reason)
        return f"{len(self._queue)} in the queue{f' ({known})' if known else ''}, "

    def _estimate(self) -> tuple[float, float] | None:
        """Return the least and the most seconds until all tasks are done; None while that would mean little."""
        if self._first_submission is None or (self._queue and not self._running):
            return None  # unknown when the queue moves
        over = self._done | self._failed.keys()
        to_do = Counter(family for task_id, family in self._todo.items() if task_id not in over)
        # if tasks queue despite free slots, the site's capacity is the number that run now
        # trainings that share a job share its seconds, so a job counts once
        at_once = min(self.backend.slots, len(self._running) if self._queue else to_do.total())
        at_once = max(1, at_once + len(self._elsewhere))
        here = len(self._done) - len(self._done_elsewhere)
        if here < min(at_once, len(self._todo) // _FIRST_SHARE):
            return None
        done = Counter(self._todo[task_id] for task_id in self._done if task_id in self._todo)
        running = [(self._todo.get(task_id, ""), task) for task_id, task in self._running.items()]
        now = time.monotonic()
        return seconds_left(to_do, done, running, self._seconds, at_once, now - self._first_submission, now)

    def _render(self) -> Group:
        now = time.monotonic()
        with self._lock:
            lines = [task.line(now) for task in list(self._running.values())[:_SHOWN]]
            waiting = [f"{title}  {message}" for title, message in self._queue.values() if message]
            waiting += self._elsewhere.values()
        lines += waiting[: _SHOWN - len(lines)]
        texts = [Text(f"  {line}", no_wrap=True, overflow="ellipsis") for line in lines]
        return Group(Text(self.line(), style="bold"), *texts)

    def _draw(self) -> None:
        """Print a line every few seconds if the output is no terminal; on a terminal, a thread redraws."""
        if self.console.is_terminal or time.monotonic() - self._last_line < _LINE_EVERY:
            return
        self._last_line = time.monotonic()
        self.note(self.line())


def _reason(message: str) -> str:
    """Return why a job waits: the words in the first brackets of a message, up to a comma; "" if there is none."""
    match = re.search(r"\(([^,()]+)", message)
    return "" if match is None or match[1] == "None" else match[1].strip()


def _short(path: Path) -> Path:
    """Return `path` relative to the working directory if it is below it."""
    resolved = path.resolve()
    return resolved.relative_to(Path.cwd()) if resolved.is_relative_to(Path.cwd()) else resolved
