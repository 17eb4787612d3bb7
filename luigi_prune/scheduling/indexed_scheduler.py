"""Luigi's scheduler with indexes where it scans all tasks: the same answers, hardly slower for larger graphs.

Luigi's own code decides which task is next; here it receives only those that can be it. It reads its tasks through
`SimpleTaskState`, whose methods are the places where the index is brought up to date.
"""

from __future__ import annotations

import logging
import os
import pickle
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import luigi.scheduler
from luigi.scheduler import BATCH_RUNNING, PENDING, RUNNING, rpc_method

from luigi_prune.scheduling.task_index import TaskIndex

logger = logging.getLogger(__name__)


class IndexedWorker(luigi.scheduler.Worker):
    """A worker as the scheduler keeps it; its tasks are those that name it."""

    def get_tasks(self, state: Any, *statuses: str) -> Iterable[Any]:
        """Return its tasks of these statuses; of the pair that `get_work` asks for, those that can be next."""
        if statuses == (PENDING, RUNNING):
            return state.candidates(self.id)
        return (task for task in state.get_active_tasks_by_status(*statuses) if self.id in task.workers)

    def is_trivial_worker(self, state: Any) -> bool:
        """Return whether none of its pending tasks needs resources; False for an assistant."""
        return not self.assistant and not state.index.counts[self.id].resources


class IndexedState(luigi.scheduler.SimpleTaskState):
    """The tasks and workers of a scheduler, with their index."""

    def __init__(self, config: Any, metrics_collector: Any):
        super().__init__(config.state_path)
        self._metrics_collector = metrics_collector
        self._config = config
        self.index = TaskIndex(config)

    def candidates(self, worker_id: str = "") -> Iterator[Any]:
        """Return the ready tasks that can be the next one of a worker, or of any, and the running ones.

        Of tasks alike but for their rank, a worker without need of resources gets the first; otherwise those that it
        cannot have count as taken by a free process of another worker, so that no more than processes are looked at.
        """
        if any(self._task_batchers.values()):
            ready = self.index.all_ready(worker_id)
        else:
            processes = sum(max(0, worker.info.get("workers", 1)) for worker in self._active_workers.values())
            ready = self.index.ready(1 if worker_id else 1 + processes, worker_id)
        return chain(ready, self._status_tasks[RUNNING].values())

    def get_active_tasks_by_status(self, *statuses: str) -> Iterator[Any]:
        """Return the tasks of these statuses; of the pair that `get_work` alone asks for, those that can be next."""
        if statuses == (PENDING, RUNNING):
            return self.candidates()
        tasks: Iterator[Any] = super().get_active_tasks_by_status(*statuses)
        return tasks

    def get_task(self, task_id: str, default: Any = None, setdefault: Any = None) -> Any:
        """Return a task; enter `setdefault` if there is none."""
        task = self._tasks.get(task_id)
        if task is None and setdefault:
            task = super().get_task(task_id, setdefault=setdefault)
            self.index.add(task)
        return default if task is None else task

    def set_status(self, task: Any, new_status: str, config: Any = None) -> None:
        """Change the status of a task, and of those in its batch."""
        super().set_status(task, new_status, config)
        self.index.refresh(task)

    def due_tasks(self, assistants: set[str]) -> list[Any]:
        """Return the tasks that `prune` can change now: those of dead workers, and those that time changes."""
        running = super().get_active_tasks_by_status(RUNNING, BATCH_RUNNING)
        dead = [task for task in running if task.worker_running not in task.stakeholders]
        return self.index.take_due(time.time(), (task for task in dead if task.worker_running not in assistants))

    def inactivate_tasks(self, delete_tasks: Iterable[str]) -> None:
        """Remove tasks, from those of their workers, too, which Luigi's own state leaves in memory and state file."""
        removed = [self._tasks[task_id] for task_id in delete_tasks]
        for task in removed:
            self.index.remove(task)
        for worker in self._active_workers.values() if removed else ():
            worker.tasks.difference_update(removed)
        super().inactivate_tasks(delete_tasks)

    def get_worker(self, worker_id: str) -> Any:
        """Return a worker; a new one if it is unknown."""
        if worker_id not in self._active_workers:
            self._active_workers[worker_id] = IndexedWorker(worker_id)
        return self._active_workers[worker_id]

    def _remove_workers_from_tasks(self, workers: Any, remove_stakeholders: bool = True) -> None:
        if workers:  # Luigi calls it at every pruning, mostly for none
            super()._remove_workers_from_tasks(workers, remove_stakeholders)
            for task in self._tasks.values():
                self.index.refresh(task)

    def get_state(self) -> Any:
        """Return what a state file holds: objects of Luigi's classes, so that its own server can load them."""
        workers = {}
        for worker_id, worker in self._active_workers.items():
            workers[worker_id] = luigi.scheduler.Worker(worker_id)
            vars(workers[worker_id]).update(vars(worker))
        return self._tasks, workers, self._task_batchers

    def set_state(self, state: Any) -> None:
        """Take over what a state file holds."""
        super().set_state(state)
        for worker in self._active_workers.values():
            worker.__class__ = IndexedWorker
        self.index = TaskIndex(self._config)
        for task in self._tasks.values():
            self.index.add(task)

    def load(self) -> None:
        """Take over the state file; from a file that holds something else, nothing."""
        try:
            super().load()
        except Exception:
            logger.exception("%s holds no state of a scheduler. Starting from an empty one.", self._state_path)
            self._status_tasks.clear()
            self.set_state(({}, {}, {}))

    def dump(self) -> None:
        """Replace the state file; whatever goes wrong while it is written leaves the previous one."""
        path = Path(self._state_path)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with open(temporary, "wb") as file:
                pickle.dump(self.get_state(), file, protocol=pickle.HIGHEST_PROTOCOL)
            temporary.replace(path)
        except Exception:  # the server goes on without
            logger.warning("Failed saving scheduler state", exc_info=True)
            temporary.unlink(missing_ok=True)


