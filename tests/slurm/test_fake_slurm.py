"""The rare rows of the state table, on a SLURM that a test commands: what becomes of jobs that end strangely."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from luigi_prune.execution.job import Outcome
from luigi_prune.execution.slurm import decisions
from luigi_prune.execution.slurm import tracked_job as tracked_job_module
from luigi_prune.execution.slurm.options import Resources
from luigi_prune.execution.slurm.slurm_jobs import SlurmJobs
from luigi_prune.identity.paths import checkpoint_path
from tests.slurm.fake_slurm import Driver, FakeJob, FakeSlurm, clock, driver, fake_slurm, make_driver
from tests.slurm.recording_listener import RecordingListener

__all__ = ["clock", "driver", "fake_slurm", "make_driver"]

POLL, GRACE, REQUEUE = 45.0, 31.0, 301.0  # a poll and a half; the default timeouts


def running(driver: Driver, slurm_id: str = "100", tag: str = "a") -> tuple[RecordingListener, FakeJob]:
    """Return a job that runs on n1 and has written a heartbeat."""
    (listener,) = driver.submit(tag)
    driver.slurm.put(slurm_id, "RUNNING")
    fake_job = FakeJob(listener)
    fake_job.beat("epoch 1/3")
    driver.advance(POLL)
    assert listener.starts == 1
    return listener, fake_job


def excluded(script: str) -> list[str]:
    return re.findall(r"^#SBATCH --exclude=(.*)$", script, re.M)


def test_a_job_goes_from_the_queue_to_its_result(driver: Driver, fake_slurm: FakeSlurm):
    first, second = driver.submit("a", "b")
    fake_jobs = [FakeJob(listener) for listener in (first, second)]
    assert [fake_job.slurm_id for fake_job in fake_jobs] == ["100_0", "100_1"]
    fake_slurm.put("100_0", "PENDING", "Priority", start="2030-01-01T08:00:00")
    driver.advance(POLL)
    assert first.messages[-1] == "SLURM job 100_0 pending (Priority, expected to start 2030-01-01 08:00:00)"
    assert not first.starts
    fake_slurm.put("100_0", "RUNNING")
    fake_jobs[0].beat("epoch 1/3")
    driver.advance(2)
    assert first.starts == 1
    assert first.messages[-1].endswith("on n1: epoch 1/3")
    fake_jobs[0].finish()
    driver.advance(2)
    assert first.outcome().status == "done"
    assert Path(first.job.output).exists()
    assert not second.outcomes


def test_a_job_runs_to_its_end_as_its_script_says(driver: Driver, fake_slurm: FakeSlurm, monkeypatch):
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    (listener,) = driver.submit("a")
    fake_slurm.run("100")
    driver.advance(POLL)
    assert listener.result()["job_id"] == "100"
    assert listener.starts == 1
    assert Path(listener.job.log).read_text().count("process 1 of 1") == 1


@pytest.mark.parametrize("state", ["REQUEUE_HOLD", "SPECIAL_EXIT"])
def test_a_held_job_waits_for_somebody_and_says_so(driver: Driver, fake_slurm: FakeSlurm, state: str):
    (listener,) = driver.submit("a")
    fake_slurm.put("100", state, "JobHeldAdmin", nodes="")
    driver.advance(300)
    assert not listener.outcomes
    assert "HELD: it needs `scontrol release`" in listener.messages[-1]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"state": "PENDING", "reason": "BeginTime"}, "requeued, pending (BeginTime)"),
        ({"state": "REQUEUED", "reason": "None"}, "requeued, requeued (None)"),
        ({"state": "PENDING", "reason": "job requeued in held state", "priority": "0"}, "HELD: it needs `scontrol"),
        ({"state": "REQUEUE_HOLD", "reason": "None"}, "HELD: it needs `scontrol"),
        ({"state": "SUSPENDED"}, "(SUSPENDED) on n1: epoch 1/3"),
        ({"state": "NODE_FAIL"}, "(NODE_FAIL) on n1: lost; SLURM may requeue it"),
    ],
)
def test_a_job_that_runs_no_more_is_shown_so_and_runs_again(
    driver: Driver, fake_slurm: FakeSlurm, row: dict[str, str], words: str
):
    listener, fake_job = running(driver)
    fake_slurm.put("100", **row)
    driver.advance(100)
    assert words in listener.messages[-1]
    assert (listener.starts, listener.requeues) == (1, 1)
    (place,) = SlurmJobs().where([Path(listener.job.output)]).values()
    assert words in place.text
    assert not place.running
    if row["state"] == "SUSPENDED":
        fake_slurm.put("100", "RUNNING")
        fake_job.beat("epoch 2/3")
    else:
        fake_job.beat("epoch 2/3", restart=1)  # newer than SLURM's last answer
    driver.advance(7)
    assert listener.messages[-1] == "SLURM job 100 on n1: epoch 2/3"
    assert (listener.starts, listener.requeues) == (2, 1)
    assert not listener.outcomes


@pytest.mark.parametrize(
    ("log", "killed"),
    [
        ("slurmstepd-n1: error: StepId=100.0 exceeded memory limit (313 > 52), being killed", True),
        ("slurmstepd: error: Detected 1 oom-kill event(s) in StepId=100.0.", True),
        ("srun: error: n1: task 0: Killed", False),
    ],
)
def test_a_job_over_its_memory_shows_slurms_message_and_is_not_retried(
    driver: Driver, fake_slurm: FakeSlurm, log: str, killed: bool
):
    """Without cgroups SLURM's state is FAILED, and the process was told to stop first."""
    listener, fake_job = running(driver)
    start_log = Path(fake_job.claim.folder) / "100_0_log.out"
    start_log.write_text(f"{log}\n")
    if killed:
        fake_job.beat(outcome=Outcome("interrupted", "stopped"))
    fake_slurm.put("100", "FAILED", "NonZeroExitCode")
    driver.advance(60 + GRACE)
    outcome = listener.outcome()
    assert log in outcome.message
    assert ("out of memory" in outcome.message) is killed
    assert outcome.retry is not killed
    assert outcome.log == str(start_log)  # the job has no log of its own
    assert start_log.exists()
    assert len(fake_slurm.calls("sbatch")) == 1


