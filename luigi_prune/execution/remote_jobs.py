"""Jobs that outlive their driver, such as SLURM jobs, as commands query and cancel them without a driver.

A backend with such jobs names a subclass of RemoteJobs in its row; it reads the results folder and the site's queue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from luigi_prune.execution.job import Job


@dataclass(frozen=True)
class JobPlace:
    """State and place of a job whose result does not exist yet."""

    text: str  # for people: "SLURM job 12_0 on n3: 40%  epoch 4/10"
    running: bool = False  # started and not reported as ended
    label: str = "job"  # RemoteJobs.label of its backend


class SubmittedJob(Protocol):
    """A job that a driver has submitted and whose request file still exists."""

    @property
    def job(self) -> Job:
        """The job."""

    @property
    def job_id(self) -> str:
        """The queue's id of the job; "" if there is none yet."""

    @property
    def age(self) -> float:
        """Seconds since it was submitted."""

    @property
    def start_log(self) -> Path:
        """Output of the queue and of the job's start, before the job writes to its log."""

    def newest(self) -> SubmittedJob:
        """Return the newest submission of the same job: itself or its replacement."""


@dataclass(frozen=True)
class Cancellation:
    """The jobs that a cancellation would end; `carry_out` ends them."""

    running: int = 0
    waiting: int = 0
    ended: int = 0  # ended without a result, or never submitted: only their claims are removed
    of_others: int = 0  # jobs of other users, which stay
    drivers: tuple[int, ...] = ()  # running processes of this machine that submitted them
    carry_out: Callable[[], None] = lambda: None  # raises ConfigError if the queue does not respond

    @property
    def jobs(self) -> int:
        """The number of jobs of this user, ended ones included."""
        return self.running + self.waiting + self.ended


class RemoteJobs:
    """Jobs of one backend, of all drivers; the defaults are those of a backend without such jobs."""

    label = "job"  # for people: "SLURM job"; a job's log contains "<label> <id>" at the end of a line
    noise = ""  # prefix of uninformative lines in start logs

    def where(self, outputs: Iterable[Path]) -> dict[Path, JobPlace]:
        """Return where the job of each of `outputs` is, without existing results and those that have no job."""
        return {}

    def outputs(self, results: Path) -> list[Path]:
        """Return the results, existing or not, that jobs have claimed below a results folder."""
        return []

    def pulse(self, output: Path) -> object:
        """Return a value that changes while the job that computes `output` runs, such as the time of its heartbeat."""
        return None

    def submitted(self, results: Path) -> list[SubmittedJob]:
        """Return the jobs whose requests are stored below a results folder."""
        return []

    def is_id(self, text: str) -> bool:
        """Return whether `text` has the form of a job id."""
        return bool(text)

    def same_id(self, asked: str, job_id: str) -> bool:
        """Return whether the id `asked`, typed by a user, refers to the job `job_id`."""
        return asked == job_id

    def cancellation(self, outputs: Iterable[Path]) -> Cancellation:
        """Return the cancellation of jobs that compute `outputs`; raises ConfigError if the queue does not respond."""
        return Cancellation()

    def leftovers(self, results: Path) -> list[tuple[Path, str]]:
        """Return files and folders that are no longer needed, each with the reason."""
        return []
