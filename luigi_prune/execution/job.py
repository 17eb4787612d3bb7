"""The interface between the driver and a backend: jobs, outcomes, listeners. Independent of Luigi and torch."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol


@dataclass(frozen=True)
class Job:
    """One call of a job function, as JSON data: all that another process receives."""

    function: str  # as module:function, mostly below luigi_prune.jobs
    name: str  # for people: "Retrain ThresNet 0.5 net0 rep0"
    family: str  # the Luigi task's family, which decides processes and resources
    request: dict[str, Any]  # spec, input paths, output path, directories
    output: str  # path of the result; the job has succeeded if it exists
    log: str  # path of the file for the job's output, if it runs in a separate process
    folder: str = ""  # folder for the backend's files
    attempt: int = 0  # of the process's claim to the output (claims.py); 0: the backend makes claims itself
    alone: bool = False  # shares its process with no other job: it has failed before

    def as_json(self) -> dict[str, Any]:
        """Return the job as a JSON-able dictionary; `Job(**d)` is its inverse."""
        return asdict(self)


@dataclass(frozen=True)
class Outcome:
    """The outcome of a job."""

    status: Literal["done", "failed", "damaged", "interrupted", "elsewhere"]  # elsewhere: another run computes it
    message: str = ""  # of a failure, for the user: traceback, exit code, last lines of the log
    damaged: str = ""  # path of the damaged input, if the status is "damaged"
    seconds: float = 0.0  # spent in the job function
    log: str = ""  # path of the job's log, if it has one
    retry: bool = True  # whether a retry can succeed
    memory: bool = False  # failed for lack of memory, of which jobs that share a process have less
    ends_run: bool = False  # whether no other job can succeed either: the disk is full


def log_line(text: str) -> None:
    """Write a line to the log of the process."""
    logging.getLogger("luigi_prune").info("%s", text)


@dataclass
class Context:
    """The environment of a job; its result must not depend on it beyond floating-point noise."""

    threads: int = 1
    rank: int = 0
    world_size: int = 1
    init_method: str = ""  # rendezvous URL of a job's processes; "" if there is one
    device: str = "cpu"  # "cpu" or "cuda:<index>"
    loader_workers: int = 0
    deterministic: bool = False  # use deterministic algorithms only: bit-equal results on the same GPU model
    gpus: int = 0  # of all processes of the job
    job_id: str = ""  # the backend's id, for the provenance
    progress: Callable[[float, str], None] = lambda fraction, message: None  # rank 0 calls it; cheap, never raises
    should_stop: Callable[[], bool] = lambda: False  # True: save a checkpoint at the next step boundary and exit
    is_superseded: Callable[[], bool] = lambda: False  # True: another run has taken over, so write no result
    together: tuple[str, ...] = ()  # starts of the keys of all that run in this process, if those are several
    log_line: Callable[[str], None] = log_line  # writes a line to the job's log


class Listener(Protocol):
    """Callbacks for the events of one job, called from any thread; `ended` exactly once.

    Before `started` and after `requeued`, the message of `progressed` says where the job waits, with the reason in its
    first brackets.
    """

    def started(self) -> None:
        """The job runs, for the first time or again."""

    def requeued(self) -> None:
        """The job does not run any more and has not ended: it waits in the queue again, or was suspended."""

    def progressed(self, fraction: float, message: str) -> None: ...

    def ended(self, outcome: Outcome) -> None: ...


class Backend(Protocol):
    """Runs jobs. `submit` returns at once, except for inline, which runs the job."""

    name: str
    slots: int  # maximum number of processes (or jobs of a queue) at once
    bundles: bool = False  # whether it runs several jobs in one process, as ComputeSettings.together asks
    together: int = 1  # and how many at most, of the family with the most

    def in_hand(self) -> int:
        """Return how many jobs to submit before one of them has ended.

        If jobs share processes, one more per slot than can run: a full bundle is then ready when a job leaves its slot.
        """
        return self.slots * (self.together + 1) if self.together > 1 else self.slots

    def prepare(self, jobs: Iterable[Job]) -> None:
        """Check before a run that its jobs can be submitted; raises ConfigError. Not called if there are none."""
        return None

    def submit(self, job: Job, listener: Listener) -> None: ...

    def all_submitted(self) -> None:
        """Take notice that all jobs that are ready have been submitted: those that can run together may start."""
        return None

    def cancel(self, job: Job) -> None:
        """Stop the job, running or waiting; its listener gets `ended` with status "failed"."""

    def close(self) -> None:
        """Stop all jobs and wait until they have ended."""

    def resources(self, family: str) -> dict[str, int]:
        """Return how much a job of this family uses of each of Luigi's [resources] that has a limit."""
        return {}

    def makes_claims(self, family: str) -> bool:
        """Return whether the backend claims results of this family itself: its jobs outlive the driver."""
        return False

    def interrupted(self, say: Callable[[str], None]) -> None:
        """Handle Ctrl-C; called before running jobs are cancelled."""
        say("Interrupted: stopping running jobs; the same command resumes from here.")

    def remark(self) -> str:
        """Return a line to print at the end of a run, or ""."""
        return ""


@dataclass(frozen=True)
class ComputeSettings:
    """The sections `[compute]` and `[compute.<Family>]` of luigi.cfg."""

    backend: str = "auto"
    threads: int = 1
    jobs: int = 0  # maximum number at once; 0: as many as there are cores (or GPUs)
    device: str = "auto"  # auto, cpu, cuda
    loader_workers: int = 0
    deterministic: bool = False
    # processes of one job (DDP) by family, 1 if missing; "gpus": one per visible GPU
    processes: dict[str, int | Literal["gpus"]] = field(default_factory=dict)
    together: dict[str, int] = field(default_factory=dict)  # trainings in one process at most, by family; 1 if missing
    jobs_per_gpu: int = 1  # if `jobs` is 0
    own: Any = None  # the chosen backend's settings, from its sections


def most_together(settings: ComputeSettings) -> int:
    """Return how many jobs share a process at most, of the family with the most."""
    return max(settings.together.values(), default=1)


def available_cores() -> int:
    """Return the number of cores available to this process."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
