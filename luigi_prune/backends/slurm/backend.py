"""The SLURM backend: every job a SLURM job, many of them in one array, all of them watched by one thread."""

from __future__ import annotations

import logging
import re
import shutil
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from luigi_prune.backends.job import Backend, ComputeSettings, Job, Listener, Outcome
from luigi_prune.backends.local import LocalBackend
from luigi_prune.backends.slurm import claims, news, submission
from luigi_prune.backends.slurm.client import Client, CommandFailed, Row, may_have_worked, may_pass
from luigi_prune.backends.slurm.options import FAMILIES, KEYS, Resources, SlurmSettings
from luigi_prune.backends.slurm.states import IN_QUEUE, STATES, Patience, judge
from luigi_prune.backends.slurm.ticket import FRUITLESS, Ticket
from luigi_prune.errors import ConfigError, nearest

logger = logging.getLogger(__name__)

JOBS_AT_ONCE = 200
_TICK_SECONDS = 1.0  # between two looks at the news
_QUIET_SECONDS = 0.3  # nothing became ready for so long: the array may go
_BACK_OFF_SECONDS = 60.0  # after a submission that the site did not take for the moment
_SECOND_THOUGHT_SECONDS = 10.0


class SlurmBackend(Backend):
    """Submits ready jobs as arrays, asks SLURM for all of them at once, and believes results only."""

    name = "slurm"

    def __init__(self, settings: ComputeSettings):
        """Raises ConfigError, with the site's own words, where it would refuse a family's jobs."""
        self._settings = settings
        self._site: SlurmSettings = settings.slurm or SlurmSettings()
        self.slots = settings.jobs or JOBS_AT_ONCE
        self.client = Client(self._site.command_seconds)
        self._patience = Patience(self._site.grace_seconds, self._site.requeue_wait_seconds)
        self._array_size = self._check_site()
        self._local: LocalBackend | None = None  # for what takes no GPU: tables, reports
        self._lock = threading.Lock()  # guards the next three
        self._incoming: deque[Ticket] = deque()
        self._cancelled: list[Job] = []
        self._closing = False
        self._wake = threading.Event()
        self._detached = False
        self._ready: dict[tuple[Resources, str, str], list[Ticket]] = defaultdict(list)  # the thread's own, from here
        self._first_ready = self._last_ready = 0.0
        self._not_before = 0.0  # the site wants no submissions until then
        self._doubtful: list[str] = []  # names of submissions that failed, as it seems
        self._tickets: list[Ticket] = []
        self._bad_nodes: set[str] = set()
        self._next_poll = float("inf")
        self._pause = self._site.poll_seconds
        self._thread = threading.Thread(target=self._serve, name="slurm backend", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------------------------------------ what Luigi's side calls

    def submit(self, job: Job, listener: Listener) -> None:
        """Take the job; it is submitted within moments, together with others that are ready."""
        if job.family not in FAMILIES:
            if self._local is None:
                self._local = LocalBackend(replace(self._settings, jobs=1, processes={}))
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
        self._flush()
        changed = self._read_news()
        if [ticket for ticket in self._tickets if ticket.fell_silent()]:
            self._next_poll = 0.0
        if polled := time.monotonic() >= self._next_poll:
            changed += self._poll()
        for ticket in dict.fromkeys(changed):
            self._tell(ticket)
        for ticket in list(self._tickets):
            if polled or ticket in changed or ticket.is_ending:
                self._judge(ticket)
        return True

    def _read_news(self) -> list[Ticket]:
        """Return the tickets whose jobs have said something new."""
        folders = {ticket.places.folder for ticket in self._tickets}
        marks = {folder: news.marks(folder) for folder in folders}
        changed = [ticket for ticket in self._tickets if ticket.listen(marks[ticket.places.folder])]
        if any(ticket.resources.processes > 1 and ticket.is_ending for ticket in changed):
            self._next_poll = min(self._next_poll, time.monotonic() + _TICK_SECONDS)  # SLURM knows who was first
        return changed

    def _nap(self) -> float:
        if self._ready:
            return _QUIET_SECONDS
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
            self._next_poll = 0.0
            return
        self._make_ready(ticket)

    def _make_ready(self, ticket: Ticket) -> None:
        ticket.adopted = False
        self._last_ready = time.monotonic()
        if not self._ready:
            self._first_ready = self._last_ready
        self._ready[ticket.resources, ticket.exclude, ticket.job.folder].append(ticket)

    def _flush(self) -> None:
        """Submit what has waited long enough, or is enough for an array."""
        now = time.monotonic()
        if now < self._not_before or self._detached:
            return
        if self._doubtful and not self._clear_doubts():
            return
        due = now - self._last_ready >= _QUIET_SECONDS or now - self._first_ready >= self._site.gather_seconds
        for group in list(self._ready):
            while len(self._ready[group]) >= self._array_size or (due and self._ready[group]):
                part = self._ready[group][: self._array_size]
                del self._ready[group][: self._array_size]
                if not self._send(part):
                    return
            if not self._ready[group]:
                del self._ready[group]

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
            "device": settings.device if resources.gpus_per_node else "cpu",
            "gpus": resources.gpus,
        }
        exclude = ",".join(sorted({*filter(None, [own[0].exclude]), *self._bad_nodes}))
        self.client.calls["sbatch"] += 1
        try:
            jobs = [ticket.job for ticket in own]
            job_id = submission.submit(folder, jobs, context, resources, exclude, self._site.array_parallelism)
        except CommandFailed as failure:
            return self._refused(own, folder, str(failure), bool(exclude))
        for ticket in own:
            ticket.slurm_id = f"{job_id}_{ticket.index}" if len(own) > 1 else job_id
            ticket.since = time.monotonic()
            self._tickets.append(ticket)
            self._tell(ticket)
        self._expect_news()
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
                self._take(ticket)  # another driver was faster: its job is ours, too
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
            self._bad_nodes.clear()
            self._make_ready_first(tickets)
            logger.warning("sbatch: %s; trying again with nodes that have failed", message)
            return False
        for ticket in tickets:
            ticket.listener.ended(Outcome("failed", f"sbatch refused the job: {message}", retry=False))
        return True

    def _wait_with(self, tickets: list[Ticket], reason: str) -> bool:
        """Keep jobs ready until the site, or the disk, may have recovered; returns False."""
        seconds = min(_BACK_OFF_SECONDS, 3 * self._site.poll_seconds)
        logger.warning("%s; trying again in %.0f s", reason, seconds)
        self._not_before = time.monotonic() + seconds
        self._make_ready_first(tickets)
        return False

    def _make_ready_first(self, tickets: list[Ticket]) -> None:
        if tickets:
            self._ready[tickets[0].resources, tickets[0].exclude, tickets[0].job.folder][:0] = tickets

    def _clear_doubts(self) -> bool:
        """Cancel what submissions have left in the queue that seemed to fail; return whether the site has answered."""
        try:
            self.client.cancel_named(self._doubtful)
        except CommandFailed as failure:
            return self._wait_with([], f"scancel: {failure}")
        self._doubtful.clear()
        return True

    def _expect_news(self) -> None:
        """Ask SLURM soon, and then often for a while."""
        self._pause = self._site.poll_seconds
        self._next_poll = min(self._next_poll, time.monotonic() + self._pause)

    def _poll(self) -> list[Ticket]:
        """Ask SLURM for all jobs; return those of which it said something new. No answer says nothing."""
        if not self._tickets:
            self._next_poll = float("inf")
            return []
        self._next_poll = time.monotonic() + self._pause  # whatever goes wrong, SLURM has its peace until then
        changed: list[Ticket] = []
        states = {ticket: ticket.row.state for ticket in self._tickets}
        try:
            self._look_for_ids()
            rows = self.client.queue({ticket.folder.name for ticket in self._tickets})
            missing = [t for t in self._tickets if t.slurm_id and t.slurm_id not in rows]
            unknown = self._ask_accounting(missing, rows) if missing else []
            changed = [t for t in self._tickets if t.slurm_id and t not in unknown and t.see(rows.get(t.slurm_id))]
        except CommandFailed as failure:
            logger.warning("%s; nothing is decided until SLURM answers", failure)
        # another reason to wait, or another guess at the start, is nothing that has happened
        busy = any(t.row.state != states.get(t) or 0 < t.misses < 2 for t in self._tickets)
        slower = min(self._pause + self._site.poll_seconds / 2, self._site.poll_seconds_max)
        self._pause = self._site.poll_seconds if busy else slower
        self._next_poll = time.monotonic() + self._pause
        return changed

    def _ask_accounting(self, missing: list[Ticket], rows: dict[str, Row]) -> list[Ticket]:
        """Add to `rows` what the accounting knows of jobs that the queue has forgotten.

        Returns the tickets that nothing can be said about now; where the accounting is silent for long, that is none.
        """
        known: dict[str, Row] | None = None
        unknown: list[Ticket] = []
        if self.client.accounting is not False:
            try:
                known = self.client.ended(ticket.slurm_id for ticket in missing)
            except CommandFailed as failure:
                logger.warning("%s", failure)
                unknown = [t for t in missing if t.absent_for() < self._site.requeue_wait_seconds]
        for ticket in missing:
            ticket.unrecorded = known is not None and ticket.slurm_id not in known
        # what the queue has forgotten cannot be alive, whatever the accounting still believes
        over = {i: row for i, row in (known or {}).items() if STATES.get(row.state, "running") not in IN_QUEUE}
        rows |= {job_id: row for job_id, row in over.items() if job_id not in rows}
        return unknown

    def _look_for_ids(self) -> None:
        """Find the jobs of drivers that died between sbatch and writing the id down."""
        lost = [ticket for ticket in self._tickets if not ticket.find_id()]
        if not lost:
            return
        try:
            found = self.client.find({ticket.folder.name for ticket in lost})
        except CommandFailed as failure:  # the others are not to wait for that
            logger.warning("%s", failure)
            return
        for ticket in lost:
            claim = claims.newest(ticket.job.output)
            if ticket.folder.name in found:
                with suppress(OSError):
                    submission.adopt_lost(ticket.folder, found[ticket.folder.name])
                ticket.find_id()
            elif claim is None or not claims.is_submitting(ticket.job.output, claim):
                self._tickets.remove(ticket)  # it was never submitted
                self._make_ready(ticket)

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
            self._bad_nodes.update(self.client.broken(exclude))
        self._tickets.remove(ticket)
        with suppress(OSError):
            ticket.forget_news()
            self._clear_folder(ticket)
        ticket.began = ticket.told_start = False
        self._make_ready(ticket)

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
        waiting = [t for group in self._ready.values() for t in group if t.job.output in outputs]
        for group in self._ready.values():
            group[:] = [ticket for ticket in group if ticket not in waiting]
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
