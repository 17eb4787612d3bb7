"""What a driver asks of SLURM, how often, and what it makes of answers that fail or lie."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from luigi_prune.execution import claims
from luigi_prune.execution.job import ComputeSettings
from luigi_prune.execution.slurm import slurm_backend as backend_module
from luigi_prune.execution.slurm import submission_queue
from luigi_prune.execution.slurm.options import Resources
from luigi_prune.execution.slurm.slurm_backend import SlurmBackend
from tests.slurm.fake_slurm import Driver, FakeJob, FakeSlurm, clock, driver, fake_slurm, make_driver
from tests.slurm.recording_listener import RecordingListener, site, submit, until

__all__ = ["clock", "driver", "fake_slurm", "make_driver"]

DISABLED = "Slurm accounting storage is disabled"


def gaps(driver: Driver) -> list[float]:
    return [round(later - earlier) for earlier, later in pairwise(driver.polls)]


def test_polls_get_rarer_while_nothing_happens_and_start_anew_with_news(driver: Driver, fake_slurm: FakeSlurm):
    driver.submit("a")
    driver.advance(2000)
    quiet = gaps(driver)
    assert quiet == sorted(quiet)
    assert quiet[0] <= 31
    assert quiet[-1] == 180
    fake_slurm.put("100", "PENDING", "Resources", nodes="", start="2030-01-01T00:00:00")  # a guess, no event
    driver.advance(400)
    assert gaps(driver)[-2:] == [180, 180]
    fake_slurm.put("100", "RUNNING")
    driver.advance(300)
    assert 20 in gaps(driver)[-6:]


def test_a_submission_brings_the_next_poll_forward(driver: Driver):
    driver.submit("a")
    driver.advance(1000)
    (later,) = driver.submit("b")
    polls, now = len(driver.polls), driver.clock.now
    driver.advance(25)
    assert len(driver.polls) > polls
    assert driver.polls[polls] - now <= 21
    assert "Priority" in later.messages[-1]


def test_the_number_of_questions_does_not_depend_on_the_number_of_jobs(make_driver: Any):
    calls = []
    for prefix, count in (("few", 1), ("many", 300)):
        driver = make_driver()
        listeners = driver.submit(*(f"{prefix}{number}" for number in range(count)))
        driver.advance(200)
        assert all("Priority" in listener.messages[-1] for listener in listeners)
        calls.append(driver.backend.client.calls)
    assert calls[0] == calls[1]
    assert calls[1]["sbatch"] == 1


@pytest.mark.parametrize("dead", [False, True])
def test_adopting_hundreds_of_jobs_one_by_one_asks_once(make_driver: Any, fake_slurm: FakeSlurm, dead: bool):
    """Luigi hands out tasks one after the other; these were submitted as three arrays."""
    with fake_slurm.state() as state:
        state["max_array_size"] = 101
    first, second = make_driver(), make_driver()
    tags = [f"job{number}" for number in range(300)]
    first.submit(*tags)
    if dead:
        with fake_slurm.state() as state:
            state["queue"].clear()
    listeners = []
    for start in range(0, 300, 20):
        listeners += [RecordingListener(second.job(tag)) for tag in tags[start : start + 20]]
        for listener in listeners[-20:]:
            second.backend.submit(listener.job, listener)
        second.backend._tick()
        second.advance(1)
    assert second.backend.client.calls["squeue"] == 1
    assert all(dead or "Priority" in listener.messages[-1] for listener in listeners)
    second.advance(100)
    assert second.backend.client.calls["sbatch"] in ((3, 4) if dead else (0,))


def test_a_driver_without_jobs_asks_nothing(driver: Driver, fake_slurm: FakeSlurm):
    (listener,) = driver.submit("a")
    FakeJob(listener).finish()
    driver.advance(60)
    assert listener.outcomes
    polls = len(driver.polls)
    driver.advance(9000)
    assert len(driver.polls) <= polls + 1


@pytest.mark.parametrize(("size", "parts"), [(4, [3, 3, 1]), (2, [1] * 7), (0, [1] * 7), (1001, [7])])
def test_arrays_are_split_at_the_limit_of_the_site(
    make_driver: Any, fake_slurm: FakeSlurm, size: int, parts: list[int]
):
    with fake_slurm.state() as state:
        state["max_array_size"] = size
    driver = make_driver()
    listeners = driver.submit(*(f"job{number}" for number in range(7)))
    assert len(fake_slurm.calls("sbatch")) == len(parts)
    masters = [FakeJob(listener).slurm_id.partition("_")[0] for listener in listeners]
    assert [masters.count(master) for master in dict.fromkeys(masters)] == parts


def test_squeue_may_fail_for_minutes(driver: Driver, fake_slurm: FakeSlurm):
    ending, lasting = driver.submit("a", "b")
    driver.advance(60)
    fake_slurm.fail("squeue", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)")
    fake_slurm.put("100_0", "CANCELLED")
    driver.advance(900)
    assert not ending.outcomes + lasting.outcomes
    fake_slurm.mend()
    driver.advance(200)
    assert "was cancelled" in ending.outcome().message
    driver.advance(600)
    assert not lasting.outcomes
    assert len(fake_slurm.calls("sbatch")) == 1


def test_jobs_that_finish_while_squeue_fails_are_done_all_the_same(driver: Driver, fake_slurm: FakeSlurm):
    (listener,) = driver.submit("a")
    fake_slurm.fail("squeue", "slurm_load_jobs error: Socket timed out on send/recv operation")
    FakeJob(listener).beat("epoch 1/3")
    driver.advance(300)
    assert listener.starts == 1
    FakeJob(listener).finish()
    driver.advance(5)
    assert listener.outcome().status == "done"


@pytest.mark.parametrize(
    "nonsense", ["squeue: warning: the controller is in standby", "100|RUNNING", "|||||", "\udcff"]
)
def test_what_is_no_answer_decides_nothing(
    driver: Driver, fake_slurm: FakeSlurm, nonsense: str, monkeypatch: pytest.MonkeyPatch
):
    (listener,) = driver.submit("a")
    driver.advance(60)
    asked = driver.backend.client.call
    answers = [nonsense]

    def call(*command: str) -> str:
        return asked(*command) + (answers.pop() + "\n" if command[0] == "squeue" and answers else "")

    monkeypatch.setattr(driver.backend.client, "call", call)
    driver.advance(600)
    assert not listener.outcomes
    assert len(fake_slurm.calls("sbatch")) == 1


def test_where_there_is_no_accounting_it_is_asked_once(driver: Driver, fake_slurm: FakeSlurm):
    fake_slurm.fail("sacct", DISABLED)
    listeners = driver.submit("a", "b")
    for number, listener in enumerate(listeners):
        FakeJob(listener).beat("epoch 1/3")
        driver.advance(5)
        fake_slurm.forget(f"100_{number}")
    driver.advance(600)
    assert len(fake_slurm.calls("sacct")) == 1
    assert [FakeJob(listener).claim.attempt for listener in listeners] == [2, 2]


def test_where_sacct_is_not_installed_it_is_not_missed(driver: Driver, fake_slurm: FakeSlurm, monkeypatch):
    (fake_slurm.bin / "sacct").unlink()
    monkeypatch.setenv("PATH", f"{fake_slurm.bin}:/nowhere")
    (listener,) = driver.submit("a")
    FakeJob(listener).beat("epoch 1/3")
    driver.advance(5)
    fake_slurm.forget("100")
    driver.advance(600)
    assert FakeJob(listener).claim.attempt == 2


def test_sacct_may_fail_for_a_while(driver: Driver, fake_slurm: FakeSlurm):
    fake_slurm.fail("sacct", "slurm_persist_conn_open_without_init: failed to open connection to host: not found")
    listener, other = driver.submit("a", "b")
    FakeJob(listener).beat("epoch 1/3")
    driver.advance(5)
    fake_slurm.forget("100_0")
    driver.advance(200)
    assert not listener.outcomes
    fake_slurm.account("100_0", "OUT_OF_MEMORY")
    fake_slurm.mend()
    driver.advance(200)
    assert "out of memory" in listener.outcome().message
    driver.advance(200)
    assert not other.outcomes
    assert len(fake_slurm.calls("sbatch")) == 1


def test_sacct_that_fails_for_ever_holds_nobody_up_and_condemns_nobody(driver: Driver, fake_slurm: FakeSlurm):
    listeners = driver.submit("a", "b")
    fake_slurm.account("100_1", "COMPLETED")
    fake_slurm.forget("100_1")
    FakeJob(listeners[1]).finish()
    driver.advance(60)
    assert listeners[1].outcomes  # and the accounting has answered once
    fake_slurm.fail("sacct", "Connection refused")
    fake_slurm.forget("100_0")
    driver.advance(1000)
    assert not listeners[0].outcomes
    assert FakeJob(listeners[0]).claim.attempt == 2


def test_what_the_accounting_believes_to_run_but_the_queue_has_forgotten_is_gone(driver: Driver, fake_slurm: FakeSlurm):
    (listener,) = driver.submit("a")
    fake_slurm.account("100", "RUNNING")
    fake_slurm.forget("100")
    driver.advance(600)
    assert not listener.outcomes
    assert FakeJob(listener).claim.attempt == 2


def test_a_pending_job_without_a_record_was_cancelled(driver: Driver, fake_slurm: FakeSlurm):
    (listener,) = driver.submit("a")
    fake_slurm.forget("100")
    driver.advance(600)
    assert "left the queue before it started" in listener.outcome().message
    assert len(fake_slurm.calls("sbatch")) == 1


def abandoned(driver: Driver, *tags: str) -> list[RecordingListener]:
    """Return listeners to jobs of a driver that died before it wrote the ids down."""
    listeners = driver.submit(*tags)
    claim = claims.newest(listeners[0].job.output)
    assert claim is not None
    for path in driver.folder.glob("slurm/lp-*/submitted.json"):
        path.unlink()
    for listener in listeners:
        path = claims.claim_path(listener.job.output, 1)
        path.write_text(path.read_text().replace(claim.born, "another boot"))
    return listeners


@pytest.mark.parametrize("forgotten", [False, True])
def test_jobs_without_an_id_are_found_by_their_name(make_driver: Any, fake_slurm: FakeSlurm, forgotten: bool):
    first, second = make_driver(), make_driver()
    abandoned(first, "a", "b")
    if forgotten:
        for number in (0, 1):
            fake_slurm.forget(f"100_{number}")
            fake_slurm.account(f"100_{number}", "OUT_OF_MEMORY")
    listeners = second.submit("a", "b")
    second.advance(600)
    if forgotten:  # what another driver has left dead is tried again
        assert [FakeJob(listener).slurm_id for listener in listeners] == ["101_0", "101_1"]
    else:
        assert [FakeJob(listener).slurm_id for listener in listeners] == ["100_0", "100_1"]
        assert len(fake_slurm.calls("sbatch")) == 1


def test_a_job_without_an_id_holds_up_no_others_while_sacct_fails(make_driver: Any, fake_slurm: FakeSlurm):
    first, second = make_driver(), make_driver()
    abandoned(first, "a")
    fake_slurm.forget("100")
    fake_slurm.fail("sacct", "Connection refused")
    lost, other = second.submit("a", "b")
    fake_slurm.put("101", "CANCELLED")
    second.advance(300)
    assert other.outcomes
    assert not lost.outcomes
    fake_slurm.mend()
    second.advance(300)
    assert FakeJob(lost).claim.attempt == 2


def test_the_thread_does_all_this_by_itself(fake_slurm: FakeSlurm, tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(backend_module, "_TICK_SECONDS", 0.05)
    monkeypatch.setattr(submission_queue, "BACK_OFF_SECONDS", 0.05)
    fake_slurm.fail("sbatch", "Socket timed out on send/recv operation", times=1)
    settings = site(Resources(), poll_seconds=0.2, poll_seconds_max=0.4, gather_seconds=0.1)
    backend = SlurmBackend(ComputeSettings(backend="slurm", device="cpu", own=settings))
    try:
        template = Driver.job(type("Folder", (), {"folder": tmp_path})(), "a")
        listener = submit(backend, template)
        until(lambda: "Priority" in "".join(listener.messages), 60)
        FakeJob(listener).finish()
        assert listener.outcome().status == "done"
    finally:
        backend.close()
    assert "2 sbatch" in backend.remark()
