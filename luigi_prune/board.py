"""What a run says on the terminal: tasks done, running and remaining, an estimate, failures, where the report is."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from luigi.scheduler import DONE
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from luigi_prune.backends.job import Backend

if TYPE_CHECKING:
    from luigi_prune.job_task import JobTask
    from luigi_prune.tasks import Report

_LINE_EVERY = 10.0  # seconds between lines where the output is no terminal
_SHOWN = 8  # running tasks that are listed


class Board:
    """Counts tasks and draws them; its methods may be called from any thread."""

    def __init__(self, backend: Backend):
        self.backend = backend
        self.console = Console(highlight=False)
        self._lock = threading.RLock()
        self._live: Live | None = None
        self._todo: dict[str, str] = {}  # task id -> family, of tasks that were not complete when they were scheduled
        self._running: dict[str, tuple[str, str]] = {}  # task id -> title, progress
        self._done: set[str] = set()
        self._failed: dict[str, str] = {}  # task id -> title and reason
        self._seconds: dict[str, list[float]] = {}
        self._began = self._last_line = time.monotonic()

    def scheduled(self, task: JobTask, status: str) -> None:
        """Hear of a task that Luigi's scheduler is told of."""
        with self._lock:
            if status != DONE:
                self._todo[task.task_id] = task.task_family
                self._done.discard(task.task_id)

    def started(self, task: JobTask) -> None:
        """Hear that a job runs."""
        with self._lock:
            self._running[task.task_id] = (task.title, "")
        self._draw()

    def progressed(self, task: JobTask, fraction: float, message: str) -> None:
        """Hear how far a job is."""
        with self._lock:
            if task.task_id in self._running:
                self._running[task.task_id] = (task.title, f"{fraction:4.0%}  {message}")
        self._draw()

    def ended(self, task: JobTask, success: bool, message: str, seconds: float) -> None:
        """Hear that a task is over."""
        with self._lock:
            self._running.pop(task.task_id, None)
            if success:
                self._done.add(task.task_id)
                self._failed.pop(task.task_id, None)
                self._seconds.setdefault(task.task_family, []).append(seconds)
            else:
                self._failed[task.task_id] = task.title
                self.note(f"[failed] {task.title}\n{message}")
        self._draw()

    def note(self, text: str) -> None:
        """Print a line that stays; where nobody reads any more (a closed pipe), the run goes on without it."""
        with contextlib.suppress(OSError, ValueError):
            self.console.print(Text(text), soft_wrap=True)

    def open(self) -> None:
        """Begin to draw."""
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
        if self._live:
            self._live.stop()
            self._live = None

    def summary(self, reports: list[Report]) -> None:
        """Say what came of the run, and where to look."""
        minutes, seconds = divmod(round(time.monotonic() - self._began), 60)
        failed = f", {len(self._failed)} failed" if self._failed else ""
        if self._todo:
            self.note(f"{len(self._done)} of {len(self._todo)} tasks done{failed} in {minutes} min {seconds} s")
        else:
            self.note("Nothing to compute: every result is there.")
        for title in self._failed.values():
            self.note(f"  failed: {title}")
        for report in reports:
            if report.complete():
                self.note(f"Report: {_short(report.path)}")
        if any(report.complete() for report in reports):
            self.note(f"Curves: tensorboard --logdir {_short(Path(reports[0].results))}")

    def line(self) -> str:
        """Return the state of the run in one line."""
        with self._lock:
            left = len(self._todo) - len(self._done) - len(self._failed) - len(self._running)
            text = f"{len(self._done)}/{len(self._todo)} tasks done, {len(self._running)} running, {left} remain"
            if self._failed:
                text += f", {len(self._failed)} failed"
            estimate = self._estimate()
        return text + (f", about {_duration(estimate)} left" if estimate is not None else "")

    def _estimate(self) -> float | None:
        known = [seconds for family in self._seconds.values() for seconds in family]
        if not known:
            return None
        over = self._done | set(self._failed)
        open_families = Counter(family for task_id, family in self._todo.items() if task_id not in over)
        total = 0.0
        for family, count in open_families.items():
            seconds = self._seconds.get(family) or known
            total += count * sum(seconds) / len(seconds)
        return total / self.backend.slots

    def _render(self) -> Group:
        lines = [Text(self.line(), style="bold")]
        with self._lock:
            running = list(self._running.values())
        lines += [
            Text(f"  {title}  {progress}", no_wrap=True, overflow="ellipsis") for title, progress in running[:_SHOWN]
        ]
        return Group(*lines)

    def _draw(self) -> None:
        """Print a line now and then where the output is no terminal; there, a thread redraws."""
        if self.console.is_terminal or time.monotonic() - self._last_line < _LINE_EVERY:
            return
        self._last_line = time.monotonic()
        self.note(self.line())


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _short(path: Path) -> Path:
    """Return `path` relative to the working directory where it lies below it."""
    resolved = path.resolve()
    return resolved.relative_to(Path.cwd()) if resolved.is_relative_to(Path.cwd()) else resolved
