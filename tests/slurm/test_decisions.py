"""The state table: every state, with and without a result, for every reported outcome."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from luigi_prune.execution.job import Outcome
from luigi_prune.execution.slurm.decisions import IN_QUEUE, STATES, WAIT, Decision, Observation, Timeouts, decide

TIMEOUTS = Timeouts(grace=30, requeue=300)
LONG = 10_000.0
RUNNING = ("RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING")
WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "RESV_DEL_HOLD", "POWER_UP_NODE", "EXPEDITING")
HELD = ("REQUEUE_HOLD", "SPECIAL_EXIT")
PAUSED = ("SUSPENDED", "STOPPED", "RESIZING")
LOST = ("PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "LAUNCH_FAILED", "REVOKED")
ENDED = ("COMPLETED", "FAILED", "OUT_OF_MEMORY", "DEADLINE", "TIMEOUT", "CANCELLED")
UNKNOWN = "QUANTUM_SUPERPOSED"
DONE, INTERRUPTED = Outcome("done"), Outcome("interrupted", "stopped behind step 3")
FAILED = Outcome("failed", "ValueError: the seventh layer is missing", retry=False)


def decision(state: str, seconds: float = LONG, **more: object) -> Decision:
    return decide(Observation(state=state, seconds=seconds, **more), TIMEOUTS)  # type: ignore[arg-type]


def test_the_table_has_every_state_once():
    assert sorted(STATES) == sorted((*RUNNING, *WAITING, *HELD, *PAUSED, *LOST, *ENDED))


@pytest.mark.parametrize("state", [*RUNNING, *WAITING, *HELD, *PAUSED, UNKNOWN])
@pytest.mark.parametrize("outcome", [None, INTERRUPTED, DONE])
@pytest.mark.parametrize(
    "more", [{}, {"started": True, "checkpoint_advanced": True}, {"unrecorded": True, "parallel": True}]
)
def test_jobs_in_the_queue_are_waited_for(state: str, outcome: Outcome | None, more: dict[str, bool]):
    assert decision(state, outcome=outcome, **more) == WAIT


@pytest.mark.parametrize("state", [*RUNNING, *PAUSED, UNKNOWN])
def test_a_result_is_not_taken_from_under_a_job_that_may_still_be_writing(state: str):
    assert decision(state, result_exists=True) == WAIT
    assert decision(state, result_exists=True, outcome=DONE) == Decision("done")


@pytest.mark.parametrize("state", [*WAITING, *HELD])
def test_a_job_whose_result_is_there_before_it_runs_is_cancelled(state: str):
    assert decision(state, result_exists=True) == Decision("done", cancel=True)


@pytest.mark.parametrize("state", [*ENDED, *LOST, ""])
@pytest.mark.parametrize("outcome", [None, INTERRUPTED, DONE, FAILED])
@pytest.mark.parametrize("seconds", [0, LONG])
def test_a_result_is_a_success_however_the_job_ended(state: str, outcome: Outcome | None, seconds: float):
    assert decision(state, seconds, result_exists=True, outcome=outcome) == Decision("done")


@pytest.mark.parametrize(
    ("state", "words", "retry"),
    [
        ("COMPLETED", "ended without an error and without a result", True),
        ("FAILED", "the SLURM job failed (exit code 1:0)", True),
        ("OUT_OF_MEMORY", "smaller batches or a larger mem_gb", False),
        ("DEADLINE", "its deadline passed", False),
        ("TIMEOUT", "needs a larger timeout_min", False),
    ],
)
def test_a_job_that_ended_without_a_result_has_failed_after_the_grace_period(state: str, words: str, retry: bool):
    assert decision(state, TIMEOUTS.grace - 1, reason="exit code 1:0") == WAIT
    found = decision(state, TIMEOUTS.grace, reason="exit code 1:0")
    assert (found.action, found.retry) == ("fail", retry)
    assert words in found.message
    if state in ("OUT_OF_MEMORY", "TIMEOUT"):  # alone, it may have enough
        assert decision(state, TIMEOUTS.grace, together=True).retry


def test_a_job_over_its_time_limit_goes_on_where_its_checkpoint_is_newer():
    found = decision("TIMEOUT", 0, checkpoint_advanced=True)
    assert (found.action, found.exclude) == ("resubmit", "")


def test_a_cancelled_job_has_failed_at_once_and_for_good():
    for outcome in (None, INTERRUPTED):
        found = decision("CANCELLED", 0, outcome=outcome)
        assert (found.action, found.retry) == ("fail", False)
        assert "was cancelled" in found.message


def test_a_job_cancelled_after_reporting_its_end_gets_the_grace_that_its_result_needs():
    assert decision("CANCELLED", 0, outcome=DONE) == WAIT
    assert not decision("CANCELLED", outcome=DONE).retry


@pytest.mark.parametrize("state", LOST)
def test_a_lost_job_may_be_requeued_and_is_else_submitted_again(state: str):
    assert decision(state, TIMEOUTS.requeue - 1, nodes="n3") == WAIT
    found = decision(state, TIMEOUTS.requeue, nodes="n3")
    assert found.action == "resubmit"
    assert found.exclude == ("n3" if state in ("NODE_FAIL", "BOOT_FAIL", "LAUNCH_FAILED") else "")


@pytest.mark.parametrize("state", ["COMPLETED", "FAILED"])
def test_a_job_that_stopped_when_asked_to_is_submitted_again(state: str):
    assert decision(state, 0, outcome=INTERRUPTED).action == "resubmit"


def test_a_job_unknown_to_slurm_is_submitted_again_unless_its_heartbeat_is_fresh():
    assert decision("").action == "resubmit"
    assert decision("", started=True, unrecorded=True).action == "resubmit"
    assert decision("", heartbeat_fresh=True, started=True) == WAIT


def test_a_job_that_never_began_and_has_no_record_was_cancelled_in_the_queue():
    found = decision("", unrecorded=True)
    assert (found.action, found.retry) == ("fail", False)


@pytest.mark.parametrize("state", [*ENDED, *LOST, "", *RUNNING, *WAITING, UNKNOWN])
def test_a_reported_failure_counts_at_once(state: str):
    found = decision(state, 0, outcome=FAILED)
    assert found.action == "fail"
    if state != "CANCELLED":
        assert found.message.endswith(FAILED.message)
        assert not found.retry
        assert found.message.startswith("out of memory") == (state == "OUT_OF_MEMORY")


LINE = "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=1.0. Some of your processes may have been killed."


@pytest.mark.parametrize(
    ("state", "more"),
    [
        ("OUT_OF_MEMORY", {}),
        ("OUT_OF_MEMORY", {"memory": LINE}),
        ("FAILED", {"memory": LINE}),  # a site without cgroups
        ("FAILED", {"reason": "exit code 0:125"}),
    ],
)
@pytest.mark.parametrize("outcome", [None, INTERRUPTED, replace(FAILED, retry=True)])
def test_a_job_over_its_memory_is_not_retried_with_the_same_memory(
    state: str, more: dict[str, str], outcome: Outcome | None
):
    """Its processes may have been told to stop first, which alone would be a reason to submit it again."""
    found = decision(state, outcome=outcome, checkpoint_advanced=True, **more)
    assert (found.action, found.retry) == ("fail", False)
    assert found.message.startswith("out of memory: smaller batches or a larger mem_gb help")
    assert more.get("memory", "") in found.message


@pytest.mark.parametrize("reason", ["JobLaunchFailure", "exit code 0:53"])
def test_a_job_that_could_not_be_launched_asks_for_the_results_folder(reason: str):
    found = decision("FAILED", reason=reason, nodes="n7")
    assert "on n7: is the results folder visible there?" in found.message
    assert found.retry


@pytest.mark.parametrize("state", [*RUNNING, *WAITING])
def test_of_several_processes_the_first_failure_is_waited_for(state: str):
    assert decision(state, 0, outcome=FAILED, parallel=True) == WAIT
    assert decision(state, outcome=FAILED, parallel=True).action == "fail"


@pytest.mark.parametrize("state", [*ENDED, *LOST, ""])
def test_a_result_that_a_job_has_written_may_be_seen_late(state: str):
    assert decision(state, TIMEOUTS.grace - 1, outcome=DONE) == WAIT
    found = decision(state, TIMEOUTS.grace, outcome=DONE)
    assert found.action == "fail"
    assert "is the folder shared" in found.message


outcomes = st.none() | st.builds(
    Outcome, status=st.sampled_from(["done", "failed", "damaged", "interrupted"]), message=st.text(max_size=5)
)
observations = st.builds(
    Observation,
    state=st.sampled_from([*STATES, ""]) | st.text(st.characters(categories=["Lu"]), min_size=1, max_size=9),
    reason=st.text(max_size=5),
    nodes=st.sampled_from(["", "n1", "n[1-2]"]),
    seconds=st.floats(0, 1e6),
    outcome=outcomes,
    **{
        name: st.booleans()
        for name in ("result_exists", "started", "heartbeat_fresh", "checkpoint_advanced", "parallel", "unrecorded")
    },
)
all_timeouts = st.builds(Timeouts, st.floats(0, 1e4), st.floats(0, 1e4))


@hypothesis_settings(deadline=None)
@given(observations, all_timeouts)
def test_only_a_result_is_a_success_and_a_job_in_the_queue_never_a_failure(observed: Observation, timeouts: Timeouts):
    found = decide(observed, timeouts)
    in_queue = observed.state != "" and STATES.get(observed.state, "running") in IN_QUEUE
    if found.action == "done":
        assert observed.result_exists
    if observed.result_exists:
        assert found.action in ("done", "wait")
    if in_queue and (observed.outcome is None or observed.outcome.status in ("interrupted", "done")):
        assert found.action in ("wait", "done")
    if found.action == "fail":
        assert found.message or (observed.outcome is not None and observed.outcome.message == "")
    if found.cancel:
        assert in_queue
        assert found.action == "done"
    if found.exclude:
        assert found.action == "resubmit"


@hypothesis_settings(deadline=None)
@given(observations, all_timeouts)
def test_waiting_for_a_job_out_of_the_queue_ends(observed: Observation, timeouts: Timeouts):
    over = observed.state == "" or (STATES.get(observed.state, "running") not in IN_QUEUE)
    if over:
        later = replace(observed, seconds=max(timeouts.grace, timeouts.requeue), heartbeat_fresh=False)
        assert decide(later, timeouts).action != "wait"


@hypothesis_settings(deadline=None)
@given(observations, all_timeouts, st.text(st.characters(categories=["Lu"]), min_size=1))
def test_an_unknown_state_means_running(observed: Observation, timeouts: Timeouts, word: str):
    if word not in STATES:
        assert decide(replace(observed, state=word), timeouts) == decide(replace(observed, state="RUNNING"), timeouts)
