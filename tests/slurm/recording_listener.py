"""Jobs for the SLURM backend, and listeners that record their messages and outcomes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from luigi_prune.execution.job import Backend, ComputeSettings, Job, Outcome
from luigi_prune.execution.slurm.options import FAMILIES, Resources, SlurmSettings
from luigi_prune.execution.slurm.slurm_backend import SlurmBackend
from tests.slurm.cluster import Cluster

TIMEOUT_SECONDS = 150.0  # after which a test fails as hanging; no test asserts a duration


REPOSITORY = Path(__file__).resolve().parents[2]


@contextmanager
def backends_of(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., SlurmBackend]]:
    """Yield a function that makes backends for `cluster`, of ComputeSettings' keywords; close them at the end."""
    monkeypatch.chdir(REPOSITORY)  # jobs start where the driver is, and find the functions of the tests
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    with ExitStack() as stack:

        def open_backend(**settings: Any) -> SlurmBackend:
            backend = SlurmBackend(ComputeSettings(backend="slurm", device="cpu", **settings))
            stack.callback(backend.close)
            return backend

        yield open_backend


def site(resources: Resources | None = None, **changes: Any) -> SlurmSettings:
    """Return settings with short intervals and timeouts."""
    quick = {"poll_seconds": 1.0, "poll_seconds_max": 2.0, "grace_seconds": 3.0, "requeue_wait_seconds": 30.0}
    every = dict.fromkeys(FAMILIES, resources or Resources(timeout_min=10, signal_delay_s=15))
    return SlurmSettings(resources=every, **{**quick, **changes})


@dataclass
class RecordingListener:
    """A listener that records messages and outcomes."""

    job: Job
    starts: int = 0
    requeues: int = 0
    messages: list[str] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    ended_event: threading.Event = field(default_factory=threading.Event)

    def started(self) -> None:
        self.starts += 1

    def requeued(self) -> None:
        self.requeues += 1

    def progressed(self, fraction: float, message: str) -> None:
        self.messages.append(message)

    def ended(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.ended_event.set()

    def outcome(self) -> Outcome:
        assert self.ended_event.wait(TIMEOUT_SECONDS), (
            f"{self.job.name} did not end; last messages: {self.messages[-3:]}"
        )
        return self.outcomes[0]

    def result(self) -> dict[str, Any]:
        """Return the job's result; fails if the job has failed."""
        outcome = self.outcome()
        assert outcome.status == "done", outcome.message
        return json.loads(Path(self.job.output).read_text())

    def message_with(self, words: str) -> str:
        """Wait for a message with these words and return it."""
        until(lambda: any(words in message for message in self.messages))
        return next(message for message in self.messages if words in message)

    @property
    def slurm_id(self) -> str:
        """The job's SLURM id, once it has one."""
        until(lambda: any(re.search(r"SLURM job \d", message) for message in self.messages))
        found = re.search(r"SLURM job (\d+(?:_\d+)?)", self.messages[-1])
        assert found
        return found[1]

    def runs(self, steps: int = 3) -> None:
        """Wait until a counting job has made some steps."""
        until(
            lambda: any((found := re.search(r"step (\d+)", m)) and int(found[1]) >= steps for m in list(self.messages))
        )


def submit(backend: Backend, job: Job) -> RecordingListener:
    listener = RecordingListener(job)
    backend.submit(job, listener)
    return listener


def until(condition: Callable[[], Any], seconds: float = TIMEOUT_SECONDS) -> None:
    """Return once the condition holds; fail if it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)


def follow(process: subprocess.Popen[str]) -> list[str]:
    """Return a list that grows by each line that a process prints."""
    lines: list[str] = []

    def read() -> None:
        assert process.stdout
        for line in process.stdout:
            lines.append(line)
            print(f"{time.strftime('%H:%M:%S')} | {line}", end="")

    threading.Thread(target=read, daemon=True).start()
    return lines


def maker(folder: Path) -> Callable[..., Job]:
    """Return a function that makes jobs whose files lie in `folder`."""

    def make(function: str, tag: str = "job", **request: Any) -> Job:
        output = str(folder / f"{tag}.json")
        return Job(
            function=f"tests.slurm.slurm_functions:{function}",
            name=f"{function} {tag}",
            family="Retrain",
            request={"output": output, **request},
            output=output,
            log=str(folder / "logs" / f"{tag}.log"),
            folder=str(folder / "slurm"),
        )

    return make
