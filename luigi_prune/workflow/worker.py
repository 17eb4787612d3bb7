"""Luigi's worker with jobs of a backend in place of processes, and a display of progress.

`luigi_integration.py` installs it, so that the stock `luigi` command submits every JobTask to a backend. It uses
private names of luigi 3.8's worker; `tests/workflow/test_worker.py` checks them.
"""

from __future__ import annotations

import queue
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import luigi
import luigi.interface
import luigi.rpc
import luigi.scheduler
import luigi.worker
from luigi.event import Event
from luigi.scheduler import DISABLED, DONE, FAILED, PENDING, RUNNING

from luigi_prune.errors import DamagedResult, LuigiPruneError
from luigi_prune.execution.job import Backend, Job, Outcome
from luigi_prune.results.hdf5_file import set_aside, verify
from luigi_prune.workflow.job_task import JobTask
from luigi_prune.workflow.run_news import NewsBoard
from luigi_prune.workflow.scheduler_status import Statuses, serves_pages
from luigi_prune.workflow.settings import check_writable, exit_with_error
from luigi_prune.workflow.tasks import RunExperiment

EXIT_INTERRUPTED = 130
_REPAIRS = 20  # maximum number of repairs of inputs per task
_REPAIR_DELAY = 2.0  # seconds before a repeated request, as the scheduler may not have updated yet


class JobProcess:
    """Has the interface of Luigi's task process; submits the job to a backend and reports its outcome."""

    use_multiprocessing = False
    exitcode = 0
    timeout_time = None
    worker_timeout = None

    def __init__(self, task: JobTask, worker: PruneWorker):
        self.task = task
        self.worker = worker
        self.status_reporter = None
        self._began = time.perf_counter()
        self._ended = False

    def run(self) -> None:
        """Submit the job, unless its result exists by now or an input is missing."""
        self.task.trigger_event(Event.START, self.task)
        if self.task.complete():
            self._finish(DONE, "")
        elif missing := [task for task in self.task.requires().values() if not task.complete()]:
            self._repair(missing, f"waits for {missing[0].path}")
        else:
            self.worker.board.submitted(self.task)
            self.worker.backend.submit(self._job(), self)

    def is_alive(self) -> bool:
        """Return whether the job is still waiting or running."""
        return not self._ended

    def terminate(self) -> None:
        """Stop the job."""
        self.worker.backend.cancel(self._job())

    def _job(self) -> Job:
        return self.task.job(self.worker.backend.name)

    def started(self) -> None:
        """Record that the job has left the queue of its backend."""
        self.worker.board.started(self.task)

    def requeued(self) -> None:
        """Record that the job is back in the queue of its backend."""
        self.worker.board.submitted(self.task)

    def progressed(self, fraction: float, message: str) -> None:
        """Show a job's progress on the terminal and on Luigi's web page."""
        text = self.worker.board.progressed(self.task, fraction, message)
        self.worker.statuses.update(self.task.task_id, fraction, text)

    def ended(self, outcome: Outcome) -> None:
        """Translate the job's outcome to Luigi's result; an exception here fails the task."""
        try:
            self._handle_outcome(outcome)
        except Exception:
            self._finish(FAILED, traceback.format_exc(), outcome)

    def _handle_outcome(self, outcome: Outcome) -> None:
        if outcome.status == "damaged":
            inputs = [task for task in self.task.requires().values() if str(task.path) == outcome.damaged]
            if inputs:
                self._set_aside(inputs[0])
                self._repair(inputs, outcome.message)
                return
        if outcome.status == "done" and self.task.complete():
            self._finish(DONE, "", outcome)
            return
        message = outcome.message or f"the job ended without writing {self.task.path}"
        if outcome.log:
            message += f"\nlog: {outcome.log}"
        self.task.retry_count = None if outcome.retry else 1
        self._finish(FAILED, message, outcome)

    def _set_aside(self, task: JobTask) -> None:
        try:
            verify(task.path)
        except FileNotFoundError:
            pass
        except DamagedResult as damage:
            self.worker.board.note(f"{damage}; set aside as {set_aside(task.path).name}, computed again")

    def _repair(self, inputs: list[JobTask], message: str) -> None:
        """Make Luigi run the tasks of the inputs (again), then this task."""
        count = self.worker.repairs[self.task.task_id] = self.worker.repairs.get(self.task.task_id, 0) + 1
        if count > _REPAIRS:
            self.task.retry_count = 1
            self._finish(FAILED, f"an input was lost {count} times: {message}")
            return
        needs = [(task.task_module, task.task_family, task.to_str_params()) for task in inputs]
        result: tuple[Any, ...] = (self.task.task_id, PENDING, "", [], needs)
        self._ended = True
        if count == 1:
            self.worker.deliver(result)
        else:
            threading.Timer(_REPAIR_DELAY, self.worker.deliver, [result]).start()

    def _finish(self, status: str, message: str, outcome: Outcome | None = None) -> None:
        self._ended = True
        seconds = time.perf_counter() - self._began
        self.task.trigger_event(Event.PROCESSING_TIME, self.task, seconds)
        if status == DONE:
            self.task.trigger_event(Event.SUCCESS, self.task)
        else:
            self.task.trigger_event(Event.FAILURE, self.task, LuigiPruneError(message))
        self.worker.board.ended(self.task, status == DONE, message, outcome.seconds if outcome else 0.0)
        self.worker.deliver((self.task.task_id, status, message, [], []))


