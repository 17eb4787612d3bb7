"""The half of the worker that keeps a scheduler informed, which may forget everything while jobs run.

A luigid that was restarted, or that has taken this worker as dead after a suspension, says that nothing is pending.
The worker then registers all its tasks again.
"""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

import luigi
import luigi.worker
from luigi.scheduler import DISABLED, DONE, FAILED, PENDING, RUNNING, UNKNOWN

from luigi_prune.workflow.job_task import JobTask
from luigi_prune.workflow.progress_display import Board
from luigi_prune.workflow.scheduler_link import SchedulerLink

_ATTEMPTS = 3  # registrations in a row without any task done in between
_AWAY_SECONDS = 120.0  # from a luigid, which notices the death of a worker within its worker_disconnect_delay
_IDLE_SECONDS = 5.0  # with tasks pending and nobody at work, before a registration; doubled each time


class RegisteringWorker(luigi.worker.Worker):
    """A worker that sends its graph in order of priority, as often as the scheduler needs it."""

    board: Board
    failed: set[str]  # ids of the tasks that are not tried any more

    def __init__(self, **options: Any):
        super().__init__(**options)
        self._roots: list[luigi.Task] = []
        self._started = False
        self._needs: dict[str, list[str]] = {}  # task id -> ids of what it needs, of tasks that were incomplete
        self._collected: list[dict[str, Any]] | None = None  # tasks on their way to the scheduler
        self._attempts, self._done_then = 0, -1  # registrations since a task was done, and how many were then
        self._idle_from, self._idle_limit = 0.0, _IDLE_SECONDS

    @property
    def has_luigid(self) -> bool:
        """Whether the scheduler is another process."""
        return isinstance(self._scheduler, luigi.rpc.RemoteScheduler | SchedulerLink)

    def add(self, task: luigi.Task, *args: Any, **kwargs: Any) -> bool:
        """Send a task and its dependencies to the scheduler, those with the longest chain of readers first in line.

        Luigi raises the priority of a task to that of its readers, which is less here.
        """
        if not self._started:
            self._roots.append(task)
        self._collected = []
        try:
            succeeded = bool(super().add(task, *args, **kwargs))
            collected = self._collected
        finally:
            self._collected = None
        self._needs.update({sent["task_id"]: sent["deps"] for sent in collected if sent["deps"] is not None})
        priorities = readers_in_line(task.task_id, self._needs)
        for sent in collected:
            self._send(sent | {"priority": priorities.get(sent["task_id"], 0)})
        return succeeded

    def _add_task(self, *args: Any, **kwargs: Any) -> None:
        if self._collected is not None:
            self._collected.append(kwargs)
            return
        if kwargs["status"] == FAILED:
            # the scheduler counts a failure by its previous retry policy: send the new one first
            super()._add_task(*args, **kwargs | {"status": RUNNING, "expl": None})
        super()._add_task(*args, **kwargs)

    def _send(self, task: dict[str, Any]) -> None:
        """Send a task of the graph, with what the scheduler may have forgotten of it, or never got."""
        is_running = task["task_id"] in self._running_tasks
        if task["status"] == PENDING and self._started and not is_running:
            if task["task_id"] in self.failed:
                task |= {"status": FAILED, "expl": "failed before it was registered again"}
            else:  # it may believe that the task is done, and would then ignore for a while that it is not
                self._scheduler.add_task(**task | {"status": UNKNOWN})
        RegisteringWorker._add_task(self, **task)
        if is_running:
            self._scheduler.add_task(**task | {"status": RUNNING})

    def run(self) -> bool:
        """Run all scheduled tasks."""
        self._started = True
        self._enable_failed_tasks()
        return bool(super().run())

    def _get_work(self) -> Any:
        if isinstance(self._scheduler, SchedulerLink):
            self._scheduler.free_slots = self.worker_processes - len(self._running_tasks)
            if self._scheduler.has_moved():
                self._register_again()
            if self._stop_requesting_work:
                self._scheduler.give_back(self._id)
        response = super()._get_work()
        while response.task_id is None and not self._stop_requesting_work and self._is_forgotten(response):
            self._register_again()
            response = super()._get_work()
        return response

    def _keep_alive(self, get_work_response: Any) -> bool:
        """Return whether there is anything to wait for: never once all is done, whatever the scheduler believes."""
        if not self._assistant and all(root.complete() for root in self._roots):
            return False
        return bool(super()._keep_alive(get_work_response))

    def _is_forgotten(self, response: Any) -> bool:
        """Return whether tasks that can run are unknown to the scheduler, and another registration may help."""
        if response.n_pending_tasks == 0:
            if not self.lost_tasks():
                return False
            if self.board.done_count != self._done_then:
                self._attempts, self._done_then = 0, self.board.done_count
            self._attempts += 1
            return self._attempts <= _ATTEMPTS
        elsewhere = [task["task_id"] for task in response.running_tasks if task["task_id"] not in self._running_tasks]
        if self.has_busy_slots or (self._running_tasks and not elsewhere):
            self._idle_from = 0.0
            return False
        self._idle_from = self._idle_from or time.monotonic()
        if time.monotonic() - self._idle_from <= self._idle_limit:
            return False
        self._idle_from = 0.0
        if not elsewhere:  # it waits for tasks that it has never been told of
            self._idle_limit *= 2
            return True
        if isinstance(self._scheduler, SchedulerLink) and any(map(self._has_lost_its_run, elsewhere)):
            self._scheduler.leave("waits for a run that has died", _AWAY_SECONDS)
            return self._scheduler.has_moved()
        return False

    @property
    def has_busy_slots(self) -> bool:
        """Whether a job of this run takes a slot."""
        return bool(self._running_tasks)

    def _has_lost_its_run(self, task_id: str) -> bool:
        """Return whether a task that runs elsewhere, as the scheduler believes, is computed by nobody."""
        return False

    def _register_again(self) -> None:
        self._add_worker()
        for root in self._roots:
            RegisteringWorker.add(self, root)
        self._enable_failed_tasks()

    def lost_tasks(self) -> list[str]:
        """Return the ids of the tasks that have not ended, do not run, and need no task that has failed."""
        idle = self.board.idle_tasks()
        blocked = set(self.failed)
        if blocked and idle:
            readers: dict[str, list[str]] = defaultdict(list)
            for task_id, needs in self._needs.items():
                for need in needs:
                    readers[need].append(task_id)
            stack = list(blocked)
            while stack:
                stack += (new := [reader for reader in readers[stack.pop()] if reader not in blocked])
                blocked.update(new)
        return [task_id for task_id in idle if task_id not in blocked]

    def why_incomplete(self, task_id: str) -> str:
        """Return why a task was not run, as far as the scheduler tells."""
        if self._stop_requesting_work:
            return "this run was stopped (on luigid's page, or by SIGUSR1) and starts no more"
        task = self._scheduled_tasks[task_id]
        statuses = ", ".join(self._scheduler.task_search(task_id)) or "unknown"
        return f"the scheduler gives out none of them; {getattr(task, 'title', task)} is {statuses} there"

    def _enable_failed_tasks(self) -> None:
        """Enable tasks that the scheduler disabled after failures in another run."""
        if not self.has_luigid:
            return
        for status in (DISABLED, FAILED):  # luigid lists them as the former, ours as the latter
            for task_id in self._scheduler.task_list(status, ""):
                task = self._scheduled_tasks.get(task_id)
                if isinstance(task, JobTask) and task_id not in self.failed:
                    self._scheduler.re_enable_task(task_id)
                    RegisteringWorker.add(self, task)

    def _count_as_done(self) -> None:
        """Count tasks finished by another driver as done; else Luigi's return code would be "already running"."""
        last = {task.task_id: status for task, status, _ in self._add_task_history}
        unfinished = [self._scheduled_tasks[task_id] for task_id, status in last.items() if status != DONE]
        self._add_task_history += [(task, DONE, True) for task in unfinished if task.complete()]
        self._get_work_response_history.clear()


def readers_in_line(root: str, needs: dict[str, list[str]]) -> dict[str, int]:
    """Return for each task below `root` the length of the longest chain of tasks that read it, one after the other."""
    order: list[str] = []
    seen: set[str] = set()
    stack: list[tuple[str, bool]] = [(root, False)]
    while stack:
        task_id, below_done = stack.pop()
        if below_done:
            order.append(task_id)
        elif task_id not in seen:
            seen.add(task_id)
            stack.append((task_id, True))
            stack += [(need, False) for need in needs.get(task_id, [])]
    lengths = dict.fromkeys(order, 0)
    for task_id in reversed(order):
        for need in needs.get(task_id, []):
            lengths[need] = max(lengths[need], lengths[task_id] + 1)
    return lengths
