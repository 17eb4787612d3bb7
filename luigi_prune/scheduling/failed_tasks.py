"""A scheduler that calls a task FAILED if it has failed for good; Luigi calls it DISABLED and counts no failure."""

from __future__ import annotations

from typing import Any

from luigi.scheduler import DISABLED, FAILED, PENDING, UPSTREAM_DISABLED, UPSTREAM_FAILED, rpc_method

from luigi_prune.scheduling.indexed_scheduler import IndexedScheduler


class FailureScheduler(IndexedScheduler):
    """The scheduler of a luigid: decides as Luigi's does, and lists failures under their name."""

    def _serialize_task(self, task_id: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        serialized: dict[str, Any] = super()._serialize_task(task_id, *args, **kwargs)
        if serialized.pop("re_enable_able", False):
            serialized["status"] = FAILED
        return serialized

    @rpc_method()
    def task_list(self, status: str = "", upstream_status: str = "", **more: Any) -> dict[str, Any]:
        """Return the tasks of a status by id, or their number if there are too many."""

        def listed(own: str, upstream: str) -> dict[str, Any]:
            tasks: dict[str, Any] = IndexedScheduler.task_list(self, own, upstream, **more)
            return tasks

        if status == PENDING and upstream_status == UPSTREAM_DISABLED:
            return {}
        if status == PENDING and upstream_status == UPSTREAM_FAILED:
            return _both(listed(status, UPSTREAM_FAILED), listed(status, UPSTREAM_DISABLED))
        if status == FAILED:
            return _both(listed(FAILED, upstream_status), _of_status(FAILED, listed(DISABLED, upstream_status)))
        if status == DISABLED:
            return _of_status(DISABLED, listed(DISABLED, upstream_status))
        return listed(status, upstream_status)

    @rpc_method()
    def forgive_failures(self, task_id: str | None = None) -> dict[str, Any]:
        """Make a failed task run again."""
        self.re_enable_task(task_id)
        forgiven: dict[str, Any] = super().forgive_failures(task_id)
        return forgiven


def _of_status(status: str, tasks: dict[str, Any]) -> dict[str, Any]:
    if "num_tasks" in tasks:  # too many to be listed: all are failures, as nobody disables a task by hand
        return tasks if status == FAILED else {}
    return {task_id: task for task_id, task in tasks.items() if task["status"] == status}


def _both(some: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    if "num_tasks" in some or "num_tasks" in others:
        return {"num_tasks": sum(tasks.get("num_tasks", len(tasks)) for tasks in (some, others))}
    return {**some, **others}
