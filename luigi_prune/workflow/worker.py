"""Luigi's worker with jobs of a backend in place of processes, and a display of progress.

`luigi_integration.py` installs it, so that the stock `luigi` command submits every JobTask to a backend. It uses
private names of luigi 3.8's worker; `tests/workflow/test_worker.py` checks them.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import luigi
import luigi.interface
import luigi.worker

from luigi_prune.errors import LuigiPruneError
from luigi_prune.execution.backends import remote_jobs
from luigi_prune.execution.job import Backend
from luigi_prune.execution.process_claims import ProcessClaims
from luigi_prune.workflow.job_process import JobProcess, WrapperProcess
from luigi_prune.workflow.job_task import JobTask
from luigi_prune.workflow.partial_reports import write_partial_reports
from luigi_prune.workflow.registering_worker import RegisteringWorker
from luigi_prune.workflow.run_news import NewsBoard
from luigi_prune.workflow.scheduler_status import Statuses, serves_pages
from luigi_prune.workflow.settings import check_writable, exit_with_error, retries
from luigi_prune.workflow.tasks import RunExperiment

EXIT_INTERRUPTED = 130
_COUNT_SECONDS = 5.0  # least time between two searches for results of other runs
_COUNT_SHARE = 20  # and how many times longer than a search


class ResultQueue(queue.Queue[Any]):
    """The worker's queue of results: within one process, so that it wakes the worker at once.

    It also has functions for the worker's thread, which are called when their turn comes.
    """

    def __init__(self, before_waiting: Callable[[], None] = lambda: None):
        """`before_waiting` is called by `get` while the queue is empty; it may put something into it."""
        super().__init__()
        self._before_waiting = before_waiting

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Return the next result; raises Empty after `timeout` seconds without one."""
        while True:
            if self.empty():
                self._before_waiting()
            if not callable(item := super().get(block, timeout)):
                return item
            item()

    def has_result(self) -> bool:
        """Return whether the next item is a result that is there already."""
        with self.mutex:
            return bool(self.queue) and not callable(self.queue[0])

    def close(self) -> None:
        """Do nothing; Luigi calls it for its queue between processes."""


class AnswersOfOthers(list[dict[str, Any]]):
    """The worker's history of the scheduler's answers, which Luigi's summary reads for tasks that other workers run.

    It is without all others: at each answer, they would be as many as slots.
    """

    def __init__(self, worker_id: str):
        super().__init__()
        self._worker_id = worker_id

    def append(self, answer: dict[str, Any]) -> None:
        """Keep an answer that names tasks of other workers."""
        others = [task for task in answer["running_tasks"] if task["worker"] != self._worker_id]
        if others and answer["task_id"] is None:
            super().append({"task_id": None, "running_tasks": others})


