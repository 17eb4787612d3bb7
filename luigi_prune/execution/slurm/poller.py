"""Polls SLURM for all jobs at once, at intervals that grow while nothing changes."""

from __future__ import annotations

import logging
import time
from contextlib import suppress

from luigi_prune.execution import claims
from luigi_prune.execution.slurm import submission
from luigi_prune.execution.slurm.cli import CHUNK, Client, CommandFailed, Row
from luigi_prune.execution.slurm.decisions import IN_QUEUE, STATES
from luigi_prune.execution.slurm.options import SlurmSettings
from luigi_prune.execution.slurm.tracked_job import TrackedJob

logger = logging.getLogger(__name__)


class Poller:
    """Schedules and makes the polls of SLURM. Only the backend's thread uses it."""

    def __init__(self, client: Client, site: SlurmSettings):
        self._client = client
        self._site = site
        self._next = float("inf")
        self._interval = site.poll_seconds
        self._names: set[str] = set()  # of the submissions in the last answer
        self._rows: dict[str, Row] = {}
        self._polled = float("-inf")

    @property
    def is_due(self) -> bool:
        """Whether it is time to poll."""
        return time.monotonic() >= self._next

    def poll_within(self, seconds: float) -> None:
        """Bring the next poll forward to within so many seconds."""
        self._next = min(self._next, time.monotonic() + seconds)

    def poll_soon(self) -> None:
        """Bring the next poll forward, but not by much if the last one was a moment ago: there may be many reasons."""
        self.poll_within(max(1.0, self._polled + self._site.poll_seconds / 4 - time.monotonic()))

    def answer(self, job: TrackedJob) -> bool:
        """Return whether a recent answer covers an adopted job's submission, and store the job's row if it has one.

        Hundreds of jobs are adopted one by one, within seconds.
        """
        recent = time.monotonic() - self._polled < self._site.poll_seconds
        if not recent or not job.slurm_id or job.folder.name not in self._names:
            return False
        if row := self._rows.get(job.slurm_id):
            job.update_row(row)
        self.poll_within(self._site.poll_seconds)
        return True

    def reset_interval(self) -> None:
        """Return to the shortest interval, which then grows again."""
        self._interval = self._site.poll_seconds
        self.poll_within(self._interval)

    def poll(self, jobs: list[TrackedJob]) -> list[TrackedJob]:
        """Poll SLURM and return the jobs whose row has changed; none if SLURM does not answer."""
        if not jobs:
            self._next = float("inf")
            return []
        self._next = time.monotonic() + self._interval  # also if this poll raises
        changed: list[TrackedJob] = []
        states = {job: job.row.state for job in jobs}
        try:
            names = {job.folder.name for job in jobs} | _beside([job for job in jobs if job.adopted])
            rows = self._client.queue(names, everybody=any(job.foreign for job in jobs))
            self._names, self._rows, self._polled = names, dict(rows), time.monotonic()
            missing = [job for job in jobs if job.slurm_id and job.slurm_id not in rows]
            undecided = self._add_accounting(missing, rows) if missing else []
            known = [job for job in jobs if job.slurm_id and job not in undecided]
            changed = [job for job in known if job.update_row(rows.get(job.slurm_id))]
        except CommandFailed as failure:
            logger.warning("%s; no job's state changes until SLURM answers", failure)
        # a new reason for waiting or a new expected start does not shorten the interval
        busy = any(job.row.state != states.get(job) or 0 < job.misses < 2 for job in jobs)
        longer = min(self._interval + self._site.poll_seconds / 2, self._site.poll_seconds_max)
        self._interval = self._site.poll_seconds if busy else longer
        self._next = time.monotonic() + self._interval
        return changed

    def recover_ids(self, jobs: list[TrackedJob]) -> list[TrackedJob]:
        """Look up missing job ids by job name, and return the jobs that were never submitted.

        An id is missing if the driver died between sbatch and writing it down.
        """
        without_id = [job for job in jobs if not job.find_id()]
        if not without_id:
            return []
        try:
            everybody = any(job.foreign for job in without_id)
            ids = self._client.find_ids({job.folder.name for job in without_id}, everybody)
        except CommandFailed as failure:  # must not hold up the other jobs
            logger.warning("%s", failure)
            return []
        never_submitted = []
        for job in without_id:
            claim = claims.newest(job.job.output)
            if job.folder.name in ids:
                with suppress(OSError):
                    submission.record_id(job.folder, ids[job.folder.name])
                job.find_id()
            elif claim is None or not claims.is_submitting(job.job.output, claim):
                never_submitted.append(job)
        return never_submitted

    def _add_accounting(self, missing: list[TrackedJob], rows: dict[str, Row]) -> list[TrackedJob]:
        """Add the accounting's records of jobs that are no longer in the queue to `rows`.

        Returns the jobs whose state stays open because sacct failed; after `requeue_wait_seconds` none does.
        """
        records: dict[str, Row] | None = None
        undecided: list[TrackedJob] = []
        if self._client.accounting is not False:
            try:
                records = self._client.records(job.slurm_id for job in missing)
            except CommandFailed as failure:
                logger.warning("%s", failure)
                undecided = [job for job in missing if job.absent_seconds() < self._site.requeue_wait_seconds]
        for job in missing:
            job.unrecorded = records is not None and job.slurm_id not in records
        # a job that has left the queue has ended, even if the accounting still lists it as running
        ended = {i: row for i, row in (records or {}).items() if STATES.get(row.state, "running") not in IN_QUEUE}
        rows |= {job_id: row for job_id, row in ended.items() if job_id not in rows}
        return undecided


def _beside(adopted: list[TrackedJob]) -> set[str]:
    """Return the names of the submissions beside those of adopted jobs, which are likely to be adopted next."""
    folders = {job.submissions for job in adopted}
    names = [path.name for folder in folders for path in folder.glob("lp-*")]
    return set(names) if len(names) <= CHUNK else set()
