"""Writes what a driver does to its results folders: the tasks of its experiments, and news of its jobs.

The web page reads them, so that it shows runs of every driver, whether they use its scheduler or not.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable

from luigi_prune.execution.job import Backend
from luigi_prune.results.run_records import (
    NEWS_SECONDS,
    DriverNews,
    TaskNews,
    news_path,
    remove_old_records,
    take_retries,
    write_record,
)
from luigi_prune.workflow.job_task import JobTask
from luigi_prune.workflow.progress_display import Board
from luigi_prune.workflow.recorded_graph import command_of, write_experiments
from luigi_prune.workflow.tasks import RunExperiment

log = logging.getLogger(__name__)
_EVERY = 2.0  # seconds between two looks at what has changed
_MAX_MESSAGE = 20_000  # characters of a failure
_RECORD_SECONDS = 60.0  # a run that ends earlier waits this long for its record to be written


class NewsBoard(Board):
    """A board that also keeps a file of news in every results folder of the run."""

    def __init__(self, backend: Backend):
        super().__init__(backend)
        self._news = DriverNews(
            host=socket.gethostname(),
            pid=os.getpid(),
            backend=backend.name,
            slots=backend.slots,
            command="",
            started=time.time(),
        )
        self._failed_tasks: dict[str, JobTask] = {}  # by key
        self._folders: list[str] = []
        self._retry: Callable[[JobTask], None] = lambda task: None
        self._changed = True
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def follow(self, experiments: list[RunExperiment], retry: Callable[[JobTask], None]) -> None:
        """Start to write news of these experiments; `retry` runs a failed task again, from a thread."""
        reports = [report for experiment in experiments for report in experiment.reports]
        if not reports:
            return
        self._retry = retry
        self._folders = list(dict.fromkeys(report.results for report in reports))
        self._news.command = "\n".join(dict.fromkeys(map(command_of, experiments)))
        self._news.reports = tuple(report.key for report in reports)
        for folder in self._folders:
            remove_old_records(folder)
        threads = (lambda: write_experiments(experiments), self._write_periodically)
        self._threads = [threading.Thread(target=target, name="run news", daemon=True) for target in threads]
        for thread in self._threads:
            thread.start()

    def unfollow(self) -> None:
        """Write the last news and stop."""
        self._stop.set()
        for thread in self._threads:
            thread.join(_RECORD_SECONDS)
        with self._lock:
            self._news.ended = time.time()
            self._news.running, self._news.queue = {}, {}
        self._write()
        self._threads = []

    def submitted(self, task: JobTask) -> None:
        """Count a task whose job was submitted to the backend."""
        super().submitted(task)
        with self._lock:
            self._forget(task)
            self._news.queue[task.key] = TaskNews(since=time.time())

    def started(self, task: JobTask) -> None:
        """Count a task whose job has started."""
        super().started(task)
        with self._lock:
            self._forget(task)
            self._news.running[task.key] = TaskNews(since=time.time())

    def progressed(self, task: JobTask, fraction: float, message: str) -> str:
        """Record a job's progress or reason for waiting; return the message with the estimated time left."""
        text = super().progressed(task, fraction, message)
        with self._lock:
            news = self._news.running.get(task.key) or self._news.queue.get(task.key)
            if news:
                news.fraction, news.message, self._changed = fraction, message, True
                running = self._running.get(task.task_id)
                news.left = running.seconds_left(time.monotonic()) if running else None
        return text

    def ended(self, task: JobTask, success: bool, message: str, seconds: float) -> None:
        """Count a task that has ended."""
        super().ended(task, success, message, seconds)
        with self._lock:
            self._forget(task)
            if not success:
                self._news.failed[task.key] = TaskNews(message=message[-_MAX_MESSAGE:], since=time.time())
                self._failed_tasks[task.key] = task

    def computed_elsewhere(self, task: JobTask, message: str) -> None:
        """Count a task that another run computes."""
        super().computed_elsewhere(task, message)
        with self._lock:
            self._forget(task)

    def done_elsewhere(self, task: JobTask) -> None:
        """Count a task as done that another run has computed."""
        super().done_elsewhere(task)
        with self._lock:
            self._forget(task)

    def stopped(self, task: JobTask) -> None:
        """Count a job as not running any more."""
        super().stopped(task)
        with self._lock:
            self._forget(task)

    def _forget(self, task: JobTask) -> None:
        self._changed = True
        for states in (self._news.queue, self._news.running, self._news.failed):
            states.pop(task.key, None)
        self._failed_tasks.pop(task.key, None)

    def _write_periodically(self) -> None:
        written = float("-inf")
        while not self._stop.is_set():
            for folder in self._folders:
                for key in take_retries(folder, set(self._failed_tasks)):
                    self._run_again(self._failed_tasks[key])
            if self._changed or time.monotonic() - written >= NEWS_SECONDS:
                self._write()
                written = time.monotonic()
            self._stop.wait(_EVERY)

    def _run_again(self, task: JobTask) -> None:
        try:
            self._retry(task)
        except Exception:  # a request from the page must not end the run
            log.exception("%s could not be run again", task.title)

    def _write(self) -> None:
        with self._lock:
            self._changed = False
            self._news.to_do, self._news.done = len(self._todo), len(self._done)
            estimate = self._estimate() if self._news.ended is None else None
            self._news.estimate = estimate[1] if estimate else None
            news = self._news.model_copy(deep=True)
        for folder in self._folders:
            try:
                write_record(news_path(folder, news), news)
            except OSError as error:  # the page shows less; the run goes on
                log.info("no news in %s: %s", folder, error)
