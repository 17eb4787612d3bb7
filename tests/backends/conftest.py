"""Backends that are closed after each test, jobs to submit, and a listener that remembers."""

from __future__ import annotations

import functools
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from luigi_prune.backends import local
from luigi_prune.backends.fork_server import WarmServer
from luigi_prune.backends.job import ComputeSettings, Job, Outcome
from luigi_prune.backends.local import LocalBackend

SLOW_SECONDS = 3.0
PATIENCE = 120.0  # seconds after which a test gives up; nothing asserts that anything is fast


@pytest.fixture(autouse=True)
def _job_functions_are_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


class Ear:
    """A listener that remembers what it heard, and when."""

    def __init__(self) -> None:
        self.starts = 0
        self.progress: list[tuple[float, str]] = []
        self.outcomes: list[Outcome] = []
        self.ended_at = 0.0
        self._ended = threading.Event()

    def started(self) -> None:
        self.starts += 1

    def progressed(self, fraction: float, message: str) -> None:
        self.progress.append((fraction, message))

    def ended(self, outcome: Outcome) -> None:
        self.ended_at = time.monotonic()
        self.outcomes.append(outcome)
        self._ended.set()

    def outcome(self) -> Outcome:
        assert self._ended.wait(PATIENCE), "the job did not end"
        return self.outcomes[0]


def submit(backend: LocalBackend, job: Job) -> Ear:
    ear = Ear()
    backend.submit(job, ear)
    return ear


@pytest.fixture
def light_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests about processes: a fork server that need not import torch."""
    monkeypatch.setattr(local, "WarmServer", functools.partial(WarmServer, preload=()))


@pytest.fixture
def slow_server(light_server: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A fork server that imports for `SLOW_SECONDS`."""
    (tmp_path / "slow_preload.py").write_text(f"import time; time.sleep({SLOW_SECONDS})")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr(local, "WarmServer", functools.partial(WarmServer, preload=("slow_preload",)))


@pytest.fixture
def make_backend(tmp_path: Path) -> Iterator[Callable[..., LocalBackend]]:
    made: list[LocalBackend] = []

    def make(grace_seconds: float = 10.0, **settings: Any) -> LocalBackend:
        settings = {"device": "cpu", **settings}
        made.append(LocalBackend(ComputeSettings(**settings), tmp_path / "logs", grace_seconds=grace_seconds))
        return made[-1]

    yield make
    (tmp_path / "release").touch()
    for backend in made:
        backend.close()


@pytest.fixture
def make_job(tmp_path: Path) -> Callable[..., Job]:
    def make(function: str, tag: str = "job", family: str = "Retrain", **request: Any) -> Job:
        return Job(
            function=f"job_functions:{function}",
            name=f"{function} {tag}",
            family=family,
            request={"folder": str(tmp_path), "tag": tag, **request},
            output=str(tmp_path / f"{tag}.h5"),
        )

    return make


@pytest.fixture
def facts(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """What a job's process noted, as soon as it has."""

    def read(tag: str = "job", rank: int = 0) -> dict[str, Any]:
        path = tmp_path / f"{tag}-{rank}.json"
        wait_until(path.exists)
        return json.loads(path.read_text())

    return read


def wait_until(condition: Callable[[], Any]) -> None:
    """Return once the condition holds; fail where it never does."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def running(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    if sys.platform != "linux":
        import subprocess

        state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
        return bool(state) and not state.startswith("Z")
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
