"""With torch: what the fork server preloads, how fast a job starts, and how the processes of one job meet."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from listening import submit

pytestmark = pytest.mark.long

pytest.importorskip("torch")


def test_the_server_that_is_forked_has_torch_and_a_single_thread(make_backend, make_job, facts):
    submit(make_backend(), make_job("facts")).outcome()
    assert facts()["torch"] is True
    assert facts()["server_threads"] == 1


def test_a_warm_job_starts_long_before_torch_could_be_imported(make_backend, make_job, facts, capsys):
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    cold = time.monotonic() - began
    backend = make_backend()
    submit(backend, make_job("facts", tag="first")).outcome()
    began = time.monotonic()
    ear = submit(backend, make_job("facts", tag="second"))
    ear.outcome()
    found = facts("second")
    warm = found["first_line"] - began
    with capsys.disabled():
        late = ear.ended_at - found["last_line"]
        print(f"\n  import torch {cold:.3f} s; submit to first line {warm:.3f} s; last line to `ended` {late:.3f} s")
    assert warm < 0.5 * cold


def test_a_sum_over_the_processes_of_a_job(make_backend, make_job, facts):
    backend = make_backend(jobs=2, processes={"TrainBase": 2})
    assert submit(backend, make_job("sum_of_ranks", family="TrainBase")).outcome().status == "done"
    assert [facts(rank=rank)["total"] for rank in (0, 1)] == [3.0, 3.0]


def test_the_cause_is_told_even_where_the_victim_complains_first(make_backend, make_job, facts):
    backend = make_backend(jobs=2, grace_seconds=1.0, processes={"TrainBase": 2})
    ear = submit(backend, make_job("wait_for_ranks", family="TrainBase"))
    facts(rank=0)
    os.kill(facts(rank=1)["pid"], signal.SIGKILL)
    assert ear.outcome().message.startswith("process 1 of 2: killed by signal 9")
