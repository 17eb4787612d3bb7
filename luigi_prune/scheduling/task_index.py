"""What a scheduler asks of its tasks at every request, kept up to date: which are ready, how many wait, which are due.

`refresh` brings a task's entry up to date with the task, whatever has changed, and the entries of its dependents with
it. An entry holds what it has contributed to the indexes, so that contributions are withdrawn exactly.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from luigi.scheduler import DISABLED, DONE, FAILED, PENDING, RUNNING


class TaskGroup(NamedTuple):
    """What decides, beside rank, whether a ready task can start: tasks of one group are interchangeable for that."""

    resources: tuple[Any, ...]
    workers: tuple[str, ...]  # in the order in which they added the task
    runnable: bool


class TaskEntry:
    """A task in the index, with its contributions."""

    __slots__ = ("blocks", "counted", "deps", "done", "due", "number", "place", "stops", "task", "waits")

    def __init__(self, task: Any, number: int):
        self.task = task
        self.number = number  # order of addition
        self.deps: frozenset[str] = frozenset()
        self.done = self.stops = False  # as its dependents have counted it
        self.waits = self.blocks = 0  # inputs that are not done; inputs that stop it until somebody acts
        self.place: tuple[TaskGroup, tuple[Any, ...]] | None = None  # among the ready tasks
        self.counted: tuple[tuple[str, ...], bool, bool] = ((), False, False)
        self.due = math.inf


class WorkerCounts:
    """The tasks of a worker that are pending or failed, and not behind a disabled one."""

    __slots__ = ("last", "pending", "resources", "unique")

    def __init__(self) -> None:
        self.pending = self.unique = self.last = 0
        self.resources = 0  # pending tasks that need resources, behind a disabled one or not


class TaskIndex:
    """The indexes of all tasks of a scheduler."""

    def __init__(self, config: Any):
        self.config = config
        self.counts: dict[str, WorkerCounts] = defaultdict(WorkerCounts)
        self._entries: dict[str, TaskEntry] = {}
        self._dependents: dict[str, set[TaskEntry]] = {}
        self._ready: dict[TaskGroup, list[tuple[Any, ...]]] = {}  # the next one last
        self._due: list[tuple[float, int, TaskEntry]] = []
        self._added = 0

    def add(self, task: Any) -> None:
        """Enter a new task."""
        self._added += 1
        self._entries[task.id] = TaskEntry(task, self._added)
        self.refresh(task, relink=True)

    def remove(self, task: Any) -> None:
        """Withdraw a task; those that need it wait for it as long as it is missing."""
        entry = self._entries.pop(task.id)
        self._unlink(entry, entry.deps)
        self._take_place(entry, None)
        self._count(entry, ((), False, False))
        entry.due = math.inf
        self._tell_dependents(entry, done=False, stops=False)

    def refresh(self, task: Any, relink: bool = False) -> None:
        """Bring the task's entry up to date; `relink`: its dependencies may have changed, too."""
        entry = self._entries[task.id]
        if relink and task.deps != entry.deps:
            self._relink(entry)
        self._update(entry)
        self._set_due(entry)

    def ready(self, depth: int, worker_id: str = "") -> Iterator[Any]:
        """Yield the first `depth` ready tasks of every group, or of those that `worker_id` can run."""
        for group, items in self._ready.items():
            if not worker_id or worker_id in group.workers:
                for item in items[-depth:]:
                    yield item[-1]

    def all_ready(self, worker_id: str = "") -> Iterator[Any]:
        """Yield all ready tasks."""
        return self.ready(self._added, worker_id)

    def take_due(self, now: float, others: Iterable[Any]) -> list[Any]:
        """Return, in the order of addition, `others` and the tasks that time changes until `now`.

        Refresh each of them, so that it is due again.
        """
        entries = {self._entries[task.id] for task in others}
        while self._due and self._due[0][0] <= now:
            due, _, entry = heapq.heappop(self._due)
            if entry.due == due:
                entry.due = math.inf
                entries.add(entry)
        return [entry.task for entry in sorted(entries, key=lambda entry: entry.number)]

    def _relink(self, entry: TaskEntry) -> None:
        deps = frozenset(entry.task.deps)
        self._unlink(entry, entry.deps - deps)
        for dep in deps - entry.deps:
            self._dependents.setdefault(dep, set()).add(entry)
        entry.deps = deps
        found = [inner for dep in deps if (inner := self._entries.get(dep)) is not None]
        entry.waits = len(deps) - sum(inner.done for inner in found)
        entry.blocks = sum(inner.stops for inner in found)

    def _unlink(self, entry: TaskEntry, deps: Iterable[str]) -> None:
        for dep in deps:
            self._dependents[dep].discard(entry)
            if not self._dependents[dep]:
                del self._dependents[dep]

    def _update(self, entry: TaskEntry) -> None:
        changed = [entry]
        while changed:
            entry = changed.pop()
            task = entry.task
            pending = task.status == PENDING
            stops = task.status == DISABLED or (pending and entry.blocks > 0)
            if stops != entry.stops or (task.status == DONE) != entry.done:
                changed += self._tell_dependents(entry, task.status == DONE, stops, later=True)
            workers = tuple(task.workers)
            waiting = (pending and not stops) or task.status == FAILED
            self._count(entry, (workers, waiting, pending and bool(task.resources)))
            if pending and not entry.waits:
                resources = tuple(sorted(task.resources.items())) if task.resources else ()
                group = TaskGroup(resources, workers, bool(task.runnable))
                self._take_place(entry, (group, (task.priority, -task.time, -entry.number, task)))
            else:
                self._take_place(entry, None)

    def _tell_dependents(self, entry: TaskEntry, done: bool, stops: bool, later: bool = False) -> list[TaskEntry]:
        """Count a change in the entries of the dependents; return those affected, updated unless `later`."""
        more_done, more_stops = done - entry.done, stops - entry.stops
        entry.done, entry.stops = done, stops
        affected = []
        for dependent in self._dependents.get(entry.task.id, ()):
            was_ready = not dependent.waits
            dependent.waits -= more_done
            dependent.blocks += more_stops
            if more_stops or was_ready or not dependent.waits:
                affected.append(dependent)
        if not later:
            for dependent in affected:
                self._update(dependent)
        return affected

    def _take_place(self, entry: TaskEntry, place: tuple[TaskGroup, tuple[Any, ...]] | None) -> None:
        if place == entry.place:
            return
        if entry.place is not None:
            group, item = entry.place
            items = self._ready[group]
            del items[bisect_left(items, item)]
            if not items:
                del self._ready[group]
        if place is not None:
            insort(self._ready.setdefault(place[0], []), place[1])
        entry.place = place

    def _count(self, entry: TaskEntry, counted: tuple[tuple[str, ...], bool, bool]) -> None:
        if counted == entry.counted:
            return
        for sign, (workers, waiting, resources) in ((-1, entry.counted), (1, counted)):
            for worker in workers:
                counts = self.counts[worker]
                counts.resources += sign * resources
                if waiting:
                    counts.pending += sign
                    counts.unique += sign * (len(workers) == 1)
                    counts.last += sign * (worker == workers[-1])
        entry.counted = counted

    def _set_due(self, entry: TaskEntry) -> None:
        """Enter the time from which pruning changes the task: it is removed, tried again, or enabled again."""
        task, due = entry.task, math.inf
        if task.remove:
            due = task.remove
        elif task.remove is None and not task.stakeholders and task.status != RUNNING:
            due = 0.0
        if task.status == FAILED and self.config.retry_delay >= 0:
            due = min(due, task.retry)
        elif task.status == DISABLED and task.scheduler_disable_time is not None:
            due = min(due, task.scheduler_disable_time + self.config.disable_persist)
        if due != entry.due:
            entry.due = due
            if due < math.inf:
                heapq.heappush(self._due, (due, entry.number, entry))
