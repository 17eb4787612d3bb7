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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from luigi.scheduler import DONE
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from luigi_prune.execution.job import Backend
from luigi_prune.workflow.failure_notes import FailureNotes, listed

if TYPE_CHECKING:
    from luigi_prune.workflow.job_task import JobTask
    from luigi_prune.workflow.tasks import Report

_LINE_EVERY = 10.0  # seconds between lines if the output is no terminal
_SHOWN = 8  # maximum number of tasks listed, running ones first


@dataclass
class Running:
    """Progress of a running task, and the time and fraction from which its pace is measured."""

    title: str
    fraction: float = 0.0
    message: str = ""
    updated: float = 0.0  # time of the last change of `fraction`
    first_fraction: float = 0.0
    first: float | None = None  # time of the first progress reported since the start or a resume

    def update(self, fraction: float, message: str, now: float) -> None:
        """Record the progress; `now` in seconds of any clock."""
        if fraction < self.fraction:  # requeued: the pace is measured anew
            self.first = None
        if fraction > 0 and self.first is None:
            self.first, self.first_fraction = now, fraction
        if fraction != self.fraction:
            self.updated = now
        self.fraction, self.message = fraction, message

    def seconds_left(self, now: float) -> float | None:
        """Return the seconds left at the pace so far; None before two reports of progress.

        The pace excludes the start of the process and progress before a resume.
        """
        if self.first is None or self.fraction <= self.first_fraction:
            return None
        pace = (self.fraction - self.first_fraction) / (self.updated - self.first) if self.updated > self.first else 0.0
        return max(0.0, (1 - self.fraction) / pace - (now - self.updated)) if pace else None

    def status(self, now: float) -> str:
        """Return the last message, with the estimated time left."""
        left = self.seconds_left(now)
        return self.message + (f", about {_duration(left)} left" if left is not None else "")

    def line(self, now: float) -> str:
        """Return the task in one line."""
        return f"{self.title}  {self.fraction:4.0%}  {self.status(now)}" if self.message else self.title


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
        self._done: set[str] = set()
        self._failed: dict[str, str] = {}  # task id -> title
        self._seconds: dict[str, list[float]] = {}
        self._began = self._last_line = time.monotonic()

    def scheduled(self, task: JobTask, status: str) -> None:
        """Count a task that is added to Luigi's scheduler."""
        with self._lock:
            if status != DONE:
                self._todo[task.task_id] = task.task_family
                self._done.discard(task.task_id)

    @property
    def todo(self) -> list[str]:
        """The ids of the tasks to do."""
        with self._lock:
            return list(self._todo)

    def submitted(self, task: JobTask) -> None:
        """Count a task whose job was submitted to the backend, or is in its queue again."""
        with self._lock:
            self._running.pop(task.task_id, None)
            self._failed.pop(task.task_id, None)  # a retry
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
        counts = Counter(self._todo.values())
        if not counts:
            return
        families = ", ".join(f"{count} {family}" for family, count in counts.items())
        self.note(
            f"{len(self._todo)} tasks to do ({families}); backend {self.backend.name}, {self.backend.slots} at once"
        )
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
            self.note(f"{len(self._done)} of {len(self._todo)} tasks done{failed} in {minutes} min {seconds} s")
        else:
            self.note("Nothing to compute: all results exist.")
        for line in listed(list(self._failed.values())):
            self.note(line)
        for report in reports:
            if report.complete():
                self.note(f"Report: {_short(report.path)}")
        if finished := next((report for report in reports if report.complete()), None):
            # Not the folder of all results: TensorBoard selects no run if there are more than forty.
            self.note(f"Curves: tensorboard --logdir {_short(Path(finished.path).parent / 'tensorboard')}")

    def line(self) -> str:
        """Return the state of the run in one line."""
        with self._lock:
            busy = len(self._running) + len(self._queue)
            left = len(self._todo) - len(self._done) - len(self._failed) - busy
            text = f"{len(self._done)}/{len(self._todo)} tasks done, {len(self._running)} running, "
            text += f"{self._queued()}{left} remain"
            if self._failed:
                text += f", {len(self._failed)} failed"
            estimate = self._estimate()
        return text + (f", about {_duration(estimate)} left" if estimate is not None else "")

    def _queued(self) -> str:
        """Return the number of tasks in the backend's queue, by reason, most frequent first."""
        if not self._queue:
            return ""
        reasons = Counter(_reason(message) for _, message in self._queue.values())
        known = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common() if reason)
        return f"{len(self._queue)} in the queue{f' ({known})' if known else ''}, "

    def _estimate(self) -> float | None:
        """Return the seconds until all tasks are done; None if the pace is unknown."""
        known = [seconds for family in self._seconds.values() for seconds in family]
        if not known or (self._queue and not self._running):
            return None  # unknown when the queue moves
        over = self._done | set(self._failed)
        open_families = Counter(family for task_id, family in self._todo.items() if task_id not in over)
        total = 0.0
        for family, count in open_families.items():
            seconds = self._seconds.get(family) or known
            total += count * sum(seconds) / len(seconds)
        # if tasks queue despite free slots, the site's capacity is the number that run now
        at_once = len(self._running) if self._queue else min(self.backend.slots, len(self._todo.keys() - over) or 1)
        now = time.monotonic()
        longest = max((task.seconds_left(now) or 0.0 for task in self._running.values()), default=0.0)
        return max(longest, total / at_once)

    def _render(self) -> Group:
        now = time.monotonic()
        with self._lock:
            lines = [task.line(now) for task in list(self._running.values())[:_SHOWN]]
            waiting = [f"{title}  {message}" for title, message in self._queue.values() if message]
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


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _short(path: Path) -> Path:
    """Return `path` relative to the working directory if it is below it."""
    resolved = path.resolve()
    return resolved.relative_to(Path.cwd()) if resolved.is_relative_to(Path.cwd()) else resolved
