"""A task that has failed for good is listed as FAILED, and only the list differs from Luigi's scheduler."""

from __future__ import annotations

import pytest
from luigi.scheduler import DISABLED, DONE, FAILED, PENDING, UPSTREAM_DISABLED, UPSTREAM_FAILED

from luigi_prune.scheduling.failed_tasks import FailureScheduler


@pytest.fixture
def scheduler() -> FailureScheduler:
    """Return a scheduler with a task that has failed for good, one that needs it, and one that may fail again."""
    scheduler = FailureScheduler()
    scheduler.add_task(worker="w", task_id="reader", deps=["once"], family="F")
    for task, retries in (("once", 1), ("twice", 2)):
        policy = {"retry_count": retries}
        scheduler.add_task(worker="w", task_id=task, family="F", retry_policy_dict=policy)
        scheduler.add_task(worker="w", task_id=task, family="F", status=FAILED, retry_policy_dict=policy, expl="no")
    return scheduler


def test_failures_are_listed_as_such(scheduler):
    assert {task: row["status"] for task, row in scheduler.task_list(FAILED, "").items()} == {
        "once": FAILED,
        "twice": FAILED,
    }
    assert scheduler.task_list(DISABLED, "") == {}
    assert set(scheduler.task_list(PENDING, UPSTREAM_FAILED)) == {"reader"}
    assert scheduler.task_list(PENDING, UPSTREAM_DISABLED) == {}
    assert set(scheduler.task_list(FAILED, "", search="F(")) == {"once", "twice"}
    assert scheduler._state.get_task("once").status == DISABLED  # decisions are those of Luigi's


def test_more_failures_than_the_page_lists_are_counted(scheduler, monkeypatch):
    monkeypatch.setattr(scheduler._config, "max_shown_tasks", 0)
    assert scheduler.task_list(FAILED, "") == {"num_tasks": 2}
    assert scheduler.task_list(DISABLED, "") == {}


def test_forgiving_makes_a_task_run_again(scheduler):
    assert scheduler.forgive_failures("once")["status"] == PENDING
    assert scheduler.get_work(worker="w")["task_id"] == "once"
    scheduler.add_task(worker="w", task_id="once", status=DONE)
    assert set(scheduler.task_list(FAILED, "")) == {"twice"}
