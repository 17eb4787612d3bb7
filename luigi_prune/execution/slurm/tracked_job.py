"""A job of the SLURM backend from its submission to its end, and its last known state."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

from luigi_prune.execution import claims
from luigi_prune.execution.job import Job, Listener, Outcome
from luigi_prune.execution.output import last_lines
from luigi_prune.execution.slurm.cli import Row
from luigi_prune.execution.slurm.decisions import IN_QUEUE, STATES, Observation
from luigi_prune.execution.slurm.heartbeat import (
    HEARTBEAT_SECONDS,
    FileVersion,
    Heartbeat,
    HeartbeatPaths,
    heartbeat_paths,
    read_heartbeat,
)
from luigi_prune.execution.slurm.job_text import NOT_RUNNING, job_text, kind_of
from luigi_prune.execution.slurm.options import Resources
from luigi_prune.execution.slurm.submission import element_id, may_be_deleted, start_log, start_log_path
from luigi_prune.identity.paths import checkpoint_path

MAX_FRUITLESS_RESTARTS = 3  # restarts in a row without a newer checkpoint, after which a job fails
_STALE_SECONDS = 4 * HEARTBEAT_SECONDS


@dataclass(eq=False)
class TrackedJob:
    """One job from its submission to its end."""

    job: Job
    listener: Listener
    resources: Resources
    folder: Path = field(default_factory=Path)  # of the submission
    index: int = 0
    slurm_id: str = ""
    attempt: int = 0
    adopted: bool = False  # submitted by another driver, and not yet seen alive by this one
    foreign: bool = False  # submitted by another user: neither cancelled nor cleared up
    schedule: str = ""  # jobs of an equal one can share an element of an array; "": alone
    together: bool = False  # shares its element with others
    row: Row = field(default_factory=lambda: Row(""))
    heartbeat: Heartbeat | None = None
    changed_at: float = field(
        default_factory=lambda: time.monotonic()
    )  # last change of SLURM's state or the reported outcome
    heartbeat_at: float = 0.0  # last change of the heartbeat
    absent_since: float = 0.0  # first poll without the job in the queue; 0 if the last poll had it
    unrecorded: bool = False  # the accounting has no record of the job either
    misses: int = 0  # consecutive polls in which SLURM did not know the job
    started: bool = False
    start_reported: bool = False
    stale_reported: bool = False  # SLURM has been polled because of the stale heartbeat
    starts: set[tuple[str, int]] = field(default_factory=set)  # (SLURM id, restart) of each start
    fruitless_restarts: int = 0
    checkpoint_at_start: int | None = None  # version of the checkpoint at the last start
    _versions: tuple[FileVersion | None, FileVersion | None] = (None, None)  # of the heartbeat files last read

    @property
    def paths(self) -> HeartbeatPaths:
        """The files to which the job writes its heartbeat and its failure."""
        return heartbeat_paths(self.folder, self.index)

    @property
    def submissions(self) -> Path:
        """The folder in which this driver's submissions are made."""
        return Path(self.job.folder or Path(self.job.log).parent)

    def find_id(self) -> bool:
        """Look the SLURM id up, and return whether there is one."""
        self.slurm_id = self.slurm_id or element_id(self.folder, self.index)
        return bool(self.slurm_id)

    def update_heartbeat(self, versions: dict[str, FileVersion]) -> bool:
        """Read the heartbeat if its file has changed, and return whether it has; `versions` are those in its folder."""
        paths = self.paths
        current = (versions.get(paths.name), versions.get(paths.failure_name))
        if current in (self._versions, (None, None)):
            return False
        latest = read_heartbeat(paths.failure) or read_heartbeat(paths.file)
        if latest is None:
            return False
        self._versions, self.heartbeat_at, self.stale_reported = current, time.monotonic(), False
        if latest.ended != (self.heartbeat.ended if self.heartbeat else None):
            self.changed_at = self.heartbeat_at
        self.heartbeat = latest
        self._record_start(latest.restart)
        return True

    def _record_start(self, restart: int) -> None:
        """Count restarts without a newer checkpoint, which limit a job that makes no progress."""
        self.started = True  # but maybe long ago: an adopted job is alive if SLURM has it in its queue
        if (self.slurm_id, restart) in self.starts:
            return
        version = self.checkpoint_version()
        no_progress = self.starts and version == self.checkpoint_at_start
        self.fruitless_restarts = self.fruitless_restarts + 1 if no_progress else 0
        self.starts.add((self.slurm_id, restart))
        self.checkpoint_at_start = version
        if self.heartbeat and self.heartbeat.ended is None and self._kind in ("waiting", "held", "lost"):
            self.row = Row("RUNNING", nodes=self.heartbeat.host)  # newer than the last poll

    @property
    def is_fruitless(self) -> bool:
        """Whether the job has restarted as often as allowed without a newer checkpoint."""
        return self.fruitless_restarts >= MAX_FRUITLESS_RESTARTS

    def checkpoint_version(self) -> int:
        """Return the modification time of the checkpoint in ns; 0 if there is none."""
        try:
            return checkpoint_path(self.job.output).stat().st_mtime_ns
        except OSError:
            return 0

    def update_row(self, row: Row | None) -> bool:
        """Store SLURM's row of the job (None: unknown to SLURM), and return whether it has changed."""
        if row is None:
            self.misses += 1
            if self.misses != 2:
                return False  # one miss may be a gap between two commands
            row = Row("")
        else:
            self.misses, self.absent_since = 0, 0.0
            if STATES.get(row.state, "running") in ("running", "paused"):
                self.started = True
                self.adopted = False
            elif STATES.get(row.state) in ("waiting", "held"):
                self.adopted = False
        state_changed = row.state != self.row.state
        if state_changed:
            self.changed_at = time.monotonic()
        row_changed = state_changed or row != self.row
        self.row = row
        return row_changed

    def became_stale(self) -> bool:
        """Return True once when the heartbeat of a running job becomes stale."""
        if self.stale_reported or not self.heartbeat_at or time.monotonic() - self.heartbeat_at < _STALE_SECONDS:
            return False
        self.stale_reported = True
        return True

    @property
    def _kind(self) -> str:
        return kind_of(self.row)

    @property
    def is_waiting(self) -> bool:
        """Whether the job has not started, is in the queue again, held, suspended, or lost with its node."""
        return not self.started or self._kind in NOT_RUNNING

    @property
    def needs_poll(self) -> bool:
        """Whether the job has reported something that makes SLURM's last answer out of date."""
        ended = self.heartbeat.ended if self.heartbeat else None
        return self._kind == "paused" or (ended is not None and ended.status == "interrupted")

    @property
    def is_ending(self) -> bool:
        """Whether the job or SLURM has reported its end, so that the decision may change with time alone."""
        left_queue = self.row.state != "" and STATES.get(self.row.state, "running") not in IN_QUEUE
        return left_queue or self.misses >= 2 or bool(self.heartbeat and self.heartbeat.ended)

    def observation(self) -> Observation:
        """Return everything on which a decision depends."""
        return Observation(
            state=self.row.state or ("PENDING" if self.misses < 2 else ""),
            reason=self.row.reason,
            nodes=self.row.nodes,
            seconds=time.monotonic() - self.changed_at,
            result_exists=self._result_exists(),
            outcome=self._reported_outcome(),
            started=self.started,
            heartbeat_fresh=self.heartbeat_is_fresh,
            checkpoint_advanced=(
                self.checkpoint_at_start is not None and self.checkpoint_version() != self.checkpoint_at_start
            ),
            together=self.together,
            parallel=self.resources.processes > 1,
            unrecorded=self.unrecorded,
            memory=self._memory_message() if self._kind in ("failed", "memory") else "",
        )

    @property
    def heartbeat_is_fresh(self) -> bool:
        """Whether the job has a recent heartbeat and has not reported its end."""
        running = self.heartbeat is not None and self.heartbeat.ended is None
        return running and time.monotonic() - self.heartbeat_at < _STALE_SECONDS

    def _reported_outcome(self) -> Outcome | None:
        """Return the outcome that the job reported; None if SLURM stopped this process because another one died."""
        outcome = self.heartbeat.ended if self.heartbeat else None
        interrupted = outcome is not None and outcome.status == "interrupted"
        if interrupted and self.row.state == "FAILED" and self._killed_processes():
            return None
        return outcome

    def _killed_processes(self) -> list[str]:
        """Return srun's messages about killed processes."""
        log = start_log(self.folder, self.slurm_id)
        return re.findall(r"^srun: error: .*(?:Killed|Segmentation|Aborted|Bus error).*$", log, re.M)

    def _memory_message(self) -> str:
        """Return the message of SLURM's step daemon that the job exceeded its memory; "" if there is none."""
        log = start_log(self.folder, self.slurm_id)
        found = re.search(r"^slurmstepd\S* error: .*(?:memory|oom).*$", log, re.M | re.I)
        return found[0] if found else ""

    def _result_exists(self) -> bool:
        output = Path(self.job.output)
        if output.exists():
            return True
        if self.heartbeat and self.heartbeat.ended:
            try:
                os.listdir(output.parent)  # makes a network file system refresh its cache
            except OSError:
                return False
        return output.exists()

    def text(self) -> str:
        """Return where the job is, as a line for people."""
        return job_text(self.slurm_id, self.row, self.started, self.heartbeat)

    def failure(self, message: str, retry: bool) -> Outcome:
        """Return a failed outcome whose message includes srun's messages or the end of the job's log."""
        start, killed = start_log(self.folder, self.slurm_id), self._killed_processes()
        ended = self.heartbeat.ended if self.heartbeat else None
        if killed and self.resources.processes > 1 and not self._memory_message():
            message, retry = f"{killed[0]}\n{message}", True  # errors of the other processes are a consequence
        elif ended is None:
            log = last_lines(Path(self.job.log)) if self.heartbeat else ""  # else it is that of an earlier attempt
            message = "\n".join(filter(None, (message, *killed[:1], log or start)))
        seconds = ended.seconds if ended else 0.0
        logs = [Path(self.job.log), start_log_path(self.folder, self.slurm_id)]
        existing = next((str(path) for path in (logs if self.heartbeat else reversed(logs)) if path.exists()), "")
        return Outcome("failed", f"SLURM job {self.slurm_id}: {message}", seconds=seconds, log=existing, retry=retry)

    def damaged_outcome(self) -> Outcome | None:
        """Return the reported outcome if it is a damaged input; else None."""
        outcome = self.heartbeat.ended if self.heartbeat else None
        return outcome if outcome is not None and outcome.status == "damaged" else None

    def absent_seconds(self) -> float:
        """Return for how many seconds the job has been missing from the queue."""
        self.absent_since = self.absent_since or time.monotonic()
        return time.monotonic() - self.absent_since

    def remove_files(self) -> None:
        """Remove the claims to the result and the heartbeat files, unless they belong to another user's driver."""
        if not self.foreign:
            claims.release(self.job.output)
            self.remove_heartbeat()

    def remove_heartbeat(self) -> None:
        """Remove the heartbeat files, unless the submission belongs to another results folder."""
        if not may_be_deleted(self.folder, self.submissions):
            return
        for path in (self.paths.file, self.paths.failure):
            path.unlink(missing_ok=True)
