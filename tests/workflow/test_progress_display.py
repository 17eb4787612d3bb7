"""Progress on the terminal of tasks that wait, run and end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from luigi.scheduler import PENDING

import luigi_prune.workflow.progress_display as board_module
from luigi_prune.execution.job import Job
from luigi_prune.execution.slurm.cli import Row
from luigi_prune.execution.slurm.heartbeat import Heartbeat
from luigi_prune.execution.slurm.options import Resources
from luigi_prune.execution.slurm.tracked_job import TrackedJob
from luigi_prune.workflow.estimates import Running
from luigi_prune.workflow.progress_display import Board
from tests.pretend import PretendBackend


@dataclass
class FakeTask:
    task_id: str
    task_family: str = "Prune"

    @property
    def title(self) -> str:
        return f"task {self.task_id}"


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(board_module, "time", clock)
    return clock


def make_board(count: int, slots: int = 200) -> tuple[Board, list[Any]]:
    board = Board(PretendBackend(slots=slots))
    tasks = [FakeTask(str(number)) for number in range(count)]
    for task in tasks:
        board.scheduled(task, PENDING)
    return board, tasks


def tracked(row: Row) -> TrackedJob:
    return TrackedJob(Job("f", "n", "Prune", {}, "/o", "/l"), None, Resources(), slurm_id="12_3", row=row)  # type: ignore[arg-type]


def test_waiting_tasks_are_counted_by_the_reason_that_slurm_gives(clock):
    board, tasks = make_board(8)
    assert board.line() == "0/8 tasks done, 0 running, 8 remain"
    for task in tasks[:6]:
        board.submitted(task)
    assert board.line() == "0/8 tasks done, 0 running, 6 in the queue, 2 remain"
    reasons = ["Priority", "Resources", "Resources", "Resources", "None", ""]
    for task, reason in zip(tasks[:6], reasons, strict=True):
        board.progressed(task, 0.0, tracked(Row("PENDING", reason, start="2026-01-01T10:00:00")).text())
    assert board.line() == "0/8 tasks done, 0 running, 6 in the queue (Resources 3, Priority 1), 2 remain"
    held = tracked(Row("PENDING", "JobHeldUser"))
    board.progressed(tasks[0], 0.0, held.text())
    assert "(Resources 3, JobHeldUser 1)" in board.line()


def test_a_task_whose_job_was_suspended_or_requeued_is_in_the_queue_again(clock):
    board, tasks = make_board(2)
    for task in tasks:
        board.submitted(task)
        board.started(task)
    suspended = tracked(Row("SUSPENDED", nodes="n1"))
    suspended.started, suspended.heartbeat = True, Heartbeat(message="epoch 1/3")
    board.submitted(tasks[0])
    board.progressed(tasks[0], 0.3, suspended.text())
    assert board.line() == "0/2 tasks done, 1 running, 1 in the queue (SUSPENDED 1), 0 remain"
    board.started(tasks[0])
    assert board.line() == "0/2 tasks done, 2 running, 0 remain"


def test_a_task_leaves_the_queue_when_it_starts_or_ends(clock):
    board, tasks = make_board(3)
    for task in tasks:
        board.submitted(task)
    board.started(tasks[0])
    board.ended(tasks[1], False, "cancelled", 0.0)
    assert board.line() == "0/3 tasks done, 1 running, 1 in the queue, 0 remain, 1 failed"
    board.submitted(tasks[1])  # Luigi tries again
    assert board.line() == "0/3 tasks done, 1 running, 2 in the queue, 0 remain"


def shown(board: Board) -> list[str]:
    return [str(text) for text in board._render().renderables]


def test_a_running_task_shows_job_node_epoch_metric_and_the_time_left(clock):
    board, (task, other) = make_board(2)
    for each in (task, other):
        board.submitted(each)
    board.progressed(other, 0.0, tracked(Row("PENDING", "Resources")).text())
    board.started(task)
    running = tracked(Row("RUNNING", "None", "n3"))
    running.started = True
    for epoch in (1, 2):
        clock.now += 30
        running.heartbeat = Heartbeat(host="n3", fraction=epoch / 10, message=f"epoch {epoch}/10, validation TopK1 0.9")
        board.progressed(task, running.heartbeat.fraction, running.text())
    _, first, second = shown(board)
    for words in ("task 0", "20%", "SLURM job 12_3 on n3", "epoch 2/10", "TopK1 0.9", "about 4 min left"):
        assert words in first
    assert "task 1" in second
    assert "pending (Resources)" in second


def test_the_time_left_leaves_out_what_was_done_before_a_resume():
    task = Running("t")
    task.update(0.6, "epoch 6/10", now=100.0)  # of an adopted job, or from a checkpoint
    assert task.seconds_left(100.0) is None
    task.update(0.7, "epoch 7/10", now=120.0)
    assert task.seconds_left(120.0) == pytest.approx(60.0)
    assert task.seconds_left(130.0) == pytest.approx(50.0)
    assert task.seconds_left(500.0) == 0.0


def test_a_requeued_task_has_no_pace_until_it_goes_on():
    task = Running("t")
    task.update(0.1, "", now=10.0)
    task.update(0.2, "", now=20.0)
    task.update(0.0, "back into the queue", now=21.0)
    assert task.seconds_left(3000.0) is None
    task.update(0.3, "", now=4000.0)
    assert task.seconds_left(4000.0) is None
    task.update(0.4, "", now=4010.0)
    assert task.seconds_left(4010.0) == pytest.approx(60.0)


def test_the_estimate_counts_on_what_the_site_runs_at_once(clock):
    board, tasks = make_board(9)
    for task in tasks:
        board.submitted(task)
    board.ended(tasks[0], True, "", 60.0)
    assert "left" not in board.line()  # nothing runs: unknown when the queue moves
    board.started(tasks[1])
    board.started(tasks[2])
    assert "about 4 min left" in board.line()  # 8 tasks of a minute, two at once, though 200 may be submitted


def test_trainings_that_share_a_job_are_estimated_as_one_job(clock):
    board, tasks = make_board(24, slots=1)
    for task in tasks[:8]:
        board.submitted(task)
        board.started(task)
    clock.now += 32.0
    for task in tasks[:4]:
        board.ended(task, True, "", 8.0)  # its share
    board.submitted(tasks[8])
    assert "3 min left" in board.line()  # 20 tasks of 8 s, though four run at once


def test_no_estimate_before_every_stage_has_ended_a_job(clock):
    board, tasks = make_board(108)
    for task in tasks[4:]:
        task.task_family = "Retrain"
        board.scheduled(task, PENDING)
    report = FakeTask("report", "Report")
    board.scheduled(report, PENDING)
    for task in tasks[:6]:
        board.submitted(task)
        board.started(task)
    clock.now += 40.0
    for task in tasks[:4]:
        board.ended(task, True, "", 3.0)
        assert "left" not in board.line()  # nobody has seen a Retrain, and those are most of the work
    clock.now += 40.0
    for task in tasks[4:6]:
        board.ended(task, True, "", 30.0)
    assert "left" not in board.line()  # six of 109 tasks, of which 103 could run at once
    for task in tasks[6:60]:
        clock.now += 1.0
        board.submitted(task)
        board.started(task)
        board.ended(task, True, "", 30.0)
    assert "left" in board.line()


def test_an_estimate_is_a_range_if_jobs_wait_longer_than_they_run(clock):
    board, tasks = make_board(20, slots=2)
    for task in tasks[:4]:
        board.submitted(task)
        board.started(task)
        clock.now += 60.0  # of which the job ran for 20 s
        board.ended(task, True, "", 20.0)
    board.submitted(tasks[4])
    board.started(tasks[4])
    assert board.line().endswith(", 3 min to 16 min left")
    board.ended(tasks[4], True, "", 0.0)
    clock.now += 6000.0
    board.submitted(tasks[5])
    board.started(tasks[5])
    assert "left" not in board.line()  # 2 minutes to 5 hours


def test_what_another_run_does_is_counted_and_part_of_the_estimate(clock):
    board, tasks = make_board(42, slots=2)
    for task in tasks[:11]:
        board.submitted(task)
        board.started(task)
        clock.now += 60.0
        board.ended(task, True, "", 60.0)
        board.done_elsewhere(tasks[41 - int(task.task_id)])
    board.computed_elsewhere(tasks[11], "in another run (process 7)")
    assert board.line().startswith(
        "22/42 tasks done (11 here, 11 by another run), 0 running, 1 running in another run, "
    )
    assert board.line().endswith(
        "19 remain, 7 min to 10 min left"
    )  # 20 minutes of work: by three at once, at this pace
    board.done_elsewhere(tasks[11])
    board.done_elsewhere(tasks[11])
    assert board.line().startswith("23/42 tasks done (11 here, 12 by another run)")
    board.ended(tasks[12], True, "", 60.0)
    assert "(12 here, 12 by another run)" in board.line()
