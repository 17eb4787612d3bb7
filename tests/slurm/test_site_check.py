"""What is asked of a site before a run, and what a driver makes of a site that is busy, down, or short of nodes."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import pytest

from luigi_prune.errors import ConfigError
from luigi_prune.execution.slurm import site_check
from tests.slurm.fake_slurm import Driver, FakeJob, FakeSlurm, clock, driver, fake_slurm, make_driver

__all__ = ["clock", "driver", "fake_slurm", "make_driver"]

NO_NODE = "allocation failure: Requested node configuration is not available"
NO_CONTROLLER = "Unable to contact slurm controller (connect failure)"


def calls(driver: Driver) -> int:
    return sum(driver.backend.client.calls.values())


@pytest.mark.parametrize("says", [NO_NODE, "Invalid account or account/partition combination specified"])
def test_jobs_that_the_site_would_refuse_end_the_run_with_its_words(driver: Driver, fake_slurm: FakeSlurm, says: str):
    fake_slurm.fail("sbatch", says)
    jobs = [driver.job("a", "Prune"), driver.job("b", "Evaluate"), driver.job("c", "Report")]
    with pytest.raises(ConfigError, match=r"^luigi.cfg: \[slurm\], jobs of Prune, Evaluate: ") as caught:
        driver.backend.prepare(jobs)
    assert says in str(caught.value)
    assert driver.backend.client.calls["sbatch --test-only"] == 1  # the same resources


def test_a_run_whose_jobs_are_all_on_their_way_asks_nothing(make_driver: Any, fake_slurm: FakeSlurm):
    first, second = make_driver(), make_driver()
    first.submit("a", "b")
    for command in ("sbatch", "squeue", "sacct", "scontrol"):
        fake_slurm.fail(command, NO_CONTROLLER)
    second.backend.prepare([])
    second.backend.prepare([second.job("a"), second.job("b"), second.job("c", "Report")])
    assert calls(second) == 0
    listeners = second.submit("a", "b")
    fake_slurm.mend()
    for listener in listeners:
        FakeJob(listener).finish()
    second.advance(5)
    assert [listener.outcome().status for listener in listeners] == ["done", "done"]
    assert second.backend.client.calls["sbatch"] == 0


def test_nodes_out_of_service_are_a_warning(driver: Driver, fake_slurm: FakeSlurm, caplog: pytest.LogCaptureFixture):
    with fake_slurm.state() as state:
        state["broken"] = [f"n{number}" for number in range(9)]
    fake_slurm.fail("sbatch", NO_NODE, times=1)
    with caplog.at_level(logging.WARNING):
        driver.backend.prepare([driver.job("a")])
    assert NO_NODE in caplog.text
    assert "drained: n0, n1, n2, n3, n4, n5 and 3 more" in caplog.text
    (listener,) = driver.submit("a")
    assert FakeJob(listener).slurm_id == "100"


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("scontrol", NO_CONTROLLER),  # nothing answers
        ("sbatch", "AssocMaxSubmitJobLimit"),  # too many jobs at the moment
        ("sbatch", "Batch job submission failed: Socket timed out on send/recv operation"),
    ],
)
def test_a_site_that_does_not_respond_or_is_busy_is_asked_again(
    driver: Driver, fake_slurm: FakeSlurm, caplog: pytest.LogCaptureFixture, command: str, says: str
):
    fake_slurm.fail("sbatch", says)
    if command != "sbatch":
        fake_slurm.fail(command, says)
    with caplog.at_level(logging.WARNING):
        driver.backend.prepare([driver.job("a")])
    assert says in caplog.text
    (listener,) = driver.submit("a")
    driver.advance(200)
    assert not listener.outcomes
    fake_slurm.mend()
    driver.advance(200)
    assert not listener.outcomes
    FakeJob(listener).finish()
    driver.advance(5)
    assert listener.outcome().status == "done"


def test_a_folder_that_this_user_cannot_write_to_is_refused_first(
    driver: Driver, fake_slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
):
    theirs = driver.folder / "TrainBase"
    theirs.mkdir()
    monkeypatch.setattr(site_check.os, "access", lambda path, mode: path != theirs)  # root may write everywhere
    job = dataclasses.replace(driver.job("a"), output=str(theirs / "new" / "a.h5"))
    with pytest.raises(ConfigError, match=f"cannot write to {theirs}, which belongs to .*; .*umask") as caught:
        driver.backend.prepare([job])
    assert "\n" not in str(caught.value)
    assert calls(driver) == 0


def test_a_percent_sign_in_the_folder_of_submissions_is_refused_first(driver: Driver):
    with pytest.raises(ConfigError, match="50%j/slurm: SLURM reads % in names of log files"):
        driver.backend.prepare([dataclasses.replace(driver.job("a"), folder="/results/50%j/slurm")])
    assert calls(driver) == 0
