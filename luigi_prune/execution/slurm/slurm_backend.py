"""The SLURM backend: submits jobs as arrays and tracks all of them from one thread."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from luigi_prune.execution import claims
from luigi_prune.execution.bundles import schedule_of
from luigi_prune.execution.claims import Claim
from luigi_prune.execution.job import Backend, ComputeSettings, Job, Listener, Outcome, most_together
from luigi_prune.execution.local.local_backend import LocalBackend
from luigi_prune.execution.process_claims import is_alive
from luigi_prune.execution.slurm import submission
from luigi_prune.execution.slurm.cli import Client, Row
from luigi_prune.execution.slurm.decisions import Timeouts, decide
from luigi_prune.execution.slurm.elements import sharing
from luigi_prune.execution.slurm.heartbeat import file_versions
from luigi_prune.execution.slurm.options import FAMILIES, SlurmSettings
from luigi_prune.execution.slurm.poller import Poller
from luigi_prune.execution.slurm.site_check import check_folders, check_site
from luigi_prune.execution.slurm.submission_folder import computes, has_pending, is_mine, is_shared
from luigi_prune.execution.slurm.submission_queue import QUIET_SECONDS, SubmissionQueue
from luigi_prune.execution.slurm.tracked_job import MAX_FRUITLESS_RESTARTS, TrackedJob

logger = logging.getLogger(__name__)

JOBS_AT_ONCE = 200
_TICK_SECONDS = 1.0  # between two scans of the heartbeats
_CONFIRM_SECONDS = 10.0  # for the second Ctrl-C


class SlurmBackend(Backend):
    """Submits ready jobs as arrays and polls SLURM for all of them at once; success is the result file alone."""

    name = "slurm"
    bundles = True

    def __init__(self, settings: ComputeSettings):
        """Asks SLURM nothing: a run that computes nothing, or whose jobs are all on their way, needs no site."""
        self._settings = settings
        self._site: SlurmSettings = settings.own or SlurmSettings()
        self.slots = settings.jobs or JOBS_AT_ONCE
        self.together = most_together(settings)
        self.client = Client(self._site.command_seconds)
        self._timeouts = Timeouts(self._site.grace_seconds, self._site.requeue_wait_seconds)
        self._local: LocalBackend | None = None  # for jobs that need no GPU: tables, reports
        self._lock = threading.Lock()  # guards the next three
        self._incoming: deque[TrackedJob] = deque()
        self._cancelled: list[Job] = []
        self._closing = False
        self._wake = threading.Event()
        self._detached = False
        self._jobs: list[TrackedJob] = []  # from here on, used by the thread only
        self._resubmitted: dict[str, list[str]] = {}  # reason -> names, of this tick
        self._queue = SubmissionQueue(
            settings, self.client, on_submitted=self._track, on_claimed_elsewhere=self._adopt_or_queue
        )
        self._poller = Poller(self.client, self._site)
        self._thread = threading.Thread(target=self._serve, name="slurm backend", daemon=True)
        self._thread.start()

    def prepare(self, jobs: Iterable[Job]) -> None:
        """Check that the site takes those of `jobs` that are not on their way already; raises ConfigError."""
        new = [job for job in jobs if job.family in FAMILIES and self._claim_of_others(job) is None]
        check_folders((Path(job.output).parent for job in new), (Path(job.folder) for job in new))
        check_site(self.client, self._site, [family for family in FAMILIES if family in {job.family for job in new}])

    def submit(self, job: Job, listener: Listener) -> None:
        """Accept the job; it is submitted within moments, together with others that are ready."""
        if job.family not in FAMILIES:
            if self._local is None:
                self._local = LocalBackend(replace(self._settings, jobs=1, device="cpu", processes={}, together={}))
            self._local.submit(job, listener)
            return
        if "%" in job.folder:
            message = f"{job.folder}: SLURM reads % in the names of log files as a pattern; choose another folder"
            listener.ended(Outcome("failed", message, retry=False))
            return
        schedule = schedule_of(job, self._settings.together)
        with self._lock:
            self._incoming.append(TrackedJob(job, listener, self._site.resources[job.family], schedule=schedule))
        self._wake.set()

    def cancel(self, job: Job) -> None:
        """Cancel the job, submitted or not; does nothing once the driver has detached from its jobs."""
        if job.family not in FAMILIES:
            if self._local is not None:
                self._local.cancel(job)
        elif not self._detached:
            with self._lock:
                self._cancelled.append(job)
            self._wake.set()

    def resources(self, family: str) -> dict[str, int]:
        """Return the amounts of Luigi's [resources] that a job takes."""
        return {"slurm_jobs": 1, "gpus": self._site.resources[family].gpus} if family in FAMILIES else {}

    def makes_claims(self, family: str) -> bool:
        """Return whether jobs of this family are submitted to SLURM."""
        return family in FAMILIES

    def interrupted(self, say: Callable[[str], None]) -> None:
        """Handle Ctrl-C as [slurm] on_interrupt sets: leave the jobs running for the next run, or cancel them."""
        count = self._elements()
        self._detached = self._site.on_interrupt != "cancel"
        if count and self._site.on_interrupt == "ask":
            say(
                f"Interrupted. {count} SLURM jobs keep running, and the same command adopts them; "
                f"press Ctrl-C again within {_CONFIRM_SECONDS:.0f} s to cancel them."
            )
            try:
                time.sleep(_CONFIRM_SECONDS)
            except KeyboardInterrupt:
                self._detached = False
        if count:
            say(f"{count} SLURM jobs are {'left running' if self._detached else 'cancelled'}.")

    def close(self) -> None:
        """Stop tracking; jobs that were not cancelled keep running."""
        with self._lock:
            self._closing = True
        self._wake.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        if self._local is not None:
            self._local.close()

    def remark(self) -> str:
        """Return the number of calls of each SLURM command."""
        return "SLURM commands: " + ", ".join(f"{count} {name}" for name, count in sorted(self.client.calls.items()))

    def _serve(self) -> None:
        """Run ticks until `close`; everything below is called by the backend's thread only."""
        while True:
            try:
                if not self._tick():
                    return
            except Exception:  # a bug or a full disk must not leave tasks waiting for ever
                logger.exception("error in the SLURM backend; continuing")
                time.sleep(_TICK_SECONDS)
            self._wake.wait(self._idle_seconds())
            self._wake.clear()

    def _tick(self) -> bool:
        """Do everything that is due; return whether to continue."""
        with self._lock:
            incoming, cancelled, closing = list(self._incoming), self._cancelled, self._closing
            self._incoming.clear()
            self._cancelled = []
        for job in incoming:
            self._adopt_or_queue(job)
        if cancelled:
            self._cancel(cancelled)
        if closing:
            return False
        if not self._detached:
            self._queue.submit_due(self.slots - self._elements())
        changed = self._read_heartbeats()
        if [job for job in self._jobs if job.became_stale()]:
            self._poller.poll_within(0)
        if polled := self._poller.is_due:
            for job in self._poller.recover_ids(self._jobs):
                self._jobs.remove(job)
                self._queue.add(job)
            changed += self._poller.poll(self._jobs)
        for job in dict.fromkeys(changed):
            self._report(job)
        for job in list(self._jobs):
            if polled or job in changed or job.is_ending:
                self._act(job)
        self._log_resubmitted()
        return True

    def _read_heartbeats(self) -> list[TrackedJob]:
        """Return the jobs whose heartbeat has changed."""
        versions = {folder: file_versions(folder) for folder in {job.paths.folder for job in self._jobs}}
        changed = [job for job in self._jobs if job.update_heartbeat(versions[job.paths.folder])]
        if any(job.resources.processes > 1 and job.is_ending for job in changed):
            self._poller.poll_within(_TICK_SECONDS)  # only SLURM knows which process failed first
        if any(job.needs_poll for job in changed):
            self._poller.poll_soon()
        return changed

    def _idle_seconds(self) -> float:
        if self._queue and self._elements() < self.slots:
            return QUIET_SECONDS
        return _TICK_SECONDS if self._jobs else 3600.0

    @staticmethod
    def _claim_of_others(job: Job) -> Claim | None:
        """Return the claim of the SLURM job that computes the job's result; None if there is none."""
        claim = claims.newest(job.output)
        return claim if claim is not None and computes(claim, job.output, job.folder) else None

    def _adopt_or_queue(self, job: TrackedJob) -> None:
        """Adopt the SLURM job that already computes this result; else queue the job for submission."""
        claim = self._claim_of_others(job.job)
        job.attempt = claims.last_attempt(job.job.output)  # also counts a damaged claim
        if claim is None:
            holder = claims.newest(job.job.output)
            if holder is not None and holder.is_of_process and is_alive(job.job.output, holder):
                job.listener.ended(Outcome("elsewhere"))
            else:
                self._queue.add(job)
            return
        job.folder, job.index = Path(claim.folder), claim.index
        job.adopted, job.foreign = True, not is_mine(job.job.output, claim)
        job.together = len(sharing(job.folder, job.index)) > 1
        job.find_id()
        self._jobs.append(job)
        if self._poller.answer(job):
            self._report(job)
        else:
            self._poller.poll_within(0)

    def _track(self, job: TrackedJob) -> None:
        """Track a job that has just been submitted."""
        self._jobs.append(job)
        self._report(job)
        self._poller.reset_interval()

    def _report(self, job: TrackedJob) -> None:
        """Report the job's state to its listener."""
        if job.start_reported == job.is_waiting:
            job.start_reported = not job.is_waiting
            if job.is_waiting:
                job.listener.requeued()
            else:
                job.listener.started()
        job.listener.progressed(job.heartbeat.fraction if job.heartbeat else 0.0, job.text())

    def _act(self, job: TrackedJob) -> None:
        """Decide about a job and carry the decision out."""
        decision = decide(job.observation(), self._timeouts)
        restarting = decision.action == "resubmit" or (decision.action == "wait" and job.started)
        if job.is_fruitless and restarting:
            self._stop([job])
            starts = MAX_FRUITLESS_RESTARTS + 1
            message = f"started {starts} times without a newer checkpoint in between: it needs more time"
            if not job.started:
                message = f"submitted {starts} times but never started; {decision.message}"
            self._end(job, job.failure(message, retry=job.together))
        elif decision.action == "done":
            if decision.cancel:
                self._stop([job])
            outcome = job.heartbeat.ended if job.heartbeat else None
            self._end(job, Outcome("done", seconds=outcome.seconds if outcome else 0.0, log=job.job.log))
        elif decision.action == "fail" and not job.adopted:
            self._end(job, job.damaged_outcome() or job.failure(decision.message, decision.retry))
        elif decision.action in ("fail", "resubmit"):
            self._resubmit(job, decision.message, decision.exclude)

    def _stop(self, jobs: list[TrackedJob]) -> None:
        """Cancel jobs, except those of other users; one that shares its process stops once its claim is removed."""
        outputs = {job.job.output for job in jobs}
        mine = [job for job in jobs if not job.foreign]
        alone = [job for job in mine if not job.together or not is_shared(job.folder, job.index, outputs)]
        self.client.try_cancel(list(dict.fromkeys(job.slurm_id for job in alone)))

    def _elements(self) -> int:
        """Return how many SLURM jobs there are: several jobs may share one."""
        return len({(job.folder, job.slurm_id or job.index) for job in list(self._jobs)})

    def _resubmit(self, job: TrackedJob, reason: str, exclude: str) -> None:
        """Queue a job again that SLURM has lost, avoiding nodes that failed."""
        if not job.started and not job.adopted:
            job.fruitless_restarts += 1
        if not job.adopted:  # an adopted job that is already dead needs no warning
            self._resubmitted.setdefault(reason, []).append(f"{job.job.name} (SLURM job {job.slurm_id})")
        if exclude:
            self._queue.bad_nodes.update(self.client.failed_nodes(exclude))
        self._jobs.remove(job)
        with suppress(OSError):
            job.remove_heartbeat()
            self._clear_submission(job, failed=False)
        job.started, job.row = False, Row("")
        self._report(job)
        self._queue.add(job)

    def _log_resubmitted(self) -> None:
        """Log a line per reason for which jobs were submitted again: a node, or a controller, may take many with it."""
        for reason, names in self._resubmitted.items():
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            logger.warning("%s%s: %s; submitted again", names[0], more, reason)
        self._resubmitted.clear()

    def _end(self, job: TrackedJob, outcome: Outcome) -> None:
        self._jobs.remove(job)
        try:
            job.remove_files()
            self._clear_submission(job, failed=outcome.status == "failed")
        except OSError as error:  # leftover files must not keep the task waiting
            logger.warning("%s: %s", job.job.name, error)
        with suppress(Exception):
            job.listener.ended(outcome)

    def _clear_submission(self, job: TrackedJob, failed: bool) -> None:
        """Remove the job's submission unless its other jobs, or other drivers, still need it."""
        in_use = any(other.folder == job.folder for other in self._jobs) or has_pending(job.folder, job.index)
        submission.clear_folder(job.folder, job.submissions, in_use, failed)

    def _cancel(self, jobs: Iterable[Job]) -> None:
        """Cancel submitted jobs and withdraw the others."""
        outputs = {job.output for job in jobs}
        withdrawn = self._queue.withdraw(outputs)
        submitted = [job for job in self._jobs if job.job.output in outputs]
        self._stop(submitted)
        for job in submitted:
            self._end(job, Outcome("failed", "cancelled", retry=False))
        for job in withdrawn:
            job.listener.ended(Outcome("failed", "cancelled", retry=False))
