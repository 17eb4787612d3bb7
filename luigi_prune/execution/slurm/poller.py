"""What SLURM says of jobs: asked for all of them at once, seldom while nothing happens, and believed with care."""

from __future__ import annotations

import logging
import time
from contextlib import suppress

from luigi_prune.execution.slurm import claims, submission
from luigi_prune.execution.slurm.cli import Client, CommandFailed, Row
from luigi_prune.execution.slurm.decisions import IN_QUEUE, STATES
from luigi_prune.execution.slurm.options import SlurmSettings
from luigi_prune.execution.slurm.tracked_job import Ticket

logger = logging.getLogger(__name__)


class Lookout:
    """Knows when to ask SLURM next, and asks. Only the backend's thread touches it."""

    def __init__(self, client: Client, site: SlurmSettings):
        self._client = client
        self._site = site
        self._next = float("inf")
        self._pause = site.poll_seconds

    @property
    def is_due(self) -> bool:
        """Whether it is time to ask."""
        return time.monotonic() >= self._next

    def soon(self, seconds: float) -> None:
        """Ask within so many seconds."""
        self._next = min(self._next, time.monotonic() + seconds)

    def expect_news(self) -> None:
        """Ask SLURM soon, and then often for a while."""
        self._pause = self._site.poll_seconds
        self._next = min(self._next, time.monotonic() + self._pause)

    def ask(self, tickets: list[Ticket]) -> list[Ticket]:
        """Ask SLURM for all jobs; return those of which it said something new. No answer says nothing."""
        if not tickets:
            self._next = float("inf")
            return []
        self._next = time.monotonic() + self._pause  # whatever goes wrong, SLURM has its peace until then
        changed: list[Ticket] = []
        states = {ticket: ticket.row.state for ticket in tickets}
        try:
            rows = self._client.queue({ticket.folder.name for ticket in tickets})
            missing = [t for t in tickets if t.slurm_id and t.slurm_id not in rows]
            unknown = self._ask_accounting(missing, rows) if missing else []
            changed = [t for t in tickets if t.slurm_id and t not in unknown and t.see(rows.get(t.slurm_id))]
        except CommandFailed as failure:
            logger.warning("%s; nothing is decided until SLURM answers", failure)
        # another reason to wait, or another guess at the start, is nothing that has happened
        busy = any(t.row.state != states.get(t) or 0 < t.misses < 2 for t in tickets)
        slower = min(self._pause + self._site.poll_seconds / 2, self._site.poll_seconds_max)
        self._pause = self._site.poll_seconds if busy else slower
        self._next = time.monotonic() + self._pause
        return changed

    def find_ids(self, tickets: list[Ticket]) -> list[Ticket]:
        """Find the jobs of drivers that died between sbatch and writing the id down; return those never submitted."""
        lost = [ticket for ticket in tickets if not ticket.find_id()]
        if not lost:
            return []
        try:
            found = self._client.find({ticket.folder.name for ticket in lost})
        except CommandFailed as failure:  # the others are not to wait for that
            logger.warning("%s", failure)
            return []
        never = []
        for ticket in lost:
            claim = claims.newest(ticket.job.output)
            if ticket.folder.name in found:
                with suppress(OSError):
                    submission.adopt_lost(ticket.folder, found[ticket.folder.name])
                ticket.find_id()
            elif claim is None or not claims.is_submitting(ticket.job.output, claim):
                never.append(ticket)
        return never

    def _ask_accounting(self, missing: list[Ticket], rows: dict[str, Row]) -> list[Ticket]:
        """Add to `rows` what the accounting knows of jobs that the queue has forgotten.

        Returns the tickets that nothing can be said about now; where the accounting is silent for long, that is none.
        """
        known: dict[str, Row] | None = None
        unknown: list[Ticket] = []
        if self._client.accounting is not False:
            try:
                known = self._client.ended(ticket.slurm_id for ticket in missing)
            except CommandFailed as failure:
                logger.warning("%s", failure)
                unknown = [t for t in missing if t.absent_for() < self._site.requeue_wait_seconds]
        for ticket in missing:
            ticket.unrecorded = known is not None and ticket.slurm_id not in known
        # what the queue has forgotten cannot be alive, whatever the accounting still believes
        over = {i: row for i, row in (known or {}).items() if STATES.get(row.state, "running") not in IN_QUEUE}
        rows |= {job_id: row for job_id, row in over.items() if job_id not in rows}
        return unknown