class PruneWorker(RegisteringWorker):
    """Luigi's worker with jobs instead of processes.

    It retries failed jobs itself, so that the settings of a luigid do not matter, and gives no slot to a task that
    waits for a retry or for another run.
    """

    board: NewsBoard
    _parked: frozenset[str] = frozenset()

    def __init__(self, *, scheduler: Any, worker_processes: int, assistant: bool, backend: Backend):
        super().__init__(scheduler=scheduler, worker_processes=worker_processes, assistant=assistant)
        self.backend = backend
        self.board = NewsBoard(backend)
        self.failed: set[str] = set()
        self.claims = ProcessClaims(remote_jobs)
        self.repairs: dict[str, int] = {}
        self.failures: dict[str, int] = {}  # of jobs, by task id
        self.retries = retries()
        self.limits = {limit["name"] for limit in scheduler.resource_list()}  # Luigi limits an unknown resource to 1
        self._has_pages = serves_pages(scheduler)
        self.statuses = Statuses(scheduler, interval=2.0 if self.has_luigid else 0.2)
        self._task_result_queue = ResultQueue(backend.all_submitted)
        self._get_work_response_history = AnswersOfOthers(self._id)
        self._experiments: list[RunExperiment] = []
        self._end_reason = ""  # why the run ends before all is done
        self._next_count = 0.0
        self.allow_partial = False

    @property
    def worker_processes(self) -> int:
        """The number of tasks at once: slots of the backend, and tasks that need none at the moment."""
        return self._slots + len(self._parked) if self._slots > 0 else self._slots

    @worker_processes.setter
    def worker_processes(self, slots: int) -> None:
        self._slots = slots

    def add(self, task: luigi.Task, *args: Any, **kwargs: Any) -> bool:
        """Schedule a task and its dependencies."""
        if isinstance(task, RunExperiment):
            task.reload_config()
            self._experiments.append(task)
        return super().add(task, *args, **kwargs)

    def run(self) -> bool:
        """Run all scheduled tasks, then print the paths of the reports, partial ones included if luigi.cfg has them."""
        succeeded = self._run_tasks()
        if self.allow_partial:
            write_partial_reports(self._experiments, self.board.note)
        return succeeded

    def _run_tasks(self) -> bool:
        missing = [report for root in self._experiments for report in root.reports if not report.complete()]
        for folder in dict.fromkeys(report.results for report in missing):
            check_writable(Path(folder))
        self._prepare_backend()
        self.board.follow(self._experiments, self._run_again)
        self.board.open()
        try:
            succeeded = super().run()
        except KeyboardInterrupt:
            self.backend.interrupted(self.board.note)
            raise SystemExit(EXIT_INTERRUPTED) from None
        finally:
            self._count_tasks_of_other_drivers()
            self.board.close()
            self.board.summary([report for root in self._experiments for report in root.reports])
            self.board.unfollow()
            if remark := self.backend.remark():
                self.board.note(remark)
        if self._end_reason:
            exit_with_error(self._end_reason)
        if lost := self.lost_tasks():
            self.board.note(f"Incomplete: {len(lost)} tasks were not run: {self.why_incomplete(lost[0])}")
        return succeeded

    @property
    def is_ending(self) -> bool:
        """Whether no more jobs are started."""
        return bool(self._end_reason)

    def end_run(self, reason: str) -> None:
        """Start no more jobs, let running ones end, and then end with the reason as the error."""
        self._end_reason = self._end_reason or reason
        self.call_soon(self._start_phasing_out)

    def _prepare_backend(self) -> None:
        """End the run with one line if the backend cannot take the jobs of the tasks to do."""
        todo = [task for task_id in self.board.todo if isinstance(task := self._scheduled_tasks.get(task_id), JobTask)]
        try:
            if todo:
                self.backend.prepare(task.job(self.backend.name) for task in todo)
        except LuigiPruneError as error:
            exit_with_error(error)

    def deliver(self, result: tuple[Any, ...]) -> None:
        """Put a result into the queue of the worker's loop; callable from any thread."""
        self._task_result_queue.put(result)

    def call_soon(self, function: Callable[[], None]) -> None:
        """Have the worker's thread call a function; callable from any thread."""
        self._task_result_queue.put(function)

    def park(self, task: JobTask) -> None:
        """Free the slot of a task until it is tried again."""
        self._parked |= {task.task_id}

    def unpark(self, task: JobTask) -> None:
        """Give a task a slot again."""
        self._parked -= {task.task_id}

    def __exit__(self, *exception: Any) -> bool:
        """Stop running jobs and the reports of progress."""
        try:
            return super().__exit__(*exception)
        finally:
            self.statuses.close()
            self.backend.close()
            self.claims.close()

    def _create_task_process(self, task: luigi.Task) -> Any:
        if isinstance(task, JobTask):
            return JobProcess(task, self)
        if isinstance(task, RunExperiment):
            return WrapperProcess(task, self)
        process = super()._create_task_process(task)
        process.use_multiprocessing = False  # a wrapper task does no work, and forking a process with threads is unsafe
        return process

    def _get_work(self) -> Any:
        self._count_results_of_other_runs()
        return super()._get_work()

    def _handle_next_task(self) -> None:
        """Handle the next result, and all that are there: they travel to luigid in one message."""
        super()._handle_next_task()
        while self._task_result_queue.has_result():
            super()._handle_next_task()

    def _is_forgotten(self, response: Any) -> bool:
        if response.n_pending_tasks == 0:
            self._count_results_of_other_runs(now=True)
        return super()._is_forgotten(response)

    @property
    def has_busy_slots(self) -> bool:
        """Whether a job takes a slot."""
        return len(self._running_tasks) > len(self._parked)

    def _has_lost_its_run(self, task_id: str) -> bool:
        task = self._scheduled_tasks.get(task_id)
        return isinstance(task, JobTask) and not task.complete() and self.claims.is_void(task.path)

    def _add_task(self, *args: Any, **kwargs: Any) -> None:
        task = self._scheduled_tasks.get(kwargs["task_id"])
        if isinstance(task, JobTask):
            needs = self.backend.resources(task.task_family)
            kwargs["resources"] = {name: count for name, count in needs.items() if count and name in self.limits}
            kwargs["params"] = task.shown_first(kwargs["params"])
            kwargs["tracking_url"] = self.page_of(task)
            self.board.scheduled(task, kwargs["status"])
        super()._add_task(*args, **kwargs)

    def _count_results_of_other_runs(self, now: bool = False) -> None:
        """Count tasks as done that no job of this run has computed; rarely, as each takes a look at its file."""
        if (began := time.monotonic()) < self._next_count and not now:
            return
        for task_id in self.board.idle_tasks():
            task = self._scheduled_tasks[task_id]
            if isinstance(task, JobTask) and task.complete():
                self.board.done_elsewhere(task)
        ended = time.monotonic()
        self._next_count = ended + max(_COUNT_SECONDS, _COUNT_SHARE * (ended - began))

    def _count_tasks_of_other_drivers(self) -> None:
        """Count what other runs have done, for the summary and for Luigi's return code."""
        self._count_results_of_other_runs(now=True)
        if all(experiment.complete() for experiment in self._experiments):
            self._count_as_done()

    def page_of(self, task: JobTask) -> str | None:
        """Return the address of a task's page, which the port of luigid precedes; None if there is none."""
        return f"/experiments/t/{task.key[:12]}" if self._has_pages else None

    def _run_again(self, task: JobTask) -> None:
        """Run a task again that has failed for good, as a user of the web page asks; called from another thread."""

        def run_again() -> None:
            task.retry_count = None
            self.failed.discard(task.task_id)
            self.failures.pop(task.task_id, None)
            self._scheduler.re_enable_task(task.task_id)
            RegisteringWorker.add(self, task)

        self.call_soon(run_again)