class IndexedScheduler(luigi.scheduler.Scheduler):
    """Luigi's scheduler on an `IndexedState`."""

    _state: Any
    _make_task: Any

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._state = IndexedState(self._config, self._state._metrics_collector)
        self._visibilities: dict[Any, dict[str, Any]] = {}
        self._new_task, self._make_task = self._make_task, self._known_or_new

    def _known_or_new(self, task_id: str, **more: Any) -> Any:
        """Return a task; Luigi makes one for every report of a change and for each input, and then drops it."""
        task = self._state.get_task(task_id)
        return self._new_task(task_id=task_id, **more) if task is None else task

    def add_task(self, task_id: str | None = None, *args: Any, **kwargs: Any) -> None:
        """Add a task, or report a change of it."""
        known = self._state.get_task(task_id)
        if known is None or not known.params:  # else it keeps what it has
            if params := kwargs.get("params"):  # requests repeat the same texts in every task
                kwargs["params"] = {_shared(name): _shared(value) for name, value in params.items()}
            if visibilities := kwargs.get("param_visibilities"):  # the same for all tasks of a family
                kwargs["param_visibilities"] = self._visibilities.setdefault(tuple(visibilities.items()), visibilities)
        try:
            super().add_task(task_id, *args, **kwargs)
        finally:  # a malformed request fails when it has changed a part of the task
            if task_id is not None and self._state.has_task(task_id):
                self._state.index.refresh(self._state.get_task(task_id), relink=True)

    @rpc_method()
    def get_several(
        self, worker: str, at_most: int, current_tasks: list[str], assistant: bool = False, **more: Any
    ) -> list[dict[str, Any]]:
        """Return the answers to `at_most` requests for work, one after the other, up to the first without a task.

        Those with a task lack what the worker that added the task does not read.
        """
        answers: list[dict[str, Any]] = []
        while True:
            answer = self.get_work(worker=worker, current_tasks=current_tasks, assistant=assistant, **more)
            answers.append(answer)
            if (task_id := answer["task_id"]) is not None:
                current_tasks = [*current_tasks, task_id]
                answer["running_tasks"] = []
                if not assistant:
                    del answer["task_params"]
            if task_id is None or len(answers) >= at_most:
                return answers

    @rpc_method()
    def take_back(self, worker: str, task_ids: list[str]) -> None:
        """Make tasks pending again that a worker was given and has not started."""
        for task in filter(None, map(self._state.get_task, task_ids)):
            if task.status == RUNNING and task.worker_running == worker:
                task.worker_running = None
                self._state.set_status(task, PENDING, self._config)

    def count_pending(self, worker: str) -> dict[str, Any]:
        """Return how many tasks a worker can wait for, and which of its tasks run, here or elsewhere."""
        counts, asking = self._state.index.counts[worker], self._state.get_worker(worker)
        running = []
        for task in asking.get_tasks(self._state, RUNNING):
            runs_it = self._state.get_worker(task.worker_running)
            running.append({"task_id": task.id, "worker": str(runs_it), **runs_it.info})
        return {
            "n_pending_tasks": counts.pending,
            "n_unique_pending": counts.unique,
            "n_pending_last_scheduled": counts.last,
            "worker_state": asking.state,
            "running_tasks": running,
        }

    def _prune_tasks(self) -> None:
        assistants = {worker.id for worker in self._state.get_assistants()}
        removed = []
        for task in self._state.due_tasks(assistants):
            self._state.fail_dead_worker_task(task, self._config, assistants)
            self._state.update_status(task, self._config)
            self._state.index.refresh(task)
            if self._state.may_prune(task):
                removed.append(task.id)
        self._state.inactivate_tasks(removed)

    def _update_priority(self, task: Any, prio: float, worker: str) -> None:
        """Raise the priority of a task, and of all that it needs, to at least `prio`."""
        prio = max(prio, task.priority if isinstance(task.priority, int | float) else task.DEFAULT_PRIORITY)
        raised = [task]
        while raised:
            task = raised.pop()
            task.priority = prio
            self._state.index.refresh(task)
            inner = map(self._state.get_task, task.deps or ())
            raised += [needed for needed in inner if needed is not None and prio > needed.priority]


def _shared(value: Any) -> Any:
    return sys.intern(value) if type(value) is str else value
