"""A backend of another package, whole: a cluster whose queue is a thread and whose books are files beside results.

The contract test installs it as a package would be: this folder on the path, and an entry point.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luigi_prune.errors import ConfigError
from luigi_prune.execution.backends import BackendRow
from luigi_prune.execution.job import Backend, ComputeSettings, Context, Job, Listener, Outcome
from luigi_prune.execution.job_run import run
from luigi_prune.execution.remote_jobs import Cancellation, JobPlace, RemoteJobs, SubmittedJob

BOOK = ".toy"  # a job's request lies beside its result, under this ending


def settings(sections: Mapping[str, Mapping[str, str]], compute: ComputeSettings) -> str:
    """Return the queue of [toy], or that of [toy.TrainBase] before it."""
    for name, section in sections.items():
        for key in section:
            if key != "queue":
                raise ConfigError(f"luigi.cfg: [{name}] {key}: unknown key; did you mean 'queue'?")
    return {**sections.get("toy", {}), **sections.get("toy.TrainBase", {})}.get("queue", "default")


class ToyBackend(Backend):
    """Runs jobs in threads, one after the other."""

    name = "toy"
    slots = 7

    def __init__(self, settings: ComputeSettings):
        self.queue = settings.own
        self._turn = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._cancelled: set[str] = set()

    def submit(self, job: Job, listener: Listener) -> None:
        book(job, str(len(self._threads) + 1))
        thread = threading.Thread(target=self._run, args=(job, listener))
        self._threads.append(thread)
        thread.start()

    def _run(self, job: Job, listener: Listener) -> None:
        with self._turn:
            if job.output in self._cancelled:
                listener.ended(Outcome("failed", "cancelled", retry=False))
                return
            listener.started()
            outcome = run(job, Context(should_stop=lambda: job.output in self._cancelled, progress=listener.progressed))
            if job.output in self._cancelled and outcome.status != "done":
                outcome = Outcome("failed", "cancelled", retry=False)
        books(job.output).unlink(missing_ok=True)
        listener.ended(outcome)

    def cancel(self, job: Job) -> None:
        self._cancelled.add(job.output)

    def close(self) -> None:
        for thread in self._threads:
            thread.join()

    def resources(self, family: str) -> dict[str, int]:
        return {"toys": 1}


def books(output: str | Path) -> Path:
    """Return where the request of a result's job lies."""
    return Path(output).with_name(f".{Path(output).name}{BOOK}")


def book(job: Job, job_id: str) -> None:
    """Write a job down."""
    books(job.output).parent.mkdir(parents=True, exist_ok=True)
    books(job.output).write_text(json.dumps({"job": job.as_json(), "id": job_id}))


@dataclass(frozen=True)
class Toy:
    """A job that is written down."""

    job: Job
    job_id: str
    age: float = 0.0

    @property
    def start_log(self) -> Path:
        return Path(f"{self.job.log}.start")

    def newest(self) -> SubmittedJob:
        return self


class ToyJobs(RemoteJobs):
    """The jobs that are written down below a results folder."""

    label = "toy job"
    noise = "toy:"

    def where(self, outputs: Iterable[Path]) -> dict[Path, JobPlace]:
        found = {path: read(books(path)) for path in outputs if books(path).exists() and not path.exists()}
        return {path: JobPlace(f"toy job {toy.job_id}, in the box", False, "toy job") for path, toy in found.items()}

    def outputs(self, results: Path) -> list[Path]:
        return [Path(toy.job.output) for toy in self._all(results)]

    def submitted(self, results: Path) -> list[SubmittedJob]:
        return list(self._all(results))

    def _all(self, results: Path) -> list[Toy]:
        return [read(path) for path in sorted(results.rglob(f".*{BOOK}"))]

    def cancellation(self, outputs: Iterable[Path]) -> Cancellation:
        found = self.where(outputs)

        def carry_out() -> None:
            for path in found:
                books(path).unlink()

        return Cancellation(waiting=len(found), carry_out=carry_out)

    def leftovers(self, results: Path) -> list[tuple[Path, str]]:
        gone = [books(path) for path in self.outputs(results) if path.exists()]
        return [(path, "book of a result that is there") for path in gone]


def read(path: Path) -> Toy:
    """Return the job that a file is about."""
    about: dict[str, Any] = json.loads(path.read_text())
    return Toy(Job(**about["job"]), about["id"])


TOY = BackendRow("toy", "toy_cluster:ToyBackend", settings="toy_cluster:settings", jobs="toy_cluster:ToyJobs")
