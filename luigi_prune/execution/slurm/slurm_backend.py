"""The SLURM backend: every job a SLURM job, many of them in one array, all of them watched by one thread."""

from __future__ import annotations

import logging
import re
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from luigi_prune.errors import ConfigError, nearest
from luigi_prune.execution.job import Backend, ComputeSettings, Job, Listener, Outcome
from luigi_prune.execution.local.local_backend import LocalBackend
from luigi_prune.execution.slurm import claims, heartbeat, submission
from luigi_prune.execution.slurm.cli import Client, CommandFailed, may_pass
from luigi_prune.execution.slurm.decisions import Patience, judge
from luigi_prune.execution.slurm.options import FAMILIES, KEYS, SlurmSettings
from luigi_prune.execution.slurm.poller import Lookout
from luigi_prune.execution.slurm.submission_queue import QUIET_SECONDS, Outbox
from luigi_prune.execution.slurm.tracked_job import FRUITLESS, Ticket

logger = logging.getLogger(__name__)

JOBS_AT_ONCE = 200
_TICK_SECONDS = 1.0  # between two looks at the news
_SECOND_THOUGHT_SECONDS = 10.0


class SlurmBackend(Backend):
    """Submits ready jobs as arrays, asks SLURM for all of them at once, and believes results only."""

    name = "slurm"

    def __init__(self, settings: ComputeSettings):
        """Raises ConfigError, with the site's own words, where it would refuse a family's jobs."""
        self._settings = settings
        self._site: SlurmSettings = settings.own or SlurmSettings()
        self.slots = settings.jobs or JOBS_AT_ONCE
        self.client = Client(self._site.command_seconds)
        self._patience = Patience(self._site.grace_seconds, self._site.requeue_wait_seconds)
        array_size = self._check_site()
        self._local: LocalBackend | None = None  # for what takes no GPU: tables, reports
        self._lock = threading.Lock()  # guards the next three
        self._incoming: deque[Ticket] = deque()
        self._cancelled: list[Job] = []
        self._closing = False
        self._wake = threading.Event()
        self._detached = False
        self._tickets: list[Ticket] = []  # the thread's own, from here
        self._outbox = Outbox(settings, self.client, array_size, sent=self._watch, outrun=self._take)
        self._lookout = Lookout(self.client, self._site)
        self._thread = threading.Thread(target=self._serve, name="slurm backend", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------------------------------------ what Luigi's side calls

    def submit(self, job: Job, listener: Listener) -> None:
        """Take the job; it is submitted within moments, together with others that are ready."""
        if job.family not in FAMILIES:
            if self._local is None:
                self._local = LocalBackend(replace(self._settings, jobs=1, device="cpu", processes={}))
            self._local.submit(job, listener)
            return
        with self._lock:
            self._incoming.append(Ticket(job, listener, self._site.resources[job.family]))
        self._wake.set()

    def cancel(self, job: Job) -> None:
        """Cancel the job, wherever it is; does nothing once the driver has let go of its jobs."""
        if job.family not in FAMILIES:
            if self._local is not None:
                self._local.cancel(job)
        elif not self._detached:
            with self._lock:
                self._cancelled.append(job)
            self._wake.set()

    def resources(self, family: str) -> dict[str, int]:
        """Return what a job takes of Luigi's [resources], where those are limited there."""
        return {"slurm_jobs": 1, "gpus": self._site.resources[family].gpus} if family in FAMILIES else {}

    def interrupted(self, say: Callable[[str], None]) -> None:
        """Answer Ctrl-C: let the jobs go on (the next run adopts them) or cancel them, as [slurm] on_interrupt says."""
        count = len(self._tickets)
        self._detached = self._site.on_interrupt != "cancel"
        if count and self._site.on_interrupt == "ask":
            say(
                f"Interrupted. {count} SLURM jobs go on, and the same command takes them over; "
                f"Ctrl-C again within {_SECOND_THOUGHT_SECONDS:.0f} s cancels them."
            )
            try:
                time.sleep(_SECOND_THOUGHT_SECONDS)
            except KeyboardInterrupt:
                self._detached = False
        if count:
            say(f"{count} SLURM jobs are {'left running' if self._detached else 'cancelled'}.")

    def close(self) -> None:
        """Stop watching; jobs that were not cancelled live on."""
        with self._lock:
            self._closing = True
        self._wake.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        if self._local is not None:
            self._local.close()

    def remark(self) -> str:
        """Return what the run has asked of SLURM."""
        return "SLURM was asked: " + ", ".join(f"{count} {name}" for name, count in sorted(self.client.calls.items()))

    # ----------------------------------------------------------------------------------------------- the thread's side

    def _check_site(self) -> int:
        """Return how long an array may be; raises ConfigError where the site would refuse a job."""
        for resources in dict.fromkeys(self._site.resources.values()):
            families = [family for family in FAMILIES if self._site.resources[family] == resources]
            try:
                submission.test(self.client, resources)
            except (CommandFailed, RuntimeError) as error:
                if may_pass(str(error)) and "unable to contact" not in str(error).lower():
                    logger.warning("%s", error)  # too many jobs at the moment, perhaps: no reason not to begin
                    continue
                raise ConfigError(f"luigi.cfg: [slurm], jobs of {', '.join(families)}: {error}{_hint(error)}") from None
        try:
            limit = self.client.array_limit()
        except CommandFailed:
            limit = 1000
        return min(limit, self._site.array_size or limit)

    def _serve(self) -> None:
        while True:
            try:
                if not self._turn():
                    return
            except Exception:  # a fault of this file, or a full disk: nobody may wait for ever, and nothing is lost
                logger.exception("the SLURM backend stumbled; it goes on")
                time.sleep(_TICK_SECONDS)
            self._wake.wait(self._nap())
            self._wake.clear()

    def _turn(self) -> bool:
        """Do what is due; return whether to go on."""
        with self._lock:
            incoming, cancelled, closing = list(self._incoming), self._cancelled, self._closing
            self._incoming.clear()
            self._cancelled = []
        for ticket in incoming:
            self._take(ticket)
        if cancelled:
            self._cancel(cancelled)
        if closing:
            return False
        if not self._detached:
            self._outbox.send()
        changed = self._read_news()
        if [ticket for ticket in self._tickets if ticket.fell_silent()]:
            self._lookout.soon(0)
        if polled := self._lookout.is_due:
            for ticket in self._lookout.find_ids(self._tickets):
                self._tickets.remove(ticket)
                self._outbox.add(ticket)
            changed += self._lookout.ask(self._tickets)
        for ticket in dict.fromkeys(changed):
            self._tell(ticket)
        for ticket in list(self._tickets):
            if polled or ticket in changed or ticket.is_ending:
                self._judge(ticket)
        return True

    def _read_news(self) -> list[Ticket]:
        """Return the tickets whose jobs have said something new."""
        folders = {ticket.places.folder for ticket in self._tickets}
        marks = {folder: heartbeat.marks(folder) for folder in folders}
        changed = [ticket for ticket in self._tickets if ticket.listen(marks[ticket.places.folder])]
        if any(ticket.resources.processes > 1 and ticket.is_ending for ticket in changed):
            self._lookout.soon(_TICK_SECONDS)  # SLURM knows who was first
        return changed

    def _nap(self) -> float:
        if self._outbox:
            return QUIET_SECONDS
        return _TICK_SECONDS if self._tickets else 3600.0

    def _take(self, ticket: Ticket) -> None:
        """Adopt the job where one for this result is on its way already; else put it into the next array."""
        claim = claims.newest(ticket.job.output)
        ticket.attempt = claims.last_attempt(ticket.job.output)  # a damaged claim is one, too
        if claim is not None and Path(claim.folder).is_dir():
            ticket.folder, ticket.index = Path(claim.folder), claim.index
            ticket.adopted = True
            ticket.find_id()
            self._tickets.append(ticket)
            self._lookout.soon(0)
            return
        self._outbox.add(ticket)

    def _watch(self, ticket: Ticket) -> None:
        """Take care of a job that has been submitted."""
        self._tickets.append(ticket)
        self._tell(ticket)
        self._lookout.expect_news()

    def _tell(self, ticket: Ticket) -> None:
        """Tell the listener where the job is."""
        if ticket.began and not ticket.told_start:
            ticket.told_start = True
            ticket.listener.started()
        ticket.listener.progressed(ticket.news.fraction if ticket.news else 0.0, ticket.text())

    def _judge(self, ticket: Ticket) -> None:
        verdict = judge(ticket.sighting(), self._patience)
        if ticket.is_fruitless and (verdict.action == "again" or (verdict.action == "wait" and ticket.began)):
            self._cancel_ids([ticket.slurm_id])
            message = f"started {FRUITLESS + 1} times without a newer checkpoint in between: more time is needed"
            if not ticket.began:
                message = f"submitted {FRUITLESS + 1} times, and it never began; {verdict.message}"
            self._end(ticket, ticket.failure(message, retry=False))
        elif verdict.action == "done":
            if verdict.drop:
                self._cancel_ids([ticket.slurm_id])
            outcome = ticket.news.ended if ticket.news else None
            self._end(ticket, Outcome("done", seconds=outcome.seconds if outcome else 0.0, log=ticket.job.log))
        elif verdict.action == "fail" and not ticket.adopted:
            self._end(ticket, ticket.damaged() or ticket.failure(verdict.message, verdict.retry))
        elif verdict.action in ("fail", "again"):
            self._submit_again(ticket, verdict.message, verdict.exclude)

    def _submit_again(self, ticket: Ticket, reason: str, exclude: str) -> None:
        """Put a job that SLURM has lost into a new array, away from nodes that failed."""
        if not ticket.began and not ticket.adopted:
            ticket.fruitless += 1
        if not ticket.adopted:  # a job that another driver left dead is no news
            logger.warning("%s: %s; submitted again (SLURM job %s)", ticket.job.name, reason, ticket.slurm_id)
        if exclude:
            self._outbox.bad_nodes.update(self.client.broken(exclude))
        self._tickets.remove(ticket)
        with suppress(OSError):
            ticket.forget_news()
            self._clear_folder(ticket)
        ticket.began = ticket.told_start = False
        self._outbox.add(ticket)

    def _end(self, ticket: Ticket, outcome: Outcome) -> None:
        self._tickets.remove(ticket)
        try:
            ticket.forget()
            self._clear_folder(ticket, keep=outcome.status == "failed")
        except OSError as error:  # whatever is left lying about: nobody may wait for a job that has ended
            logger.warning("%s: %s", ticket.job.name, error)
        with suppress(Exception):
            ticket.listener.ended(outcome)

    def _clear_folder(self, ticket: Ticket, keep: bool = False) -> None:
        """Remove a submission's files when none of its jobs is left; of one with a failure, its logs stay."""
        if keep:
            (ticket.folder / "failed").touch()
        if any(other.folder == ticket.folder for other in self._tickets):
            return
        if (ticket.folder / "failed").exists():
            for pickle in ticket.folder.glob("*.pkl"):
                pickle.unlink(missing_ok=True)
        else:
            shutil.rmtree(ticket.folder, ignore_errors=True)

    def _cancel(self, jobs: Iterable[Job]) -> None:
        """Cancel jobs in the queue, and take back those that have not been submitted."""
        outputs = {job.output for job in jobs}
        waiting = self._outbox.take_back(outputs)
        chosen = [ticket for ticket in self._tickets if ticket.job.output in outputs]
        self._cancel_ids([ticket.slurm_id for ticket in chosen])
        for ticket in chosen:
            self._end(ticket, Outcome("failed", "cancelled", retry=False))
        for ticket in waiting:
            ticket.listener.ended(Outcome("failed", "cancelled", retry=False))

    def _cancel_ids(self, ids: list[str]) -> None:
        try:
            self.client.cancel([slurm_id for slurm_id in ids if slurm_id])
        except CommandFailed as failure:
            logger.warning("scancel: %s", failure)


def _hint(error: Exception) -> str:
    """Return the nearest key where sbatch does not know an option, which is how it sees a misspelt key."""
    unknown = re.search(r"unrecognized option '--([a-z0-9_-]+)", str(error))
    return nearest(unknown[1].replace("-", "_"), KEYS) if unknown else ""
