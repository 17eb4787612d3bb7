"""Where the fork server is untested, each process is a new Python, and everything else is as it was."""

from __future__ import annotations

import logging
import os
import signal
import sys

import pytest
from listening import PATIENCE, running, submit, wait_until
from test_local_driver import HOLDING, ONE_JOB, driver

from luigi_prune.execution.local import local_backend
from luigi_prune.execution.local.fork_server import TESTED_PYTHONS, WarmServer
from luigi_prune.execution.local.fresh_server import FreshServer

__all__ = ["driver"]
UNTESTED = "local_backend.TESTED_PYTHONS = ((3, 0),)\n"


@pytest.fixture
def untested(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that this Python is none of the tested ones."""
    monkeypatch.setattr(local_backend, "TESTED_PYTHONS", ((3, 0), (3, 1)))


def test_the_versions_that_are_tested_are_those_that_the_package_names():
    from importlib.metadata import metadata

    named = [line.rpartition(" ")[2] for line in metadata("luigi-prune").get_all("Classifier") or [] if "3." in line]
    assert [".".join(map(str, version)) for version in TESTED_PYTHONS] == named


def test_an_untested_python_is_named_in_one_line(monkeypatch, caplog):
    with caplog.at_level(logging.WARNING):
        monkeypatch.setattr(local_backend.sys, "version_info", (*TESTED_PYTHONS[-1], 9))
        assert isinstance(local_backend._new_server(), WarmServer)
        assert caplog.messages == []
        monkeypatch.setattr(local_backend.sys, "version_info", (3, 99, 0))
        assert isinstance(local_backend._new_server(), FreshServer)
    (message,) = caplog.messages
    assert message.startswith("Python 3.99: the fork server is tested on 3.10 to 3.13 only; ")
    assert "\n" not in message


@pytest.mark.usefixtures("untested")
def test_a_job_runs_in_a_python_of_its_own(make_backend, make_job, facts):
    ear = submit(make_backend(threads=2, jobs=1), make_job("facts"))
    assert (ear.outcome().status, ear.starts) == ("done", 1)
    found = facts()
    assert found["server"] == os.getpid()  # its parent is the driver
    assert found["group"] == found["pid"]
    assert found["directory"] == os.getcwd()
    assert found["environment"]["OMP_NUM_THREADS"] == "2"
    assert found["environment"]["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.usefixtures("untested")
def test_the_processes_of_a_job_meet_and_one_that_dies_takes_the_others_along(make_backend, make_job, facts):
    backend = make_backend(jobs=2, grace_seconds=0.3, processes={"TrainBase": 2})
    assert submit(backend, make_job("facts", tag="both", family="TrainBase")).outcome().status == "done"
    assert [facts("both", rank)["rank"] for rank in (0, 1)] == [0, 1]
    ear = submit(backend, make_job("hold", family="TrainBase", stubborn=True))
    pids = [facts(rank=rank)["pid"] for rank in (0, 1)]
    os.kill(pids[1], signal.SIGKILL)
    assert ear.outcome().message.startswith("process 1 of 2: killed by signal 9")
    wait_until(lambda: not any(running(pid) for pid in pids))


@pytest.mark.usefixtures("untested")
def test_failures_exit_codes_and_cancelling_are_as_with_the_fork_server(make_backend, make_job, facts, tmp_path):
    backend = make_backend(jobs=3)
    failing, leaving = (submit(backend, make_job(name, tag=name)) for name in ("fail", "leave"))
    ear = submit(backend, make_job("hold"))
    pid = facts()["pid"]
    backend.cancel(make_job("hold"))
    assert ear.outcome().message == "cancelled"
    assert (tmp_path / "job-0.saved").exists()
    wait_until(lambda: not running(pid))
    assert "ValueError: the seventh layer is missing" in failing.outcome().message
    assert "exit code 3" in leaving.outcome().message


@pytest.mark.usefixtures("untested")
def test_a_python_that_cannot_be_started_fails_the_job_and_not_the_backend(make_backend, make_job, monkeypatch, caplog):
    backend = make_backend(jobs=1)
    with caplog.at_level(logging.CRITICAL), monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/nowhere/python")
        assert "could not be started" in submit(backend, make_job("facts", tag="none")).outcome().message
    assert submit(backend, make_job("facts", tag="one")).outcome().status == "done"


def test_a_main_module_without_a_guard_runs_once(driver, tmp_path):
    process = driver(ONE_JOB, first=UNTESTED)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (0, "False\n"), err
    assert (tmp_path / "runs.txt").read_text() == "__main__\n"


def test_nothing_outlives_a_driver_that_is_killed(driver, tmp_path, facts):
    process = driver(HOLDING + "time.sleep(600)", first=UNTESTED)
    pids = [facts("one")["pid"], facts("two", 0)["pid"], facts("two", 1)["pid"]]
    os.kill(process.pid, signal.SIGKILL)
    wait_until(lambda: not any(running(pid) for pid in pids))