def test_many_jobs_that_are_lost_at_once_are_one_line(
    driver: Driver, fake_slurm: FakeSlurm, caplog: pytest.LogCaptureFixture
):
    fake_slurm.fail("sacct", "Slurm accounting storage is disabled")
    driver.submit(*(f"job{number}" for number in range(40)))
    with fake_slurm.state() as state:
        state["queue"].clear()
    driver.advance(100)
    assert [record.getMessage() for record in caplog.records if "submitted again" in record.getMessage()] == [
        "job0 (SLURM job 100_0) and 39 more: SLURM does not know the job any more; submitted again"
    ]


@pytest.mark.parametrize("state", ["SUSPENDED", "STOPPED", "RESIZING", "STAGE_OUT", "SIGNALING", "PONDERING"])
def test_a_job_in_a_strange_state_is_alive(driver: Driver, fake_slurm: FakeSlurm, state: str):
    listener, fake_job = running(driver)
    fake_slurm.put("100", state)
    driver.advance(300)
    assert not listener.outcomes
    if decisions.STATES.get(state) == "paused":
        assert f"({state})" in listener.messages[-1]
    fake_slurm.put("100", "RUNNING")
    fake_job.finish()
    driver.advance(POLL)
    assert listener.outcome().status == "done"
    assert len(fake_slurm.calls("sbatch")) == 1


@pytest.mark.parametrize(
    ("state", "words", "retry"),
    [
        ("OUT_OF_MEMORY", "out of memory", False),
        ("DEADLINE", "its deadline passed", False),
        ("FAILED", "the SLURM job failed", True),
        ("COMPLETED", "without an error and without a result", True),
        ("TIMEOUT", "larger timeout_min", False),
        ("CANCELLED", "was cancelled", False),
    ],
)
@pytest.mark.parametrize("forgotten", [False, True])
def test_a_job_that_ends_badly_has_failed(
    driver: Driver, fake_slurm: FakeSlurm, state: str, words: str, retry: bool, forgotten: bool
):
    listener, _ = running(driver)
    Path(listener.job.log).parent.mkdir(exist_ok=True)
    Path(listener.job.log).write_text("the last line of the log\n")
    fake_slurm.put("100", state)
    fake_slurm.account("100", state)
    if forgotten:
        fake_slurm.forget("100")
    driver.advance(60 + GRACE)
    outcome = listener.outcome()
    assert (outcome.status, outcome.retry) == ("failed", retry)
    assert words in outcome.message
    assert "SLURM job 100" in outcome.message
    assert "the last line of the log" in outcome.message
    assert len(fake_slurm.calls("sbatch")) == 1


