"""One job of the worker: claimed, submitted to a backend, tried again after failures, or waited for in another run."""

from __future__ import annotations

import threading
import time
import traceback
from dataclasses import replace
from typing import Any

import luigi
from luigi.event import Event
from luigi.scheduler import DONE, FAILED, PENDING

from luigi_prune.errors import DamagedResult, LuigiPruneError
from luigi_prune.execution.failures import clear_failure, record_failure
from luigi_prune.execution.job import Job, Outcome
from luigi_prune.results.disk_space import full_disk, write_problem
from luigi_prune.results.hdf5_file import set_aside, verify
from luigi_prune.workflow.job_task import JobTask

_REPAIRS = 20  # maximum number of repairs of inputs per task
_REPAIR_DELAY = 2.0  # seconds before a repeated request, as the scheduler may not have updated yet


class JobProcess:
    """Has the interface of Luigi's task process; submits the job to a backend and reports its outcome.

    `run`, and whatever waits for another run or for a retry, is called by the thread of `worker`, a PruneWorker.
    """

    use_multiprocessing = False
    exitcode = 0
    timeout_time = None
    worker_timeout = None

    def __init__(self, task: JobTask, worker: Any):
        self.task = task
        self.worker = worker
        self.status_reporter = None
        self._began = time.perf_counter()
        self._ended = False
        self._stopped = False
        self._job: Job | None = None  # as submitted; None before and after
        self._retry: threading.Timer | None = None

    def run(self) -> None:
        """Submit the job, unless its result exists by now, an input is missing, or another run computes it."""
        self.task.trigger_event(Event.START, self.task)
        self._try()

    def is_alive(self) -> bool:
        """Return whether the job is still waiting or running."""
        return not self._ended

    def terminate(self) -> None:
        """Stop the job, or stop waiting for it."""
        self._stopped = True
        if self._retry is not None:
            self._retry.cancel()
        self.worker.claims.unwatch(self.task.path)
        if self._job is not None:
            self.worker.backend.cancel(self._job)

    def _try(self) -> None:
        self.worker.unpark(self.task)
        if self._stopped:
            return
        try:
            if self.task.complete():
                self._finish(DONE, "")
            elif missing := [task for task in self.task.requires().values() if not task.complete()]:
                self._repair(missing, f"waits for {missing[0].path}")
            else:
                self._claim()
        except Exception as error:  # Luigi would end the run with a traceback
            problem = full_disk(error, self.task.path)
            self._handle_failure(Outcome("failed", problem or traceback.format_exc(), retry=not problem))

    def _claim(self) -> None:
        """Submit the job if the claim to its result is ours, else wait for the run that has claimed it."""
        failed_before = bool(self.worker.failures.get(self.task.task_id))
        job = replace(self.task.job(self.worker.backend.name), alone=failed_before)
        if not self.worker.backend.makes_claims(job.family):
            job = replace(job, attempt=self.worker.claims.take(job.output))
            if not job.attempt:
                self._wait_for_other_run()
                return
            if self.task.complete():  # written between the check and the claim
                self._finish(DONE, "")
                return
        self._job = job
        clear_failure(self.task.path)
        self.worker.board.submitted(self.task)
        self.worker.backend.submit(job, self)

    def _wait_for_other_run(self) -> None:
        message = f"in another run ({self.worker.claims.owner(self.task.path) or 'which has just claimed it'})"
        self.worker.park(self.task)
        self.worker.board.computed_elsewhere(self.task, message)
        self.worker.statuses.update(self.task.task_id, 0.0, message)
        self.worker.claims.watch(self.task.path, lambda: self.worker.call_soon(self._try))

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
        self._job = None
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
        if outcome.status == "elsewhere":
            self.worker.claims.release(self.task.path)
            self.worker.call_soon(self._wait_or_try)
        elif outcome.status == "done" and self.task.complete():
            self._finish(DONE, "", outcome)
        else:
            message = outcome.message or f"the job ended without writing {self.task.path}"
            self._handle_failure(replace(outcome, message=message))

    def _wait_or_try(self) -> None:
        """Wait for the run that has superseded this one, if it still has a claim; else try again."""
        if self.worker.claims.owner(self.task.path):
            self._wait_for_other_run()
        else:
            self._try()

    def _handle_failure(self, outcome: Outcome) -> None:
        """Try a job again that a retry can mend; end the run if results cannot be written any more."""
        problem = outcome.message if outcome.ends_run else ""
        if not self._stopped and not problem:
            problem = write_problem(self.task.path.parent)
        if problem:
            self.worker.end_run(problem)
            self.worker.board.stopped(self.task)
            self._report(FAILED, problem)
            return
        message = outcome.message + (f"\nlog: {outcome.log}" if outcome.log else "")
        failures = self.worker.failures[self.task.task_id] = self.worker.failures.get(self.task.task_id, 0) + 1
        count, delay = self.worker.retries
        if outcome.retry and failures < count and not self._stopped and not self.worker.is_ending:
            text = f"attempt {failures} of {count} failed; tried again in {delay:.3g} s"
            self.worker.park(self.task)
            self.worker.board.failed_attempt(self.task, f"{message}\n{text}")
            self.worker.statuses.update(self.task.task_id, 0.0, text)
            self._retry = threading.Timer(delay, self.worker.call_soon, [self._try])
            self._retry.daemon = True
            self._retry.start()
        else:
            if not self._stopped:
                record_failure(self.task.path, outcome.message, outcome.log)
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
            self._finish(FAILED, f"an input was lost {count} times: {message}")
            return
        needs = [(task.task_module, task.task_family, task.to_str_params()) for task in inputs]
        result: tuple[Any, ...] = (self.task.task_id, PENDING, "", [], needs)
        self._ended = True
        self.worker.claims.release(self.task.path)
        if count == 1:
            self.worker.deliver(result)
        else:
            threading.Timer(_REPAIR_DELAY, self.worker.deliver, [result]).start()

    def _finish(self, status: str, message: str, outcome: Outcome | None = None) -> None:
        """Count the end on the terminal and report it to Luigi."""
        if outcome is None and status == DONE:
            self.worker.board.done_elsewhere(self.task)
        else:
            self.worker.board.ended(self.task, status == DONE, message, outcome.seconds if outcome else 0.0)
        self._report(status, message)

    def _report(self, status: str, message: str) -> None:
        """Report the end to Luigi; a failure is final, so the scheduler is told to try it once."""
        self._ended = True
        self.worker.claims.release(self.task.path)
        self.task.retry_count = 1 if status == FAILED else None
        seconds = time.perf_counter() - self._began
        self.task.trigger_event(Event.PROCESSING_TIME, self.task, seconds)
        if status == DONE:
            self.task.trigger_event(Event.SUCCESS, self.task)
        else:
            self.worker.failed.add(self.task.task_id)
            self.task.trigger_event(Event.FAILURE, self.task, LuigiPruneError(message))
        self.worker.deliver((self.task.task_id, status, message, [], []))


class WrapperProcess:
    """Ends the root of a graph: done if all its inputs are complete; else a scheduler has lost some of them."""

    use_multiprocessing = False
    exitcode = 0
    timeout_time = None
    worker_timeout = None
    status_reporter = None

    def __init__(self, task: luigi.WrapperTask, worker: Any):
        self.task = task
        self.worker = worker

    def run(self) -> None:
        """Report the task as done, or make Luigi run the inputs that are missing."""
        missing = [task for task in self.task.deps() if not task.complete()]
        if not missing:
            self.task.trigger_event(Event.START, self.task)
            self.task.trigger_event(Event.SUCCESS, self.task)
            self.worker.deliver((self.task.task_id, DONE, "", [], []))
            return
        needs = [(task.task_module, task.task_family, task.to_str_params()) for task in missing]
        self.worker.deliver((self.task.task_id, PENDING, "", [], needs))

    def is_alive(self) -> bool:
        """Return False: it does no work."""
        return False

    def terminate(self) -> None:
        """Do nothing."""
