"""One job at a time: results, failures, logs, progress, and how fast a job starts."""

from __future__ import annotations

import logging
import os
import re
import signal
from pathlib import Path

import pytest
from listening import Ear, running, submit, wait_until

from luigi_prune.execution.output import LAST_LINES

pytestmark = pytest.mark.usefixtures("light_server")


def test_a_job_runs_in_a_process_of_its_own_and_says_so_once(make_backend, make_job, facts):
    backend = make_backend(threads=1, jobs=1)
    ear = submit(backend, make_job("facts"))
    assert ear.outcome().status == "done"
    found = facts()
    assert found["pid"] not in (os.getpid(), found["server"])
    assert found["group"] == found["pid"]  # Ctrl-C in the terminal passes it by
    assert (found["rank"], found["world_size"], found["init_method"]) == (0, 1, "")
    assert (found["device"], found["threads"]) == ("cpu", 1)
    assert found["directory"] == os.getcwd()
    assert not found["torch"]  # the light server of these tests is light
    backend.close()
    assert ear.starts == 1
    assert len(ear.outcomes) == 1


def test_the_process_sees_its_threads_and_no_gpu_before_anything_else(make_backend, make_job, facts):
    submit(make_backend(threads=2, jobs=1), make_job("facts")).outcome()
    environment = facts()["environment"]
    assert {environment[f"{library}_NUM_THREADS"] for library in ("OMP", "MKL", "OPENBLAS")} == {"2"}
    assert environment["CUDA_VISIBLE_DEVICES"] == ""
    assert "PYTORCH_NVML_BASED_CUDA_CHECK" not in environment  # the preload's own


@pytest.mark.usefixtures("slow_server")
def test_submit_does_not_wait_for_the_server(make_backend, make_job, facts):
    backend = make_backend()
    ear = submit(backend, make_job("facts"))
    assert ear.outcomes == []
    assert ear.outcome().status == "done"


def test_a_failure_arrives_with_its_traceback_and_its_log(make_backend, make_job):
    outcome = submit(make_backend(), make_job("fail", tag="a/b c")).outcome()
    assert outcome.status == "failed"
    assert re.search(r'job_functions\.py", line \d+, in fail\n', outcome.message)
    assert "ValueError: the seventh layer is missing" in outcome.message
    assert "ValueError: the seventh layer is missing" in Path(outcome.log).read_text()


def test_everything_a_job_says_is_in_its_log_attempt_after_attempt(make_backend, make_job):
    backend = make_backend()
    logs = {submit(backend, make_job("log_a_line")).outcome().log for _ in range(2)}
    other = submit(backend, make_job("log_a_line", tag="other")).outcome().log
    assert other not in logs
    (log,) = logs
    lines = Path(log).read_text().splitlines()
    assert sum(line.endswith("INFO epoch 3 of 7") for line in lines) == 2
    assert lines.count("printed") == lines.count("said by a child") == 2
    assert sum("log_a_line job: process 1 of 1, pid " in line for line in lines) == 2


def test_a_killed_job_ends_with_its_signal_and_its_last_lines(make_backend, make_job):
    backend = make_backend()
    submit(backend, make_job("crash")).outcome()
    outcome = submit(backend, make_job("crash")).outcome()  # its log has the first attempt's lines too
    assert "killed by signal 9 (SIGKILL" in outcome.message
    assert "memory" in outcome.message
    lines = [line for line in outcome.message.splitlines() if line.startswith("line ")]
    assert lines == [f"line {number}" for number in range(30 - LAST_LINES, 30)]
    assert Path(outcome.log).read_text().count("line 29\n") == 2
    assert outcome.retry


def test_kill_minus_nine_from_outside(make_backend, make_job, facts):
    ear = submit(make_backend(), make_job("hold"))
    os.kill(facts()["pid"], signal.SIGKILL)
    assert "SIGKILL" in ear.outcome().message


def test_an_exit_code_is_named(make_backend, make_job):
    outcome = submit(make_backend(), make_job("leave")).outcome()
    assert outcome.status == "failed"
    assert "exit code 3" in outcome.message
    assert outcome.message.endswith("a line before the end")


def test_a_job_function_that_does_not_exist_fails(make_backend, make_job):
    assert "no_such_function" in submit(make_backend(), make_job("no_such_function")).outcome().message


def test_a_log_folder_that_cannot_be_made_fails_the_job_and_not_the_backend(make_backend, make_job, tmp_path, caplog):
    (tmp_path / "logs").touch()  # a file, where the folder should be
    backend = make_backend(jobs=1)
    with caplog.at_level(logging.CRITICAL):
        for _ in range(2):
            assert "could not be started" in submit(backend, make_job("facts")).outcome().message


def test_a_thread_left_behind_does_not_keep_the_job(make_backend, make_job):
    assert submit(make_backend(grace_seconds=0.2), make_job("leave_a_thread")).outcome().status == "done"


def test_progress_arrives_rarely_enough_and_the_last_of_it_for_certain(make_backend, make_job):
    ear = submit(make_backend(), make_job("report_progress"))
    outcome = ear.outcome()
    assert outcome.status == "done"
    fractions = [fraction for fraction, _ in ear.progress]
    assert fractions[0] == 0.0
    assert ear.progress[-2:] == [(0.5, "half"), (1.0, "whole")]
    assert len(ear.progress) <= 3 + outcome.seconds / 0.2


def test_a_listener_that_raises_does_not_stop_the_others(make_backend, make_job, caplog):
    class Broken(Ear):
        def started(self) -> None:
            raise RuntimeError("no")

        def ended(self, outcome) -> None:
            super().ended(outcome)
            raise RuntimeError("no")

    backend = make_backend(jobs=1)
    broken = Broken()
    with caplog.at_level(logging.CRITICAL):
        backend.submit(make_job("facts", tag="one"), broken)
        assert submit(backend, make_job("facts", tag="two")).outcome().status == "done"
    assert broken.outcome().status == "done"


def test_a_server_that_died_is_started_again(make_backend, make_job, facts):
    backend = make_backend(jobs=2)
    ear = submit(backend, make_job("hold_with_children", tag="held"))
    held = facts("held")["pid"]
    submit(backend, make_job("facts", tag="before")).outcome()
    server = facts("before")["server"]
    os.kill(server, signal.SIGKILL)
    outcome = ear.outcome()
    assert outcome.status == "failed"
    assert outcome.retry
    assert "server" in outcome.message
    wait_until(lambda: not running(held))
    assert submit(backend, make_job("facts", tag="after")).outcome().status == "done"
    assert facts("after")["server"] != server


def test_two_backends_side_by_side_have_servers_of_their_own(make_backend, make_job, facts):
    first, second = make_backend(), make_backend()
    submit(first, make_job("facts", tag="first")).outcome()
    ear = submit(second, make_job("hold", tag="second"))
    facts("second")
    first.close()
    assert running(facts("second")["pid"])
    assert not running(facts("first")["server"])
    second.cancel(make_job("hold", tag="second"))
    assert ear.outcome().status == "failed"