def test_a_job_that_the_site_preempted_may_come_back_by_itself(driver: Driver, fake_slurm: FakeSlurm):
    listener, fake_job = running(driver)
    fake_slurm.put("100", "PREEMPTED")
    driver.advance(200)
    fake_slurm.put("100", "PENDING", "BeginTime", nodes="")
    driver.advance(300)
    assert not listener.outcomes
    fake_slurm.put("100", "RUNNING", nodes="n2")
    fake_job.beat("epoch 2/3", restart=1)
    fake_job.finish()
    driver.advance(POLL)
    assert listener.outcome().status == "done"
    assert len(fake_slurm.calls("sbatch")) == 1


@pytest.mark.parametrize("state", ["PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "LAUNCH_FAILED", "REVOKED"])
def test_a_job_that_was_taken_away_is_submitted_again_without_the_node_that_failed(
    driver: Driver, fake_slurm: FakeSlurm, state: str
):
    listener, _ = running(driver)
    fake_slurm.put("100", state, nodes="n3")
    driver.advance(60 + REQUEUE)
    assert not listener.outcomes
    assert len(fake_slurm.calls("sbatch")) == 2
    blamed = state in ("NODE_FAIL", "BOOT_FAIL", "LAUNCH_FAILED")
    assert excluded(fake_slurm.script("101")) == (["n3"] if blamed else [])
    fake_job = FakeJob(listener)
    assert (fake_job.slurm_id, fake_job.claim.attempt) == ("101", 2)
    fake_job.finish()
    driver.advance(5)
    assert listener.outcome().status == "done"


def test_of_several_nodes_those_are_excluded_that_slurm_has_taken_out_of_service(make_driver, fake_slurm: FakeSlurm):
    driver = make_driver(Resources(nodes=3, sbatch=(("exclude", "n9"),)))
    running(driver)
    with fake_slurm.state() as state:
        state["broken"] = ["n2", "n2"]
    fake_slurm.put("100", "NODE_FAIL", nodes="n[1-2,4]")
    driver.advance(60 + REQUEUE)
    assert excluded(fake_slurm.script("101")) == ["n9,n2"]
    assert fake_slurm.calls("sinfo")[0][2] == "--nodes=n[1-2,4]"


def test_where_no_node_is_left_those_that_failed_are_tried_again(driver: Driver, fake_slurm: FakeSlurm):
    listener, _ = running(driver)
    fake_slurm.put("100", "NODE_FAIL", nodes="n3")
    fake_slurm.fail("sbatch", "Batch job submission failed: Requested node configuration is not available", times=1)
    driver.advance(60 + REQUEUE)
    assert not listener.outcomes
    assert len(fake_slurm.calls("sbatch")) == 3
    assert excluded(fake_slurm.script("101")) == []


def test_a_job_over_its_time_limit_goes_on_as_long_as_checkpoints_get_newer(driver: Driver, fake_slurm: FakeSlurm):
    listener, _ = running(driver)
    checkpoint_path(listener.job.output).write_text("epoch 2")
    fake_slurm.put("100", "TIMEOUT")
    driver.advance(POLL)
    assert FakeJob(listener).slurm_id == "101"
    fake_slurm.put("101", "RUNNING")
    FakeJob(listener).beat("epoch 3/9")
    driver.advance(POLL)
    fake_slurm.put("101", "TIMEOUT")
    driver.advance(100 + GRACE)
    assert "larger timeout_min" in listener.outcome().message
    assert len(fake_slurm.calls("sbatch")) == 2


def test_a_job_that_never_gets_anywhere_is_given_up(driver: Driver, fake_slurm: FakeSlurm):
    listener, fake_job = running(driver)
    for restart in range(1, tracked_job_module.MAX_FRUITLESS_RESTARTS + 1):
        fake_slurm.put("100", "PENDING", "BeginTime")
        driver.advance(100)
        fake_slurm.put("100", "RUNNING")
        fake_job.beat("epoch 1/3", restart=restart)
        assert not listener.outcomes
        driver.advance(POLL)
    assert "started 4 times without a newer checkpoint" in listener.outcome().message
    assert not listener.outcome().retry
    assert fake_slurm.calls("scancel") == [["100"]]


def test_a_lost_job_is_submitted_again_and_not_for_ever(driver: Driver, fake_slurm: FakeSlurm):
    fake_slurm.fail("sacct", "Slurm accounting storage is disabled")
    (listener,) = driver.submit("a")
    for attempt in range(tracked_job_module.MAX_FRUITLESS_RESTARTS + 1):
        assert not listener.outcomes
        assert FakeJob(listener).claim.attempt == attempt + 1
        fake_slurm.forget(str(100 + attempt))
        driver.advance(300)
    outcome = listener.outcome()
    assert (outcome.status, outcome.retry) == ("failed", False)
    assert "submitted 4 times but never started; SLURM does not know the job any more" in outcome.message
    assert len(fake_slurm.calls("sbatch")) == 4


def test_a_job_that_slurm_has_forgotten_and_has_a_fresh_heartbeat_is_not_lost(
    driver: Driver, fake_slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
):
    fake_slurm.fail("sacct", "Slurm accounting storage is disabled")
    listener, fake_job = running(driver)
    fake_slurm.forget("100")
    for beat in range(30):
        fake_job.beat(f"step {beat}")
        driver.advance(10)
    assert len(fake_slurm.calls("sbatch")) == 1
    fake_slurm.put("100", "RUNNING")  # the controller has read its memory
    driver.advance(600)
    assert len(fake_slurm.calls("sbatch")) == 1
    fake_job.finish()
    driver.advance(5)
    assert listener.outcome().status == "done"


def test_one_answer_without_a_job_means_nothing(driver: Driver, fake_slurm: FakeSlurm):
    fake_slurm.fail("sacct", "Slurm accounting storage is disabled")
    (listener,) = driver.submit("a")
    driver.advance(POLL)
    polls = len(driver.polls)
    with fake_slurm.state() as state:
        row = state["queue"].pop("100")
    while len(driver.polls) == polls:
        driver.advance(1)
    with fake_slurm.state() as state:
        state["queue"]["100"] = row
    driver.advance(300)
    assert len(fake_slurm.calls("sbatch")) == 1
    assert not listener.outcomes


def test_a_result_may_be_seen_late_but_not_too_late(driver: Driver, fake_slurm: FakeSlurm):
    first, second = driver.submit("a", "b")
    for listener in (first, second):
        FakeJob(listener).finish(result=False)
        fake_slurm.put(FakeJob(listener).slurm_id, "COMPLETED")
    while not driver.polls:
        driver.advance(1)
    driver.advance(GRACE - 5)
    assert not first.outcomes + second.outcomes
    Path(first.job.output).write_text("{}")
    driver.advance(2)
    assert first.outcome().status == "done"
    driver.advance(10)
    assert "is the folder shared?" in second.outcome().message
    assert len(fake_slurm.calls("sbatch")) == 1


def test_a_result_that_another_way_has_brought_ends_a_job_that_only_waits(driver: Driver, fake_slurm: FakeSlurm):
    (listener,) = driver.submit("a")
    Path(listener.job.output).write_text("{}")
    driver.advance(POLL)
    assert listener.outcome().status == "done"
    assert fake_slurm.calls("scancel") == [["100"]]


def test_what_one_of_several_processes_says_counts_when_slurm_has_spoken(make_driver: Any, fake_slurm: FakeSlurm):
    driver = make_driver(Resources(processes_per_node=2))
    listener, fake_job = running(driver)
    fake_job.beat(outcome=Outcome("failed", "gloo: connection reset by peer"))
    fake_slurm.put("100", "FAILED")
    log = Path(fake_job.claim.folder) / "100_0_log.out"
    log.write_text("srun: error: n1: task 1: Killed\n")
    driver.advance(POLL)
    assert "task 1: Killed" in listener.outcome().message
    assert listener.outcome().retry
