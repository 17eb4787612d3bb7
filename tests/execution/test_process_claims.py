"""Claims of processes: one driver computes a result; the others wait until it exists or the driver has died."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from luigi_prune.execution import claims, process_claims
from luigi_prune.execution.driver_jobs import DriverJobs
from luigi_prune.execution.job import Context, Job
from luigi_prune.execution.job_run import run
from luigi_prune.execution.process_claims import ProcessClaims
from luigi_prune.execution.remote_jobs import JobPlace, RemoteJobs

HOLDER = """
import sys, time
from luigi_prune.execution.process_claims import ProcessClaims
print(ProcessClaims().take(sys.argv[1]), flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_claims, "POLL_SECONDS", 0.02)


@pytest.fixture
def driver() -> Iterator[ProcessClaims]:
    made = ProcessClaims()
    yield made
    made.close()


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "results" / "net0.h5"


@pytest.fixture
def holder(output: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has claimed the output."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(output)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "1\n"
    yield process
    process.kill()
    process.wait()


def plant(output: Path, **changes: Any) -> claims.Claim:
    """Write a claim that is not this process's."""
    claim = claims.make_claim(output, "", 0, 1)
    assert claim is not None
    claim = replace(claim, **changes)
    claims.claim_path(output, 1).write_text(json.dumps(vars(claim)))
    return claim


def wait_for(event: threading.Event) -> bool:
    return event.wait(20)


def test_of_several_drivers_one_gets_a_result_until_it_gives_it_up(output: Path, driver: ProcessClaims):
    other = ProcessClaims()
    assert driver.take(output) == 1
    assert driver.take(output) == 1  # its own
    assert other.take(output) == 0
    assert other.owner(output) == f"process {os.getpid()}"
    driver.release(output)
    assert other.take(output) == 1
    other.close()
    assert claims.last_attempt(output) == 0


def test_a_waiting_driver_is_called_when_the_result_exists(output: Path, driver: ProcessClaims):
    driver.take(output)
    other, called = ProcessClaims(), threading.Event()
    other.watch(output, called.set)
    assert not called.wait(0.1)
    output.write_text("done")
    assert wait_for(called)
    other.close()


def test_a_failed_job_frees_its_result(output: Path, driver: ProcessClaims):
    driver.take(output)
    other, called = ProcessClaims(), threading.Event()
    other.watch(output, called.set)
    driver.release(output)
    assert wait_for(called)
    assert other.take(output) == 1
    other.close()


def test_a_killed_driver_loses_its_claims_at_once(output: Path, driver: ProcessClaims, holder: Any):
    called = threading.Event()
    assert driver.take(output) == 0
    driver.watch(output, called.set)
    holder.kill()
    holder.wait()
    assert wait_for(called)
    assert driver.take(output) == 2


def test_a_stopped_driver_keeps_its_claims(output: Path, driver: ProcessClaims, holder: Any):
    holder.send_signal(signal.SIGSTOP)
    deadline = time.monotonic() + 10
    while "stopped" not in driver.owner(output) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert driver.owner(output) == f"process {holder.pid}, which is stopped"
    assert driver.take(output) == 0


@pytest.mark.parametrize(
    "elsewhere",
    [{"host": f"not-{socket.gethostname()}"}, {"born": "another-boot/1:5"}],
    ids=["another machine", "another container"],
)
def test_on_another_machine_only_a_claim_that_is_touched_is_alive(
    output: Path, driver: ProcessClaims, monkeypatch: pytest.MonkeyPatch, elsewhere: dict[str, str]
):
    monkeypatch.setattr(process_claims, "STALE_SECONDS", 0.2)
    plant(output, pid=1, **elsewhere)
    path = claims.claim_path(output, 1)
    os.utime(path, (1, 1))  # its age says nothing: clocks differ
    for beat in range(2, 6):
        assert driver.take(output) == 0
        time.sleep(0.1)
        os.utime(path, (beat, beat))
    assert driver.take(output) == 0
    time.sleep(0.3)
    assert driver.take(output) == 2


def test_the_owner_touches_its_claims(output: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(process_claims, "BEAT_SECONDS", 0.05)
    driver = ProcessClaims()
    driver.take(output)
    os.utime(claims.claim_path(output, 1), (1, 1))
    deadline = time.monotonic() + 10
    while claims.claim_path(output, 1).stat().st_mtime == 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert claims.claim_path(output, 1).stat().st_mtime > 1
    driver.close()


def test_a_claim_that_is_being_written_is_not_taken_for_a_dead_one(output: Path, driver: ProcessClaims):
    output.parent.mkdir(parents=True)
    claims.claim_path(output, 1).touch()
    assert driver.take(output) == 0


@pytest.mark.parametrize(("pulse", "attempt"), [(time.monotonic_ns, 0), (lambda: None, 2)], ids=["runs", "is dead"])
def test_a_submitted_job_is_waited_for_as_long_as_it_runs(
    output: Path, monkeypatch: pytest.MonkeyPatch, pulse: Callable[[], object], attempt: int
):
    class Cluster(RemoteJobs):
        def pulse(self, output: Path) -> object:
            return pulse()

        def where(self, outputs: Any) -> dict[Path, JobPlace]:
            return {path: JobPlace("SLURM job 7") for path in outputs}

    monkeypatch.setattr(process_claims, "STALE_SECONDS", 0.05)
    plant(output, folder="/slurm/lp-0123456789", host="login")
    driver = ProcessClaims(lambda: [Cluster()])
    assert driver.take(output) == 0
    assert driver.owner(output) == "SLURM job 7"
    time.sleep(0.1)
    assert driver.take(output) == attempt
    driver.close()


def test_giving_up_a_claim_leaves_that_of_the_run_that_took_over(output: Path, driver: ProcessClaims):
    driver.take(output)
    claims.make_claim(output, "", 0, 2)
    driver.release(output)
    assert claims.last_attempt(output) == 2


@pytest.mark.parametrize("taken_over", [False, True])
def test_a_job_writes_no_result_after_another_run_has_taken_over(output: Path, driver: ProcessClaims, taken_over: bool):
    request = {"family": "Prune", "key": "k", "spec": "{}", "inputs": {}, "output": str(output), "directories": "{}"}
    job = Job("job_functions:write_arrays", "x", "Prune", request, str(output), "", attempt=1)
    assert driver.take(output) == 1
    if taken_over:
        claims.make_claim(output, "", 0, 2)
    outcome = run(job, Context())
    assert (outcome.status, output.exists()) == (("elsewhere", False) if taken_over else ("done", True)), outcome


def test_commands_find_the_jobs_of_living_drivers_and_the_leftovers_of_dead_ones(output: Path, driver: ProcessClaims):
    other = output.with_name("net1.h5")
    driver.take(output)
    plant(other, pid=2**22 + 1)
    jobs = DriverJobs()
    assert list(jobs.where([output, other])) == [output]
    assert jobs.where([output])[output].running
    assert [path.name for path, _ in jobs.leftovers(output.parent)] == [".net1.h5.claim-1"]


@pytest.mark.parametrize("library", ["os", "quota", "hdf5", "torch"])
def test_a_full_disk_is_one_line_whichever_library_meets_it(output: Path, library: str):
    request = {"output": str(output), "directories": "{}", "library": library}
    outcome = run(Job("job_functions:meet_a_full_disk", "x", "Prune", request, str(output), ""), Context())
    reason = "Disk quota exceeded" if library == "quota" else "No space left on device"
    assert outcome.message.startswith(f"cannot write to {output}: {reason} (")
    assert "\n" not in outcome.message
    assert (outcome.retry, outcome.ends_run) == (False, True)
