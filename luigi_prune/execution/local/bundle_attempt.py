"""One attempt at several jobs in one process: each ends by itself, and is stopped by itself."""

from __future__ import annotations

import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from luigi_prune.execution.job import Job, Listener, Outcome
from luigi_prune.execution.local.attempt import Attempt
from luigi_prune.execution.local.child import stop_file
from luigi_prune.execution.local.fork_server import Child

_CANCELLED = Outcome("failed", "cancelled", retry=False)


@dataclass(eq=False)
class BundleAttempt(Attempt):
    """Jobs that share a process; the first one's log has the output of the process."""

    members: list[tuple[Job, Listener]] = field(default_factory=list)
    _reported: set[int] = field(default_factory=set)  # members whose end the listener has
    _stopping: dict[int, float] = field(default_factory=dict)  # cancelled member -> end of its grace period

    @property
    def name(self) -> str:
        """The name of the first job and the number of the others."""
        return f"{self.job.name} and {len(self.members) - 1} more"

    def _jobs(self) -> list[Job]:
        return [job for job, _ in self.members]

    def _handle(self, rank: int, message: dict) -> None:
        member = message.get("member", 0)
        if "started" in message and not self.started:
            self.started = True
            for _, listener in self.members:
                listener.started()
        elif "progress" in message and member not in self._reported:
            self.members[member][1].progressed(*message["progress"])
        elif "outcome" in message:
            outcome = Outcome(**message["outcome"])
            if member in self._stopping and outcome.status != "done":
                outcome = _CANCELLED
            self._end(member, outcome)
            if len(self._reported) == len(self.members):
                self.outcomes[rank] = outcome
                self._end_within_grace()

    def _end(self, member: int, outcome: Outcome, log: str = "") -> None:
        """Report the end of a job, once."""
        self._stopping.pop(member, None)
        if member not in self._reported:
            self._reported.add(member)
            job, listener = self.members[member]
            if self.cancelled and outcome.status != "done":
                outcome = _CANCELLED
            listener.ended(replace(outcome, log=log or job.log))

    def _crash_message(self, child: Child) -> str:
        left = len(self.members) - len(self._reported)
        together = f" ({left} jobs that shared its process failed together; each is tried alone)" if left > 1 else ""
        cause, _, rest = super()._crash_message(child).partition("\n")
        return f"{cause}{together}\n{rest}".strip()

    def cancel(self, jobs: Collection[Job] | None = None) -> None:
        """Stop the jobs among `jobs` (None: all); the process ends with the last one."""
        chosen = {i for i, (job, _) in enumerate(self.members) if jobs is None or job in jobs} - self._reported
        if jobs is None or (chosen and len(chosen | self._reported | self._stopping.keys()) == len(self.members)):
            self.cancelled = True
            self.terminate()
            return
        for member in chosen - self._stopping.keys():
            self._stopping[member] = time.monotonic() + self.grace_seconds
            with suppress(OSError):
                Path(stop_file(self.folder, member)).touch()

    @property
    def deadline(self) -> float | None:
        """The end of the first grace period, of the process or of a cancelled job."""
        return min([*self._stopping.values(), *([] if self.kill_at is None else [self.kill_at])], default=None)

    def kill_if_late(self, now: float) -> None:
        """Kill the process after its grace period; report cancelled jobs, which write no results, after theirs."""
        for member in [member for member, end in self._stopping.items() if now >= end]:
            self._end(member, _CANCELLED)
            if len(self._reported) == len(self.members):
                self.terminate()
        super().kill_if_late(now)

    def give_up(self, outcome: Outcome) -> None:
        """Kill the process and report `outcome` for all jobs that have not ended."""
        for child in self.children:
            child.kill()
        self.release()
        for member in range(len(self.members)):
            self._end(member, outcome)

    def _report_end(self) -> None:
        """Report the end of the jobs that have not reported it: the process has died, or could not be started."""
        outcome = self.failures[0][1] if self.failures else Outcome("failed", "the process ended without an outcome")
        for member in range(len(self.members)):
            self._end(member, outcome, log=str(self.log))
