"""SLURM jobs of any driver, as commands see them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from luigi_prune.execution import claims
from luigi_prune.execution.remote_jobs import Cancellation, JobPlace, RemoteJobs, SubmittedJob
from luigi_prune.execution.slurm.cancellation import plan_cancellation
from luigi_prune.execution.slurm.cli import Client, CommandFailed, Row
from luigi_prune.execution.slurm.heartbeat import heartbeat_path
from luigi_prune.execution.slurm.leftovers import leftovers
from luigi_prune.execution.slurm.submission import element_id
from luigi_prune.execution.slurm.submission_folder import pending_claims, place, submitted_jobs
from luigi_prune.identity.paths import jobs_folder

_PATIENCE_SECONDS = 10.0  # for squeue
_VALID_SECONDS = 10.0  # of an answer
_SILENCE_SECONDS = 60.0  # after a failure, such as no SLURM on this machine


class _Queue:
    """The last answer of squeue: commands that watch jobs look every second, and a busy site need not answer each time.

    Heartbeats alone do not tell which jobs are held, suspended or back in the queue.
    """

    def __init__(self) -> None:
        self._client = Client(_PATIENCE_SECONDS)
        self._names: set[str] = set()
        self._rows: dict[str, Row] = {}
        self._until = float("-inf")

    def rows(self, names: set[str]) -> dict[str, Row]:
        """Return the rows of the jobs with these names, of all users, by id; empty if SLURM does not answer."""
        if names and (time.monotonic() > self._until or not names <= self._names):
            try:
                self._rows = self._client.queue(names, everybody=True)
                self._until = time.monotonic() + _VALID_SECONDS
            except CommandFailed:
                self._rows, self._until = {}, time.monotonic() + _SILENCE_SECONDS
            self._names = set(names)
        return self._rows


_queue = _Queue()


class SlurmJobs(RemoteJobs):
    """The SLURM jobs of a user."""

    label = "SLURM job"

    def where(self, outputs: Iterable[Path]) -> dict[Path, JobPlace]:
        """Return the place of the job that computes each of `outputs`, if there is one."""
        pending = pending_claims(outputs)
        rows = _queue.rows({claim.name for claim in pending.values()})
        places = {
            path: place(claim, rows.get(element_id(claim.folder, claim.index))) for path, claim in pending.items()
        }
        return {path: JobPlace(text, running, self.label) for path, (text, running) in places.items()}

    def outputs(self, results: Path) -> list[Path]:
        """Return every result that is claimed below a folder or requested by a submission there."""
        claimed = (claims.claimed_result(path) for path in results.absolute().rglob(".*.claim-*"))
        requested = (Path(job.job.output).absolute() for job in self.submitted(results))
        return list(dict.fromkeys([*filter(None, claimed), *requested]))

    def pulse(self, output: Path) -> object:
        """Return the time of the heartbeat of the job that computes `output`."""
        claim = claims.newest(output)
        with suppress(OSError):
            return heartbeat_path(claim.folder, claim.index).stat().st_mtime_ns if claim and claim.folder else None
        return None

    def submitted(self, results: Path) -> list[SubmittedJob]:
        """Return every job with a request below a results folder."""
        return list(submitted_jobs(jobs_folder(results, "slurm")))

    def is_id(self, text: str) -> bool:
        """Return whether `text` looks like 12 or 12_3."""
        return re.fullmatch(r"\d+(_\d+)?", text) is not None

    def same_id(self, asked: str, job_id: str) -> bool:
        """Return whether `asked` is the job's id or that of its array."""
        return asked in (job_id, job_id.partition("_")[0])

    def cancellation(self, outputs: Iterable[Path]) -> Cancellation:
        """Return the jobs that cancelling those of `outputs` would end; raises ConfigError."""
        return plan_cancellation(outputs)

    def leftovers(self, results: Path) -> list[tuple[Path, str]]:
        """Return the leftovers of killed drivers and jobs, each with the reason."""
        return leftovers(results)