class ResultQueue(queue.Queue[Any]):
    """The worker's queue of results: within one process, so that it wakes the worker at once."""

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


class PruneWorker(luigi.worker.Worker):
    """Luigi's worker with jobs instead of processes."""

    def __init__(self, *, scheduler: Any, worker_processes: int, assistant: bool, backend: Backend):
        super().__init__(scheduler=scheduler, worker_processes=worker_processes, assistant=assistant)
        self.backend = backend
        self.board = NewsBoard(backend)
        self.repairs: dict[str, int] = {}
        remote = isinstance(scheduler, luigi.rpc.RemoteScheduler)
        self.limits = {limit["name"] for limit in scheduler.resource_list()}  # Luigi limits an unknown resource to 1
        self._has_pages = serves_pages(scheduler)
        self.statuses = Statuses(scheduler, interval=2.0 if remote else 0.2)
        self._task_result_queue = ResultQueue()
        self._get_work_response_history = AnswersOfOthers(self._id)
        self._experiments: list[RunExperiment] = []

    def add(self, task: luigi.Task, *args: Any, **kwargs: Any) -> bool:
        """Schedule a task and its dependencies."""
        if isinstance(task, RunExperiment):
            task.reload_config()
            self._experiments.append(task)
        return super().add(task, *args, **kwargs)

    def run(self) -> bool:
        """Run all scheduled tasks, then print the paths of the reports."""
        missing = [report for root in self._experiments for report in root.reports if not report.complete()]
        for folder in dict.fromkeys(report.results for report in missing):
            check_writable(Path(folder))
        self._prepare_backend()
        self._enable_failed_tasks()
        self.board.follow(self._experiments, self._run_again)
        self.board.open()
        try:
            return super().run()
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

    def __exit__(self, *exception: Any) -> bool:
        """Stop running jobs and the reports of progress."""
        try:
            return super().__exit__(*exception)
        finally:
            self.statuses.close()
            self.backend.close()

    def _create_task_process(self, task: luigi.Task) -> Any:
        if isinstance(task, JobTask):
            return JobProcess(task, self)
        process = super()._create_task_process(task)
        process.use_multiprocessing = False  # a wrapper task does no work, and forking a process with threads is unsafe
        return process

    def _add_task(self, *args: Any, **kwargs: Any) -> None:
        task = self._scheduled_tasks.get(kwargs["task_id"])
        if isinstance(task, JobTask):
            needs = self.backend.resources(task.task_family)
            kwargs["resources"] = {name: count for name, count in needs.items() if count and name in self.limits}
            kwargs["params"] = task.shown_first(kwargs["params"])
            kwargs["tracking_url"] = self.page_of(task)
            self.board.scheduled(task, kwargs["status"])
            if kwargs["status"] == FAILED and task.retry_count == 1:
                # the scheduler counts a failure by its previous retry policy: send the new one first
                super()._add_task(*args, **kwargs | {"status": RUNNING, "expl": None})
        super()._add_task(*args, **kwargs)

    def _count_tasks_of_other_drivers(self) -> None:
        """Count tasks finished by another driver as done; else Luigi's return code would be "already running"."""
        if not all(experiment.complete() for experiment in self._experiments):
            return
        last = {task.task_id: status for task, status, _ in self._add_task_history}
        unfinished = [self._scheduled_tasks[task_id] for task_id, status in last.items() if status != DONE]
        self._add_task_history += [(task, DONE, True) for task in unfinished if task.complete()]
        self._get_work_response_history.clear()

    def page_of(self, task: JobTask) -> str | None:
        """Return the address of a task's page, which the port of luigid precedes; None if there is none."""
        return f"/experiments/t/{task.key[:12]}" if self._has_pages else None

    def _run_again(self, task: JobTask) -> None:
        """Run a task again that has failed for good, as a user of the web page asks."""
        task.retry_count = None
        self._scheduler.re_enable_task(task.task_id)
        self._scheduler.forgive_failures(task.task_id)

    def _enable_failed_tasks(self) -> None:
        """Enable tasks that the scheduler disabled after failures in an earlier run."""
        if not isinstance(self._scheduler, luigi.rpc.RemoteScheduler):
            return
        for status in (DISABLED, FAILED):  # luigid lists them as the former, ours as the latter
            for task_id in self._scheduler.task_list(status, ""):
                if task := self._scheduled_tasks.get(task_id):
                    self._scheduler.re_enable_task(task_id)
                    self.add(task)
