"""Several drivers, copied stores, planted claims: what others need is not deleted, foreign jobs are not adopted."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from luigi_prune.execution import claims
from luigi_prune.execution.slurm import submission
from tests.slurm.fake_slurm import FakeJob, FakeSlurm, clock, driver, fake_slurm, make_driver

__all__ = ["clock", "driver", "fake_slurm", "make_driver"]


def test_a_submission_that_another_driver_still_needs_stays(make_driver: Any):
    first, second = make_driver(), make_driver()
    here, there = first.submit("a", "b")
    (same,) = second.submit("a")
    job, other = FakeJob(here), FakeJob(there)
    folder = Path(job.claim.folder)
    job.finish()
    second.advance(5)
    assert same.outcome().status == "done"
    assert (folder / "1.json").exists()
    first.advance(60)  # no heartbeat is left: it sees the result when it polls
    other.finish()
    first.advance(5)
    assert (here.outcome().status, there.outcome().status) == ("done", "done")
    assert not folder.exists()


def planted(output: Path, folder: Path) -> None:
    """Write a claim that names `folder`, with the request of a job that writes `output` in it."""
    claim = claims.make_claim(output, folder, 0, 1)
    assert claim is not None
    folder.mkdir(parents=True, exist_ok=True)
    request = {"function": "f", "name": "a", "family": "Retrain", "request": {}, "output": str(output), "log": "l"}
    (folder / "0.json").write_text(json.dumps({"job": request, "context": {}, "directory": "/"}))


@pytest.mark.parametrize("name", ["thesis", "lp-0123456789"])
def test_a_claim_that_names_another_folder_deletes_nothing_in_it(driver: Any, fake_slurm: FakeSlurm, name: str):
    precious = driver.folder / "home" / name
    precious.mkdir(parents=True)
    (precious / "chapter.tex").write_text("years of work")
    (precious.parent / "news").mkdir()
    (precious.parent / "news" / f"{name}.0.json").write_text("{}")
    before = sorted(precious.parent.rglob("*"))
    output = driver.folder / "a.json"
    planted(output, precious)
    (listener,) = driver.submit("a")
    output.write_text("{}")
    driver.advance(60)
    assert listener.outcome().status == "done"
    assert sorted(precious.parent.rglob("*")) == sorted([*before, precious / "0.json"])


def test_a_symbolic_link_among_the_submissions_is_not_followed(driver: Any, tmp_path: Path):
    target = tmp_path / "elsewhere"
    target.mkdir()
    (target / "kept.pkl").touch()
    link = driver.folder / "slurm" / "lp-0123456789"
    link.parent.mkdir(parents=True)
    link.symlink_to(target)
    for failed in (True, False):
        submission.clear_folder(link, link.parent, in_use=False, failed=failed)
    assert (target / "kept.pkl").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_submissions_of_another_user_are_left_alone(tmp_path: Path):
    folder = submission.new_folder(tmp_path)
    assert submission.may_be_deleted(folder, tmp_path)
    os.chown(folder, 65534, 65534)
    assert not submission.may_be_deleted(folder, tmp_path)
    submission.clear_folder(folder, tmp_path, in_use=False, failed=False)
    assert folder.exists()


def test_a_results_folder_that_was_copied_while_jobs_ran_computes_for_itself(make_driver: Any, fake_slurm: FakeSlurm):
    original = make_driver()
    (listener,) = original.submit("a")
    copied = make_driver()
    copied.folder = original.folder / "copy"
    copied.folder.mkdir()
    shutil.copytree(original.folder / "slurm", copied.folder / "slurm")
    for path in original.folder.glob(".*.claim-*"):
        shutil.copy(path, copied.folder)
    (again,) = copied.submit("a")
    assert len(fake_slurm.calls("sbatch")) == 2  # not the other folder's job
    FakeJob(listener).finish()
    FakeJob(again).finish()
    original.advance(5)
    copied.advance(5)
    assert (listener.outcome().status, again.outcome().status) == ("done", "done")
    claim = claims.newest(copied.folder / "a.json")
    assert claim is None, asdict(claim)


def test_a_percent_sign_in_the_results_folder_is_refused_before_anything_is_submitted(make_driver: Any):
    driver = make_driver()
    driver.folder = driver.folder / "50%j"
    driver.folder.mkdir()
    (listener,) = driver.submit("a")
    assert "SLURM reads % in the names of log files as a pattern" in listener.outcome().message
    assert not listener.outcome().retry
    assert driver.slurm.calls("sbatch") == []
