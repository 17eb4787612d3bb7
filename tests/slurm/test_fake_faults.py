"""What a site can do to a driver: commands that fail, refuse, hang or forget, on a SLURM that a test commands."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from luigi_prune.execution import claims
from luigi_prune.execution.slurm import submission, submission_queue
from tests.slurm.fake_slurm import Driver, FakeJob, FakeSlurm, clock, driver, fake_slurm, make_driver
from tests.slurm.recording_listener import RecordingListener

__all__ = ["clock", "driver", "fake_slurm", "make_driver"]

LONGER_THAN_BACK_OFF = submission_queue.BACK_OFF_SECONDS + 2


def left_in(folder: Path) -> list[str]:
    """Return what lies beside the results and in the folder of submissions."""
    found = [path for path in folder.rglob("*") if "fake" not in path.parts and path.is_file()]
    return sorted(path.name for path in found)


@pytest.mark.parametrize(
    "says",
    [
        "AssocMaxSubmitJobLimit\nsbatch: error: Batch job submission failed: Job violates accounting/QOS policy"
        " (job submit limit, user's size and/or time limits)",
        "Batch job submission failed: Socket timed out on send/recv operation",
        "Batch job submission failed: Unable to contact slurm controller (connect failure)",
        "Batch job submission failed: Zero Bytes were transmitted or received",
        "Slurm temporarily unable to accept job, sleeping and retrying",
    ],
)
def test_jobs_that_a_busy_site_does_not_take_stay_in_line(driver: Driver, fake_slurm: FakeSlurm, says: str):
    fake_slurm.fail("sbatch", says, times=2)
    first, second = driver.submit("a", "b")
    assert len(fake_slurm.calls("sbatch")) == 1
    assert claims.newest(first.job.output) is None  # others may try
    driver.advance(LONGER_THAN_BACK_OFF)
    assert len(fake_slurm.calls("sbatch")) == 2
    driver.advance(LONGER_THAN_BACK_OFF)
    assert len(fake_slurm.calls("sbatch")) == 3
    assert not first.outcomes + second.outcomes
    FakeJob(first).finish()
    FakeJob(second).finish()
    driver.advance(5)
    assert [listener.outcome().status for listener in (first, second)] == ["done", "done"]
    assert left_in(driver.folder) == ["a.json", "b.json"]


def test_who_joins_the_line_while_the_site_is_busy_goes_with_the_others(driver: Driver, fake_slurm: FakeSlurm):
    fake_slurm.fail("sbatch", "Socket timed out on send/recv operation", times=1)
    (first,) = driver.submit("a")
    (second,) = driver.submit("b")
    driver.advance(LONGER_THAN_BACK_OFF)
    assert len(fake_slurm.calls("sbatch")) == 2
    assert [FakeJob(listener).slurm_id for listener in (first, second)] == ["100_0", "100_1"]


def test_a_submission_that_only_seemed_to_fail_is_not_made_twice(driver: Driver, fake_slurm: FakeSlurm):
    fake_slurm.fail("sbatch", "Batch job submission failed: Socket timed out on send/recv operation", 1, silently=True)
    (listener,) = driver.submit("a")
    driver.advance(LONGER_THAN_BACK_OFF)
    with fake_slurm.state() as state:
        states = {job_id: row["state"] for job_id, row in state["queue"].items()}
    assert states == {"100": "CANCELLED", "101": "PENDING"}
    assert FakeJob(listener).slurm_id == "101"


def test_nothing_is_submitted_while_nobody_knows_what_became_of_it(driver: Driver, fake_slurm: FakeSlurm):
    fake_slurm.fail("sbatch", "Socket timed out on send/recv operation", 1)
    fake_slurm.fail("scancel", "Unable to contact slurm controller (connect failure)", 2)
    (listener,) = driver.submit("a")
    driver.advance(2 * LONGER_THAN_BACK_OFF)
    assert len(fake_slurm.calls("sbatch")) == 1
    driver.advance(2 * LONGER_THAN_BACK_OFF)
    assert len(fake_slurm.calls("sbatch")) == 2
    assert not listener.outcomes


@pytest.mark.parametrize(
    "says",
    [
        "Batch job submission failed: Invalid account or account/partition combination specified",
        "Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)",
        "QOSMaxWallDurationPerJobLimit\nsbatch: error: Batch job submission failed: Job violates accounting/QOS policy"
        " (job submit limit, user's size and/or time limits)",
    ],
)
def test_a_job_that_the_site_never_takes_has_failed_with_its_words(driver: Driver, fake_slurm: FakeSlurm, says: str):
    fake_slurm.fail("sbatch", says)
    (listener,) = driver.submit("a")
    outcome = listener.outcome()
    assert (outcome.status, outcome.retry) == ("failed", False)
    assert says.splitlines()[-1].removeprefix("sbatch: error: ") in outcome.message
    assert left_in(driver.folder) == []
    driver.advance(2 * LONGER_THAN_BACK_OFF)
    assert len(fake_slurm.calls("sbatch")) == 1


def test_what_another_driver_computes_is_not_submitted_when_the_site_is_free_again(
    make_driver: Any, fake_slurm: FakeSlurm
):
    """One array of which a part is claimed elsewhere is refused for the moment: that part must not come back."""
    mine, other = make_driver(), make_driver()
    backend, wanted = mine.backend, [RecordingListener(mine.job(tag)) for tag in ("a", "b")]
    for listener in wanted:
        backend.submit(listener.job, listener)
    backend._tick()
    (theirs,) = other.submit("b")
    fake_slurm.fail("sbatch", "Socket timed out on send/recv operation", 1)
    mine.advance(2 * LONGER_THAN_BACK_OFF)
    assert [FakeJob(listener).slurm_id for listener in (*wanted, theirs)] == ["101", "100", "100"]
    FakeJob(theirs).finish()
    mine.advance(30)
    assert len(wanted[1].outcomes) == 1
    assert len(fake_slurm.calls("sbatch")) == 3


@pytest.mark.parametrize("place", ["new_folder", "make_claim", "_write_requests"])
def test_a_full_disk_delays_jobs_and_loses_none(driver: Driver, monkeypatch: pytest.MonkeyPatch, place: str):
    module = claims if place == "make_claim" else submission
    real, failures = getattr(module, place), [OSError(errno.ENOSPC, "No space left on device")]

    def full(*arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return real(*arguments)

    monkeypatch.setattr(module, place, full)
    listeners = driver.submit("a", "b")
    driver.advance(2 * LONGER_THAN_BACK_OFF)
    assert not any(listener.outcomes for listener in listeners)
    for listener in listeners:
        FakeJob(listener).finish()
    driver.advance(5)
    assert [listener.outcome().status for listener in listeners] == ["done", "done"]


def test_a_disk_that_cannot_be_cleared_up_keeps_nobody_waiting(driver: Driver, monkeypatch: pytest.MonkeyPatch):
    listeners = driver.submit("a", "b")
    for listener in listeners:
        FakeJob(listener).finish()

    def refuse(output: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(claims, "release", refuse)
    driver.advance(5)
    assert [listener.outcome().status for listener in listeners] == ["done", "done"]
    assert [len(listener.outcomes) for listener in listeners] == [1, 1]


def test_a_damaged_claim_does_not_keep_a_job_from_being_submitted(driver: Driver, fake_slurm: FakeSlurm):
    path = claims.claim_path(driver.job("a").output, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    (listener,) = driver.submit("a")
    assert FakeJob(listener).claim.attempt == 2
    FakeJob(listener).finish()
    driver.advance(5)
    assert listener.outcome().status == "done"
    assert left_in(driver.folder) == ["a.json"]


def test_an_sbatch_that_hangs_is_killed_and_tried_again(
    make_driver: Any, fake_slurm: FakeSlurm, caplog: pytest.LogCaptureFixture
):
    driver = make_driver(command_seconds=1.0)
    sbatch = fake_slurm.bin / "sbatch"
    working = sbatch.read_text()
    sbatch.write_text("#!/bin/sh\nsleep 600 & wait\n")
    (listener,) = driver.submit("a")
    assert "sbatch: no answer within 1 s" in caplog.text
    sbatch.write_text(working)
    driver.advance(LONGER_THAN_BACK_OFF)
    FakeJob(listener).finish()
    driver.advance(5)
    assert listener.outcome().status == "done"
