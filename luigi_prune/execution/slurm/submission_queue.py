"""Jobs that are ready: gathered into arrays, claimed, submitted, and held back while the site is busy."""

from __future__ import annotations

import logging
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from luigi_prune.execution import claims
from luigi_prune.execution.job import ComputeSettings, Outcome, most_together
from luigi_prune.execution.slurm import submission
from luigi_prune.execution.slurm.cli import Client, CommandFailed, Row, is_temporary, may_have_submitted
from luigi_prune.execution.slurm.options import Resources, SlurmSettings
from luigi_prune.execution.slurm.tracked_job import TrackedJob

logger = logging.getLogger(__name__)

QUIET_SECONDS = 0.3  # an array is submitted once no job has become ready for so long
_USUAL_LIMIT = 1000  # SLURM's default
BACK_OFF_SECONDS = 60.0  # after a submission that the site refused for the moment


Group = tuple[Resources, str, str]  # resources, family and folder of the jobs of an array


def _group(job: TrackedJob) -> Group:
    return job.resources, job.job.family, job.job.folder


class SubmissionQueue:
    """Jobs that have not been submitted yet. Only the backend's thread uses it."""

    def __init__(
        self,
        settings: ComputeSettings,
        client: Client,
        on_submitted: Callable[[TrackedJob], None],
        on_claimed_elsewhere: Callable[[TrackedJob], None],
    ):
        """`on_submitted` gets every submitted job, `on_claimed_elsewhere` those that another driver claimed first."""
        self._settings = settings
        self._site: SlurmSettings = settings.own or SlurmSettings()
        self._client = client
        self._limit: int | None = None  # of the elements of an array; None: not known yet
        self._on_submitted, self._on_claimed_elsewhere = on_submitted, on_claimed_elsewhere
        self._ready: dict[Group, list[TrackedJob]] = defaultdict(list)
        self._first_ready = self._last_ready = 0.0
        self._not_before = 0.0  # end of the back-off
        self._uncertain: list[str] = []  # names of failed submissions that may be in SLURM's queue all the same
        self.bad_nodes: set[str] = set()

    def __bool__(self) -> bool:
        """Return whether any job is waiting to be submitted."""
        return bool(self._ready)

    def add(self, job: TrackedJob) -> None:
        """Queue a job; it is submitted once its array is full or it has waited long enough."""
        job.adopted = False
        self._last_ready = time.monotonic()
        if not self._ready:
            self._first_ready = self._last_ready
        self._ready[_group(job)].append(job)

    def submit_due(self, free: int = _USUAL_LIMIT) -> None:
        """Submit full arrays, and all jobs once they have waited long enough.

        `free`: how many SLURM jobs more there may be; it counts if several jobs share one, as there is then no other
        limit than theirs.
        """
        now = time.monotonic()
        if now < self._not_before:
            return
        if self._uncertain and not self._cancel_uncertain():
            return
        due = now - self._last_ready >= QUIET_SECONDS or now - self._first_ready >= self._site.gather_seconds
        size = self._array_size() if due or max(map(len, self._ready.values()), default=0) > 1 else 1
        for group in list(self._ready):
            while array := self._next_array(self._ready[group], size, due, free):
                free -= len(array)
                taken = {job for element in array for job in element}
                self._ready[group] = [job for job in self._ready[group] if job not in taken]
                if not self._submit(array):
                    return
            if not self._ready[group]:
                del self._ready[group]

    def _next_array(self, jobs: list[TrackedJob], size: int, due: bool, free: int) -> list[list[TrackedJob]]:
        """Return the elements of the next array of at most `size`; [] if there is nothing to submit now."""
        elements = self._elements(jobs)
        if not due:
            elements = [element for element in elements if len(element) == self._most(element[0])]
            if not len(elements) >= size > 1:
                return []
        if most_together(self._settings) > 1:
            size = min(size, max(0, free))
        return elements[:size]

    def _most(self, job: TrackedJob) -> int:
        """Return how many jobs the element of a job may have."""
        return self._settings.together.get(job.job.family, 1) if job.schedule else 1

    def _elements(self, jobs: list[TrackedJob]) -> list[list[TrackedJob]]:
        """Return `jobs` as elements of an array: those of an equal schedule share one, up to the number allowed."""
        elements: list[list[TrackedJob]] = []
        growing: dict[str, list[TrackedJob]] = {}
        for job in jobs:
            element = growing.get(job.schedule) if job.schedule else None
            if element is None or len(element) >= self._most(job):
                elements.append(element := [])
                growing[job.schedule] = element
            element.append(job)
        return elements

    def _array_size(self) -> int:
        """Return the number of elements that an array may have; the site is asked before the first submission."""
        if self._limit is None:
            try:
                self._limit = self._client.array_limit()
            except CommandFailed:  # sbatch decides, and the site is asked again next time
                return min(_USUAL_LIMIT, self._site.array_size or _USUAL_LIMIT)
        return min(self._limit, self._site.array_size or self._limit)

    def withdraw(self, outputs: Iterable[str]) -> list[TrackedJob]:
        """Remove and return the jobs that write one of `outputs`."""
        selected = set(outputs)
        withdrawn = [job for group in self._ready.values() for job in group if job.job.output in selected]
        for group in self._ready.values():
            group[:] = [job for job in group if job not in withdrawn]
        return withdrawn

    def _submit(self, elements: list[list[TrackedJob]]) -> bool:
        """Claim the results and submit the jobs; return False if some are queued again for later."""
        jobs = [job for element in elements for job in element]
        try:
            folder = submission.new_folder(jobs[0].submissions)
        except OSError as error:
            return self._back_off(jobs, str(error))
        claimed, unclaimed = self._claim(jobs, folder)
        if not claimed:
            shutil.rmtree(folder, ignore_errors=True)
            return not unclaimed
        settings = self._settings
        resources = claimed[0].resources
        context = {
            "threads": settings.threads,
            "loader_workers": settings.loader_workers,
            "deterministic": settings.deterministic,
            "device": settings.device if resources.gpus_per_node else "cpu",
            "gpus": resources.gpus,
        }
        exclude = ",".join(sorted(self.bad_nodes))
        try:
            array = [shared for element in elements if (shared := [job for job in element if job in claimed])]
            requests = [[job.job for job in element] for element in array]
            job_id = submission.submit_array(
                self._client, folder, requests, context, resources, exclude, self._site.array_parallelism
            )
        except CommandFailed as failure:
            return self._handle_refusal(claimed, folder, failure, bool(exclude))
        for number, element in enumerate(array):
            for job in element:
                job.slurm_id = f"{job_id}_{number}" if len(array) > 1 else job_id
                job.together = len(element) > 1
                job.changed_at = time.monotonic()
                self._on_submitted(job)
        return not unclaimed

    def _claim(self, jobs: list[TrackedJob], folder: Path) -> tuple[list[TrackedJob], bool]:
        """Claim the jobs' results for `folder`; return the claimed jobs, and whether claiming others has failed."""
        claimed: list[TrackedJob] = []
        unclaimed, reason = [], ""
        for job in jobs:
            try:
                claim = claims.make_claim(job.job.output, folder, len(claimed), job.attempt + 1)
            except OSError as error:
                unclaimed.append(job)
                reason = str(error)
                continue
            if claim is None:
                self._on_claimed_elsewhere(job)
                continue
            job.folder, job.index, job.attempt = folder, len(claimed), job.attempt + 1
            job.slurm_id, job.heartbeat, job.row, job.misses, job.foreign = "", None, Row(""), 0, False
            claimed.append(job)
        if unclaimed:
            self._back_off(unclaimed, reason)
        return claimed, bool(unclaimed)

    def _handle_refusal(self, jobs: list[TrackedJob], folder: Path, failure: CommandFailed, excluding: bool) -> bool:
        """Queue refused jobs again if the refusal may be temporary, and return False; else fail them, return True."""
        for job in jobs:
            with suppress(OSError):
                claims.release(job.job.output)
            job.attempt = claims.last_attempt(job.job.output)
        shutil.rmtree(folder, ignore_errors=True)
        message = str(failure).removeprefix("sbatch: error: ")
        if is_temporary(failure) or not self._client.controller_responds():
            if may_have_submitted(failure):
                self._uncertain.append(folder.name)
            return self._back_off(jobs, f"sbatch: {message.removeprefix('sbatch: ')}")
        if excluding:  # the other nodes may not suffice
            self.bad_nodes.clear()
            self._put_first(jobs)
            logger.warning("sbatch: %s; trying again with nodes that have failed", message)
            return False
        for job in jobs:
            job.listener.ended(Outcome("failed", f"sbatch refused the job: {message}", retry=False))
        return True

    def _back_off(self, jobs: list[TrackedJob], reason: str) -> bool:
        """Queue jobs again and submit nothing until the site, or the disk, may have recovered; returns False."""
        seconds = min(BACK_OFF_SECONDS, 3 * self._site.poll_seconds)
        logger.warning("%s; trying again in %.0f s", reason, seconds)
        self._not_before = time.monotonic() + seconds
        self._put_first(jobs)
        return False

    def _put_first(self, jobs: list[TrackedJob]) -> None:
        if jobs:
            self._ready[_group(jobs[0])][:0] = jobs

    def _cancel_uncertain(self) -> bool:
        """Cancel jobs of submissions that only seemed to fail; return whether the site has answered."""
        try:
            self._client.cancel_named(self._uncertain)
        except CommandFailed as failure:
            return self._back_off([], f"scancel: {failure}")
        self._uncertain.clear()
        return True
