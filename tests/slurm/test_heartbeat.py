"""Heartbeats: written by a job, read by its driver."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from luigi_prune.execution.job import Job, Outcome
from luigi_prune.execution.slurm import heartbeat
from luigi_prune.execution.slurm.heartbeat import Heartbeat, HeartbeatWriter, failure_path, heartbeat_path
from luigi_prune.execution.slurm.options import Resources
from luigi_prune.execution.slurm.tracked_job import TrackedJob
from tests.slurm.recording_listener import RecordingListener, until

DONE, FAILED = Outcome("done", seconds=2.5), Outcome("failed", "ValueError: no", retry=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The heartbeat file of a job."""
    heartbeat_file = heartbeat_path(tmp_path / "slurm" / "lp-a", 3)
    heartbeat_file.parent.mkdir(parents=True)
    return heartbeat_file


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the intervals of heartbeats."""
    monkeypatch.setattr(heartbeat, "HEARTBEAT_SECONDS", 0.02)
    monkeypatch.setattr(heartbeat, "_PROGRESS_SECONDS", 0.01)


@pytest.fixture
def tracked_job(path: Path) -> TrackedJob:
    """The job as its driver tracks it."""
    job = Job("x:y", "a", "Retrain", {}, str(path.parent / "a.json"), str(path.parent / "a.log"))
    return TrackedJob(
        job, RecordingListener(job), Resources(), folder=path.parent.parent / "lp-a", index=3, slurm_id="7_3"
    )


@pytest.fixture(autouse=True)
def stop_writers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """End the threads of writers that were not closed."""
    made: list[HeartbeatWriter] = []
    begin = HeartbeatWriter.__init__
    monkeypatch.setattr(
        HeartbeatWriter, "__init__", lambda self, *given, **named: made.append(self) or begin(self, *given, **named)
    )
    yield
    for writer in made:
        writer._closed = True
        writer._changed.set()


def writer_runs() -> bool:
    return any(thread.name == "heartbeat" for thread in threading.enumerate())


def update(tracked_job: TrackedJob) -> bool:
    return tracked_job.update_heartbeat(heartbeat.file_versions(tracked_job.paths.folder))


def test_heartbeat_files_share_a_folder_and_are_named_by_job(path: Path, tmp_path: Path):
    assert path == tmp_path / "slurm" / "news" / "lp-a.3.json"
    assert heartbeat.read_heartbeat(path) is None
    HeartbeatWriter(path, restart=2, rank=0)
    latest = heartbeat.read_heartbeat(path)
    assert latest is not None
    assert (latest.restart, latest.host, latest.ended) == (2, os.uname().nodename, None)


def test_heartbeats_continue_without_progress_and_stop_at_the_end(path: Path, quick: None):
    writer = HeartbeatWriter(path, 0, 0)
    seen = set()
    until(lambda: seen.add(path.stat().st_ino) or len(seen) > 1, 20)
    writer.progress(0.5, "epoch 1/2")
    until(lambda: (latest := heartbeat.read_heartbeat(path)) and latest.message == "epoch 1/2", 20)
    writer.end(DONE)
    writer.progress(0.9, "too late")
    until(lambda: not writer_runs(), 20)
    latest = heartbeat.read_heartbeat(path)
    assert latest is not None
    assert (latest.ended, latest.message) == (DONE, "epoch 1/2")


def test_reports_by_the_thousand_are_few_files(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(heartbeat, "_PROGRESS_SECONDS", 600.0)
    written: list[Heartbeat] = []
    monkeypatch.setattr(HeartbeatWriter, "_write", lambda self, latest, path: written.append(latest))
    writer = HeartbeatWriter(path, 0, 0)
    writer.progress(0.0, "the first")
    until(lambda: len(written) == 2, 20)
    for number in range(5000):
        writer.progress(number / 5000, str(number))
    assert len(written) == 2
    writer.end(DONE)
    assert written[-1].message == "4999"


def test_the_other_ranks_write_only_failures(path: Path):
    quiet, failing, late = (HeartbeatWriter(path, 0, rank) for rank in (1, 2, 3))
    quiet.end(DONE)
    late.end(Outcome("interrupted"))
    assert list(path.parent.iterdir()) == []
    failing.end(FAILED)
    quiet.end(Outcome("failed", "gloo: connection reset by peer"))
    latest = heartbeat.read_heartbeat(failure_path(path))
    assert latest is not None
    assert latest.ended == FAILED  # the first one


def test_the_first_failure_is_not_overwritten_by_one_at_the_same_moment(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Path, "exists", lambda path: False)  # both look before either has written
    first, second = HeartbeatWriter(path, 0, 1), HeartbeatWriter(path, 0, 2)
    first.end(FAILED)
    second.end(Outcome("failed", "gloo: connection reset by peer"))
    latest = heartbeat.read_heartbeat(failure_path(path))
    assert latest is not None
    assert latest.ended == FAILED


def test_the_failure_of_another_rank_overrides_rank_0(path: Path, tracked_job: TrackedJob):
    rank_0 = HeartbeatWriter(path, 0, 0)
    assert update(tracked_job)
    assert not update(tracked_job)
    HeartbeatWriter(path, 0, 1).end(FAILED)
    assert update(tracked_job)
    rank_0.end(Outcome("interrupted", "rank 1 went away"))
    assert update(tracked_job)
    assert tracked_job.heartbeat is not None
    assert tracked_job.heartbeat.ended == FAILED
    assert tracked_job.is_ending


def test_a_requeued_job_begins_without_the_failure_of_the_run_before(path: Path, tracked_job: TrackedJob):
    HeartbeatWriter(path, 0, 0)
    HeartbeatWriter(path, 0, 1).end(FAILED)
    assert update(tracked_job)
    HeartbeatWriter(path, 1, 0)
    assert not failure_path(path).exists()
    assert update(tracked_job)
    assert tracked_job.heartbeat is not None
    assert (tracked_job.heartbeat.restart, tracked_job.heartbeat.ended) == (1, None)


def test_two_versions_within_one_second_are_distinguished(path: Path, tracked_job: TrackedJob):
    """Some file systems store whole seconds: the final heartbeat must not be taken for the one before."""
    writer = HeartbeatWriter(path, 0, 0)
    os.utime(path, (1000, 1000))
    assert update(tracked_job)
    writer.end(DONE)
    os.utime(path, (1000, 1000))
    assert update(tracked_job)
    assert tracked_job.heartbeat is not None
    assert tracked_job.heartbeat.ended == DONE


def test_a_reader_never_sees_half_a_file(path: Path):
    writer = HeartbeatWriter(path, 0, 0)
    stop, damaged = threading.Event(), []

    def read_on() -> None:
        while not stop.is_set():
            if heartbeat.read_heartbeat(path) is None:
                damaged.append(path)

    reader = threading.Thread(target=read_on)
    reader.start()
    for number in range(300):
        writer._write(Heartbeat(message="x" * (number * 37 % 4000)), path)
    stop.set()
    reader.join()
    assert damaged == []


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "null", "\udcff", '{"unknown": 1}', '{"fraction": "half"}', '{"restart": null}'),
        *('{"message": 7}', '{"outcome": [1]}', '{"outcome": "done"}', '{"outcome": {"state": "done"}}'),
    ],
)
def test_a_damaged_file_is_no_heartbeat(path: Path, tracked_job: TrackedJob, text: str):
    path.write_bytes(text.encode(errors="surrogateescape"))
    assert heartbeat.read_heartbeat(path) is None
    assert not update(tracked_job)
    HeartbeatWriter(path, 0, 0).end(DONE)  # a later heartbeat is read
    assert update(tracked_job)


def test_a_full_or_vanished_folder_stops_no_training(path: Path, tmp_path: Path):
    path.parent.rmdir()
    writer = HeartbeatWriter(path, 0, 0)
    writer.progress(0.5, "on")
    writer.end(FAILED)
    path.parent.touch()  # a file where the folder was
    HeartbeatWriter(path, 0, 0).end(FAILED)
    assert heartbeat.file_versions(path.parent) == {}


@hypothesis_settings(deadline=None)
@given(
    st.builds(
        Outcome,
        status=st.sampled_from(["done", "failed", "damaged", "interrupted"]),
        message=st.text(max_size=50),
        seconds=st.floats(0, 1e6),
        retry=st.booleans(),
    ),
    st.floats(0, 1),
    st.text(max_size=400),
)
def test_heartbeats_are_read_as_written(tmp_path_factory, outcome: Outcome, fraction: float, message: str):
    path = tmp_path_factory.getbasetemp() / "written" / "lp-a.0.json"
    path.parent.mkdir(exist_ok=True)
    writer = HeartbeatWriter(path, 0, 1)
    writer.rank = 0  # writes, without the thread
    writer.progress(fraction, message)
    writer.end(outcome)
    latest = heartbeat.read_heartbeat(path)
    assert latest is not None
    assert (latest.fraction, latest.message, latest.ended) == (fraction, message[: heartbeat._MAX_MESSAGE], outcome)


def test_a_long_traceback_keeps_its_end(path: Path):
    HeartbeatWriter(path, 0, 0).end(Outcome("failed", "x" * 10**6 + "ValueError: the end"))
    latest = heartbeat.read_heartbeat(path)
    assert latest is not None
    assert latest.ended is not None
    assert latest.ended.message.endswith("ValueError: the end")
    assert len(json.dumps(latest.outcome)) < 30_000
