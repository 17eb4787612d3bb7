"""Jobs that are ready: gathered into arrays, claimed, submitted, and kept where the site wants them later."""

from __future__ import annotations

import logging
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from luigi_prune.execution.job import ComputeSettings, Outcome
from luigi_prune.execution.slurm import claims, submission
from luigi_prune.execution.slurm.cli import Client, CommandFailed, Row, may_have_worked, may_pass
from luigi_prune.execution.slurm.options import Resources, SlurmSettings
from luigi_prune.execution.slurm.tracked_job import Ticket

logger = logging.getLogger(__name__)

QUIET_SECONDS = 0.3  # nothing became ready for so long: the array may go
BACK_OFF_SECONDS = 60.0  # after a submission that the site did not take for the moment


class Outbox:
    """What has not been submitted yet. Only the backend's thread touches it."""

    def __init__(
        self,
        settings: ComputeSettings,
        client: Client,
        array_size: int,
        sent: Callable[[Ticket], None],
        outrun: Callable[[Ticket], None],
    ):
        """`sent` hears of every ticket that was submitted, `outrun` of those that another driver was faster with."""
        self._settings = settings
        self._site: SlurmSettings = settings.own or SlurmSettings()
        self._client = client
        self._array_size = array_size
        self._sent, self._outrun = sent, outrun
        self._ready: dict[tuple[Resources, str], list[Ticket]] = defaultdict(list)
        self._first_ready = self._last_ready = 0.0
        self._not_before = 0.0  # the site wants no submissions until then
        self._doubtful: list[str] = []  # names of submissions that failed, as it seems
        self.bad_nodes: set[str] = set()

    def __bool__(self) -> bool:
        """Return whether anything waits to be sent."""
        return bool(self._ready)

    def add(self, ticket: Ticket) -> None:
        """Take a ticket whose job is to be submitted, as soon as it has company or has waited long enough."""
        ticket.adopted = False
        self._last_ready = time.monotonic()
        if not self._ready:
            self._first_ready = self._last_ready
        self._ready[ticket.resources, ticket.job.folder].append(ticket)

    def send(self) -> None:
        """Submit what has waited long enough, or is enough for an array."""
        now = time.monotonic()
        if now < self._not_before:
            return
        if self._doubtful and not self._clear_doubts():
            return
        due = now - self._last_ready >= QUIET_SECONDS or now - self._first_ready >= self._site.gather_seconds
        for group in list(self._ready):
            while len(self._ready[group]) >= self._array_size or (due and self._ready[group]):
                part = self._ready[group][: self._array_size]
                del self._ready[group][: self._array_size]
                if not self._send(part):
                    return
            if not self._ready[group]:
                del self._ready[group]

    def take_back(self, outputs: Iterable[str]) -> list[Ticket]:
        """Remove and return the tickets of jobs that write one of `outputs`."""
        chosen = set(outputs)
        found = [ticket for group in self._ready.values() for ticket in group if ticket.job.output in chosen]
        for group in self._ready.values():
            group[:] = [ticket for ticket in group if ticket not in found]
        return found

    def _send(self, tickets: list[Ticket]) -> bool:
        """Claim the results and submit the jobs; return False where some are ready again, to be sent later."""
        try:
            folder = submission.new_folder(tickets[0].job.folder or Path(tickets[0].job.log).parent)
        except OSError as error:
            return self._wait_with(tickets, str(error))
        own, unclaimed = self._claim(tickets, folder)
        if not own:
            shutil.rmtree(folder, ignore_errors=True)
            return not unclaimed
        settings = self._settings
        resources = own[0].resources
        context = {
            "threads": settings.threads,
            "loader_workers": settings.loader_workers,
            "deterministic": settings.deterministic,
            "device": settings.device if resources.gpus_per_node else "cpu",
            "gpus": resources.gpus,
        }
        exclude = ",".join(sorted(self.bad_nodes))
        self._client.calls["sbatch"] += 1
        try:
            jobs = [ticket.job for ticket in own]
            job_id = submission.submit(folder, jobs, context, resources, exclude, self._site.array_parallelism)
        except CommandFailed as failure:
            return self._refused(own, folder, str(failure), bool(exclude))
        for ticket in own:
            ticket.slurm_id = f"{job_id}_{ticket.index}" if len(own) > 1 else job_id
            ticket.since = time.monotonic()
            self._sent(ticket)
        return not unclaimed

    def _claim(self, tickets: list[Ticket], folder: Path) -> tuple[list[Ticket], bool]:
        """Return the tickets whose results are ours to make in `folder`, and whether others have to wait for that."""
        own: list[Ticket] = []
        unclaimed, reason = [], ""
        for ticket in tickets:
            try:
                claim = claims.stake(ticket.job.output, folder, len(own), ticket.attempt + 1)
            except OSError as error:
                unclaimed.append(ticket)
                reason = str(error)
                continue
            if claim is None:
                self._outrun(ticket)  # another driver was faster: its job is ours, too
                continue
            ticket.folder, ticket.index, ticket.attempt = folder, len(own), ticket.attempt + 1
            ticket.slurm_id, ticket.news, ticket.row, ticket.misses = "", None, Row(""), 0
            own.append(ticket)
        if unclaimed:
            self._wait_with(unclaimed, reason)
        return own, bool(unclaimed)

    def _refused(self, tickets: list[Ticket], folder: Path, message: str, excluding: bool) -> bool:
        """Try again later where the site is only busy; else the jobs have failed. Returns False in the first case."""
        for ticket in tickets:
            with suppress(OSError):
                claims.release(ticket.job.output)
            ticket.attempt = claims.last_attempt(ticket.job.output)
        shutil.rmtree(folder, ignore_errors=True)
        if may_pass(message):
            if may_have_worked(message):
                self._doubtful.append(folder.name)
            return self._wait_with(tickets, f"sbatch: {message}")
        if excluding:  # there may be no other nodes
            self.bad_nodes.clear()
            self._make_ready_first(tickets)
            logger.warning("sbatch: %s; trying again with nodes that have failed", message)
            return False
        for ticket in tickets:
            ticket.listener.ended(Outcome("failed", f"sbatch refused the job: {message}", retry=False))
        return True

    def _wait_with(self, tickets: list[Ticket], reason: str) -> bool:
        """Keep jobs ready until the site, or the disk, may have recovered; returns False."""
        seconds = min(BACK_OFF_SECONDS, 3 * self._site.poll_seconds)
        logger.warning("%s; trying again in %.0f s", reason, seconds)
        self._not_before = time.monotonic() + seconds
        self._make_ready_first(tickets)
        return False

    def _make_ready_first(self, tickets: list[Ticket]) -> None:
        if tickets:
            self._ready[tickets[0].resources, tickets[0].job.folder][:0] = tickets

    def _clear_doubts(self) -> bool:
        """Cancel what submissions have left in the queue that seemed to fail; return whether the site has answered."""
        try:
            self._client.cancel_named(self._doubtful)
        except CommandFailed as failure:
            return self._wait_with([], f"scancel: {failure}")
        self._doubtful.clear()
        return True
