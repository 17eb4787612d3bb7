"""A job in the care of the SLURM backend, and what the backend knows of it."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from luigi_prune.execution.job import Job, Listener, Outcome
from luigi_prune.execution.output import last_lines
from luigi_prune.execution.slurm import claims, heartbeat
from luigi_prune.execution.slurm.cli import Row
from luigi_prune.execution.slurm.decisions import HELD_REASONS, IN_QUEUE, STATES, Sighting
from luigi_prune.execution.slurm.heartbeat import Mark
from luigi_prune.execution.slurm.options import Resources
from luigi_prune.execution.slurm.submission import element_id, start_log
from luigi_prune.identity.paths import checkpoint_path

FRUITLESS = 3  # starts without a newer checkpoint in between that are one too many
_STALE_SECONDS = 4 * heartbeat.HEARTBEAT_SECONDS


class _Places(NamedTuple):
    """Where a job writes its news."""

    folder: Path
    file: Path
    failure: Path
    name: str
    failure_name: str


@lru_cache(maxsize=10_000)  # hundreds of jobs, looked after every second: making their paths would be most of the work
def _places(folder: Path, index: int) -> _Places:
    file = heartbeat.news_path(folder, index)
    failure = heartbeat.failure_path(file)
    return _Places(file.parent, file, failure, file.name, failure.name)


@dataclass(eq=False)
class Ticket:
    """One job from its submission to its end."""

    job: Job
    listener: Listener
    resources: Resources
    folder: Path = field(default_factory=Path)  # of the submission
    index: int = 0
    slurm_id: str = ""
    attempt: int = 0
    adopted: bool = False  # another driver submitted it, and this one has not seen it alive yet
    row: Row = field(default_factory=lambda: Row(""))
    news: heartbeat.News | None = None
    since: float = field(default_factory=lambda: time.monotonic())  # when row or news last spoke otherwise of its end
    heard: float = 0.0  # when its news last changed
    absent_since: float = 0.0  # when the queue first did not know it; 0 where it does
    unrecorded: bool = False  # the accounting has no record of it, either
    misses: int = 0  # times in a row that SLURM did not know it
    began: bool = False
    told_start: bool = False
    suspected: bool = False  # its silence has made the driver ask SLURM
    starts: set[tuple[str, int]] = field(default_factory=set)  # (SLURM id, restart) that were heard of
    fruitless: int = 0
    mark: int | None = None  # of the checkpoint at the last start
    _marks: tuple[Mark | None, Mark | None] = (None, None)  # of its news, as they were last read

    @property
    def places(self) -> _Places:
        """Where the job writes its news."""
        return _places(self.folder, self.index)

    def find_id(self) -> bool:
        """Look the SLURM id up, and return whether there is one."""
        self.slurm_id = self.slurm_id or element_id(self.folder, self.index)
        return bool(self.slurm_id)

    def listen(self, marks: dict[str, Mark]) -> bool:
        """Read the job's news where they have changed, and return whether they have; `marks` are those of the files."""
        places = self.places
        found = (marks.get(places.name), marks.get(places.failure_name))
        if found in (self._marks, (None, None)):
            return False
        latest = heartbeat.read(places.failure) or heartbeat.read(places.file)
        if latest is None:
            return False
        self._marks, self.heard, self.suspected = found, time.monotonic(), False
        if latest.ended != (self.news.ended if self.news else None):
            self.since = self.heard
        self.news = latest
        self._note_start(latest.restart)
        return True

    def _note_start(self, restart: int) -> None:
        """Count starts between which the checkpoint has not moved: the limit of a job that never gets anywhere."""
        self.began = True
        self.adopted = False
        if (self.slurm_id, restart) in self.starts:
            return
        mark = self.checkpoint_mark()
        self.fruitless = self.fruitless + 1 if self.starts and mark == self.mark else 0
        self.starts.add((self.slurm_id, restart))
        self.mark = mark

    @property
    def is_fruitless(self) -> bool:
        """Whether the job has been tried often enough without getting anywhere."""
        return self.fruitless >= FRUITLESS

    def checkpoint_mark(self) -> int:
        """Return what changes with every checkpoint; 0 where there is none."""
        try:
            return checkpoint_path(self.job.output).stat().st_mtime_ns
        except OSError:
            return 0

    def see(self, row: Row | None) -> bool:
        """Take down what SLURM says (None: it does not know the job), and return whether that is new."""
        if row is None:
            self.misses += 1
            if self.misses != 2:
                return False  # one miss may be a gap between two commands
            row = Row("")
        else:
            self.misses, self.absent_since = 0, 0.0
            if STATES.get(row.state, "running") in ("running", "paused"):
                self.began = True
                self.adopted = False
            elif STATES.get(row.state) in ("waiting", "held"):
                self.adopted = False
        changed = row.state != self.row.state
        if changed:
            self.since = time.monotonic()
        different = changed or row != self.row
        self.row = row
        return different

    def fell_silent(self) -> bool:
        """Return, once, whether a job that runs has not been heard of for a while."""
        if self.suspected or not self.heard or time.monotonic() - self.heard < _STALE_SECONDS:
            return False
        self.suspected = True
        return True

    @property
    def is_ending(self) -> bool:
        """Whether the job or SLURM has said that it is over, so that time alone can change the verdict."""
        over = self.row.state != "" and STATES.get(self.row.state, "running") not in IN_QUEUE
        return over or self.misses >= 2 or bool(self.news and self.news.ended)

    def sighting(self) -> Sighting:
        """Return everything that a verdict depends on."""
        return Sighting(
            state=self.row.state or ("PENDING" if self.misses < 2 else ""),
            reason=self.row.reason,
            nodes=self.row.nodes,
            seconds=time.monotonic() - self.since,
            present=self._present(),
            outcome=self._last_word(),
            began=self.began,
            breathing=self.is_breathing,
            advanced=self.mark is not None and self.checkpoint_mark() != self.mark,
            parallel=self.resources.processes > 1,
            unrecorded=self.unrecorded,
        )

    @property
    def is_breathing(self) -> bool:
        """Whether the job has not said that it is over, and was heard of lately."""
        over = self.news is None or self.news.ended is not None
        return not over and time.monotonic() - self.heard < _STALE_SECONDS

    def _last_word(self) -> Outcome | None:
        """Return what the job said at its end; processes that SLURM stopped because another one died do not count."""
        outcome = self.news.ended if self.news else None
        if outcome is not None and outcome.status == "interrupted" and self.row.state == "FAILED" and self._killed():
            return None
        return outcome

    def _killed(self) -> list[str]:
        """Return what srun says of processes that were killed."""
        printed = start_log(self.folder, self.slurm_id)
        return re.findall(r"^srun: error: .*(?:Killed|Segmentation|Aborted|Bus error).*$", printed, re.M)

    def _present(self) -> bool:
        output = Path(self.job.output)
        if output.exists():
            return True
        if self.news and self.news.ended:
            try:
                os.listdir(output.parent)  # makes a network file system look again
            except OSError:
                return False
        return output.exists()

    def text(self) -> str:
        """Return where the job is, for people."""
        where = f"SLURM job {self.slurm_id or '(not submitted yet)'}"
        if not self.began:
            expected = f", expected to start {self.row.start.replace('T', ' ')}" if self.row.start else ""
            held = " HELD: it needs `scontrol release`" if self.is_held else ""
            return f"{where} {self.row.state.lower() or 'pending'} ({self.row.reason or 'None'}{expected}){held}"
        if self.news is None:
            return f"{where} on {self.row.nodes or '?'}: starting"
        asleep = f" {self.row.state}" if STATES.get(self.row.state) == "paused" else ""
        return f"{where}{asleep} on {self.row.nodes or self.news.host}: {self.news.message or 'running'}"

    @property
    def is_held(self) -> bool:
        """Whether somebody has to release the job before it can run."""
        return STATES.get(self.row.state) == "held" or self.row.reason in HELD_REASONS

    def failure(self, message: str, retry: bool) -> Outcome:
        """Return the outcome of a failed job: what it said itself, who killed it, and the end of its log."""
        printed, killed = start_log(self.folder, self.slurm_id), self._killed()
        if killed and self.resources.processes > 1:
            message, retry = f"{killed[0]}\n{message}", True  # what the other processes then complained of is no cause
        elif not (self.news and self.news.ended):
            own = last_lines(Path(self.job.log)) if self.began else ""
            message = "\n".join(filter(None, (message, *killed[:1], own, printed if not own else "")))
        seconds = self.news.ended.seconds if self.news and self.news.ended else 0.0
        return Outcome(
            "failed", f"SLURM job {self.slurm_id}: {message}", seconds=seconds, log=self.job.log, retry=retry
        )

    def damaged(self) -> Outcome | None:
        """Return the outcome of a job that found one of its inputs damaged."""
        outcome = self.news.ended if self.news else None
        return outcome if outcome is not None and outcome.status == "damaged" else None

    def absent_for(self) -> float:
        """Return for how many seconds the queue has not known the job."""
        self.absent_since = self.absent_since or time.monotonic()
        return time.monotonic() - self.absent_since

    def forget(self) -> None:
        """Remove what stands beside the target and what the job has told."""
        claims.release(self.job.output)
        self.forget_news()

    def forget_news(self) -> None:
        """Remove what the job has told."""
        for path in (self.places.file, self.places.failure):
            path.unlink(missing_ok=True)
