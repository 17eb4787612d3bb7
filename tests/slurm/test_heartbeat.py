"""What a job says while it runs, and what of it arrives."""

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
    """Where the news of a job lie."""
    found = heartbeat_path(tmp_path / "slurm" / "lp-a", 3)
    found.parent.mkdir(parents=True)
    return found


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let hearts beat fast."""
    monkeypatch.setattr(heartbeat, "HEARTBEAT_SECONDS", 0.02)
    monkeypatch.setattr(heartbeat, "_PROGRESS_SECONDS", 0.01)


@pytest.fixture
def tracked_job(path: Path) -> TrackedJob:
    """A driver's view of the job."""
    job = Job("x:y", "a", "Retrain", {}, str(path.parent / "a.json"), str(path.parent / "a.log"))
    return TrackedJob(
        job, RecordingListener(job), Resources(), folder=path.parent.parent / "lp-a", index=3, slurm_id="7_3"
    )


@pytest.fixture(autouse=True)
def stop_hearts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """End the threads of writers that have not had their last word."""
    made: list[HeartbeatWriter] = []
    begin = HeartbeatWriter.__init__
    monkeypatch.setattr(
        HeartbeatWriter, "__init__", lambda self, *given, **named: made.append(self) or begin(self, *given, **named)
    )
    yield
    for writer in made:
        writer._closed = True
        writer._changed.set()


def heart_beats() -> bool:
    return any(thread.name == "heartbeat" for thread in threading.enumerate())


def listen(tracked_job: TrackedJob) -> bool:
    return tracked_job.update_heartbeat(heartbeat.file_versions(tracked_job.paths.folder))


def test_news_lie_together_and_say_whose_they_are(path: Path, tmp_path: Path):
    assert path == tmp_path / "slurm" / "news" / "lp-a.3.json"
    assert heartbeat.read_heartbeat(path) is None
    HeartbeatWriter(path, restart=2, rank=0)
    told = heartbeat.read_heartbeat(path)
    assert told is not None
    assert (told.restart, told.host, told.ended) == (2, os.uname().nodename, None)


def test_a_heart_beats_without_progress_and_stops_with_the_last_word(path: Path, quick: None):
    writer = HeartbeatWriter(path, 0, 0)
    seen = set()
    until(lambda: seen.add(path.stat().st_ino) or len(seen) > 1, 20)
    writer.progress(0.5, "epoch 1/2")
    until(lambda: (told := heartbeat.read_heartbeat(path)) and told.message == "epoch 1/2", 20)
    writer.end(DONE)
    writer.progress(0.9, "too late")
    until(lambda: not heart_beats(), 20)
    told = heartbeat.read_heartbeat(path)
    assert told is not None
    assert (told.ended, told.message) == (DONE, "epoch 1/2")


def test_reports_by_the_thousand_are_few_files(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(heartbeat, "_PROGRESS_SECONDS", 600.0)
    written: list[Heartbeat] = []
    monkeypatch.setattr(HeartbeatWriter, "_write", lambda self, told, path: written.append(told))
    writer = HeartbeatWriter(path, 0, 0)
    writer.progress(0.0, "the first")
    until(lambda: len(written) == 2, 20)
    for number in range(5000):
        writer.progress(number / 5000, str(number))
    assert len(written) == 2
    writer.end(DONE)
    assert written[-1].message == "4999"


def test_the_other_ranks_are_silent_unless_they_fail(path: Path):
    quiet, failing, late = (HeartbeatWriter(path, 0, rank) for rank in (1, 2, 3))
    quiet.end(DONE)
    late.end(Outcome("interrupted"))
    assert list(path.parent.iterdir()) == []
    failing.end(FAILED)
    quiet.end(Outcome("failed", "gloo: connection reset by peer"))
    told = heartbeat.read_heartbeat(failure_path(path))
    assert told is not None
    assert told.ended == FAILED  # the first one


def test_the_first_failure_is_not_overwritten_by_one_at_the_same_moment(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Path, "exists", lambda path: False)  # both look before either has written
    first, second = HeartbeatWriter(path, 0, 1), HeartbeatWriter(path, 0, 2)
    first.end(FAILED)
    second.end(Outcome("failed", "gloo: connection reset by peer"))
    told = heartbeat.read_heartbeat(failure_path(path))
    assert told is not None
    assert told.ended == FAILED


def test_the_failure_of_another_rank_wins_over_what_rank_0_says(path: Path, tracked_job: TrackedJob):
    speaker = HeartbeatWriter(path, 0, 0)
    assert listen(tracked_job)
    assert not listen(tracked_job)
    HeartbeatWriter(path, 0, 1).end(FAILED)
    assert listen(tracked_job)
    speaker.end(Outcome("interrupted", "rank 1 went away"))
    assert listen(tracked_job)
    assert tracked_job.heartbeat is not None
    assert tracked_job.heartbeat.ended == FAILED
    assert tracked_job.is_ending


def test_a_requeued_job_begins_without_the_failure_of_the_run_before(path: Path, tracked_job: TrackedJob):
    HeartbeatWriter(path, 0, 0)
    HeartbeatWriter(path, 0, 1).end(FAILED)
    assert listen(tracked_job)
    HeartbeatWriter(path, 1, 0)
    assert not failure_path(path).exists()
    assert listen(tracked_job)
    assert tracked_job.heartbeat is not None
    assert (tracked_job.heartbeat.restart, tracked_job.heartbeat.ended) == (1, None)


def test_news_of_one_moment_are_told_apart_where_clocks_are_coarse(path: Path, tracked_job: TrackedJob):
    """Some file systems count whole seconds: the last word must not be taken for the heartbeat before it."""
    writer = HeartbeatWriter(path, 0, 0)
    os.utime(path, (1000, 1000))
    assert listen(tracked_job)
    writer.end(DONE)
    os.utime(path, (1000, 1000))
    assert listen(tracked_job)
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
def test_what_cannot_be_read_is_no_news(path: Path, tracked_job: TrackedJob, text: str):
    path.write_bytes(text.encode(errors="surrogateescape"))
    assert heartbeat.read_heartbeat(path) is None
    assert not listen(tracked_job)
    HeartbeatWriter(path, 0, 0).end(DONE)  # and does not spoil what comes then
    assert listen(tracked_job)


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
def test_what_is_said_arrives(tmp_path_factory, outcome: Outcome, fraction: float, message: str):
    path = tmp_path_factory.getbasetemp() / "said" / "lp-a.0.json"
    path.parent.mkdir(exist_ok=True)
    writer = HeartbeatWriter(path, 0, 1)
    writer.rank = 0  # speaks, without the thread
    writer.progress(fraction, message)
    writer.end(outcome)
    told = heartbeat.read_heartbeat(path)
    assert told is not None
    assert (told.fraction, told.message, told.ended) == (fraction, message[: heartbeat._MAX_MESSAGE], outcome)


def test_a_long_traceback_keeps_its_end(path: Path):
    HeartbeatWriter(path, 0, 0).end(Outcome("failed", "x" * 10**6 + "ValueError: the end"))
    told = heartbeat.read_heartbeat(path)
    assert told is not None
    assert told.ended is not None
    assert told.ended.message.endswith("ValueError: the end")
    assert len(json.dumps(told.outcome)) < 30_000
