"""What a backend carries: a job, and what it says about it. Nothing here knows Luigi or torch."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol


@dataclass(frozen=True)
class Job:
    """One call of a job function, as JSON can say it: this is all that crosses to another process."""

    function: str  # as module:function, mostly below luigi_prune.jobs
    name: str  # how a person calls it: "Retrain ThresNet 0.5 net0 rep0"
    family: str  # the Luigi task's family; backends size a job by it
    request: dict[str, Any]  # spec, input paths, output path, directories
    output: str  # the result's path; the job has succeeded when it exists
    log: str  # path of the file that takes what the job prints, where it has a process of its own
    folder: str = ""  # where a backend may keep files of its own

    def as_json(self) -> dict[str, Any]:
        """Return the job as a JSON-able dictionary; `Job(**d)` is its inverse."""
        return asdict(self)


@dataclass(frozen=True)
class Outcome:
    """How a job ended."""

    status: Literal["done", "failed", "damaged", "interrupted"]
    message: str = ""  # what a user needs to see of a failure: the remote traceback, exit code, log path
    damaged: str = ""  # path of the input that is damaged, with status "damaged"
    seconds: float = 0.0  # inside the job function
    log: str = ""  # path of the job's log, where it has one
    retry: bool = True  # whether trying again can help


@dataclass
class Context:
    """Where a job runs: what may not influence its result beyond float noise."""

    threads: int = 1
    rank: int = 0
    world_size: int = 1
    init_method: str = ""  # rendezvous of the processes of one job, where there are several
    device: str = "cpu"  # "cpu" or "cuda:<index>"
    loader_workers: int = 0
    deterministic: bool = False  # only deterministic algorithms: the same bits on the same kind of GPU
    gpus: int = 0  # that the whole job holds
    job_id: str = ""  # of the backend, for the provenance
    progress: Callable[[float, str], None] = lambda fraction, message: None  # rank 0 calls it; cheap, never raises
    should_stop: Callable[[], bool] = lambda: False  # True: save a checkpoint at the next step boundary and exit


class Listener(Protocol):
    """Who wants to hear of a job. Called from any thread; `ended` exactly once.

    What `progressed` hears before `started` is where the job waits, with the reason in the first brackets.
    """

    def started(self) -> None: ...

    def progressed(self, fraction: float, message: str) -> None: ...

    def ended(self, outcome: Outcome) -> None: ...


class Backend(Protocol):
    """Carries jobs to where torch is. `submit` returns at once, except inline's, which runs the job."""

    name: str
    slots: int  # how many jobs it can run at once

    def submit(self, job: Job, listener: Listener) -> None: ...

    def cancel(self, job: Job) -> None:
        """Stop the job, running or waiting; its listener hears `ended` with status "failed"."""

    def close(self) -> None:
        """Stop everything and wait until nothing is left running."""

    def resources(self, family: str) -> dict[str, int]:
        """Return what a job of a family takes of Luigi's [resources], where those are limited there."""
        return {}

    def interrupted(self, say: Callable[[str], None]) -> None:
        """Answer Ctrl-C, before everything that runs is cancelled."""
        say("Interrupted: running jobs are stopped; the same command goes on from here.")

    def remark(self) -> str:
        """Return what else is worth saying at the end of a run."""
        return ""


@dataclass(frozen=True)
class ComputeSettings:
    """The sections `[compute]` and `[compute.<Family>]` of luigi.cfg."""

    backend: str = "auto"
    threads: int = 1
    jobs: int = 0  # at once; 0: as many as cores (or GPUs) allow
    device: str = "auto"  # auto, cpu, cuda
    loader_workers: int = 0
    deterministic: bool = False
    # per family, 1 if not named: processes of one job (DDP); "gpus": one per visible GPU
    processes: dict[str, int | Literal["gpus"]] = field(default_factory=dict)
    own: Any = None  # what the chosen backend reads from sections of its own


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
