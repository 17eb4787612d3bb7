"""The state table: what to do about a job by its SLURM state, its reported outcome, and whether its result exists.

Success depends on the result alone. SLURM states only ever mean failure, and only if unambiguous: the decision is to
wait while a state is unknown, a command has failed, or a result may still become visible.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from luigi_prune.execution.job import Outcome

Kind = Literal[
    "waiting", "held", "running", "paused", "completed", "failed", "memory", "deadline", "cancelled", "lost", "timeout"
]
STATES: dict[str, Kind] = {
    "PENDING": "waiting",
    "CONFIGURING": "waiting",
    "REQUEUED": "waiting",
    "REQUEUE_FED": "waiting",
    "RESV_DEL_HOLD": "waiting",
    "POWER_UP_NODE": "waiting",
    "EXPEDITING": "waiting",
    "REQUEUE_HOLD": "held",
    "SPECIAL_EXIT": "held",
    "RUNNING": "running",
    "COMPLETING": "running",
    "STAGE_OUT": "running",
    "SIGNALING": "running",
    "SUSPENDED": "paused",
    "STOPPED": "paused",
    "RESIZING": "paused",
    "COMPLETED": "completed",
    "FAILED": "failed",
    "OUT_OF_MEMORY": "memory",
    "DEADLINE": "deadline",
    "TIMEOUT": "timeout",
    "CANCELLED": "cancelled",
    "PREEMPTED": "lost",
    "NODE_FAIL": "lost",
    "BOOT_FAIL": "lost",
    "LAUNCH_FAILED": "lost",
    "REVOKED": "lost",
}
IN_QUEUE = ("waiting", "held", "running", "paused")
_NODE_FAILURES = ("NODE_FAIL", "BOOT_FAIL", "LAUNCH_FAILED")
LAUNCH_FAILURES = ("JobLaunchFailure", "exit code 0:53")  # squeue's reason, and what is left of it in the accounting
_OUT_OF_MEMORY = "exit code 0:125"  # in the accounting, whatever the state; without cgroups, only SLURM's message tells


@dataclass(frozen=True)
class Observation:
    """What is known of a job at one moment."""

    state: str = ""  # as SLURM spells it; "" if SLURM does not know the job
    reason: str = ""
    nodes: str = ""
    seconds: float = 0.0  # since the state or the reported outcome last changed
    result_exists: bool = False
    outcome: Outcome | None = None  # reported by the job at its end
    started: bool = False
    heartbeat_fresh: bool = False
    checkpoint_advanced: bool = False  # the checkpoint is newer than when the job started
    together: bool = False  # other jobs share its process, and its end; a retry runs alone
    parallel: bool = False  # several processes: if one dies the others fail too, and only SLURM knows which was first
    unrecorded: bool = False  # the accounting works and has no record of the job
    memory: str = ""  # SLURM's message that the job exceeded its memory


@dataclass(frozen=True)
class Timeouts:
    """How long to wait, in seconds."""

    grace: float = 30.0  # for a result to become visible
    requeue: float = 300.0  # for a preempted job to come back


@dataclass(frozen=True)
class Decision:
    """What to do: keep waiting, end the job as done or failed, or submit it again."""

    action: Literal["wait", "done", "fail", "resubmit"]
    message: str = ""
    retry: bool = True  # whether Luigi may try again, with action "fail"
    exclude: str = ""  # nodes to avoid, with action "resubmit"
    cancel: bool = False  # cancel the job, which is still in the queue, with action "done"


WAIT = Decision("wait")


def decide(job: Observation, timeouts: Timeouts) -> Decision:
    """Return what to do about a job."""
    kind = STATES.get(job.state, "running") if job.state else ""
    if job.result_exists:
        if kind in ("running", "paused") and job.outcome is None:
            return WAIT  # the job is about to report its end
        return Decision("done", cancel=kind in ("waiting", "held"))
    if kind in IN_QUEUE and (job.outcome is None or job.outcome.status == "interrupted"):
        return WAIT
    if kind in IN_QUEUE and job.parallel and job.seconds < timeouts.grace:
        return WAIT
    reported_done = job.outcome is not None and job.outcome.status == "done"
    if kind == "cancelled" and not reported_done:
        return Decision("fail", "the SLURM job was cancelled", retry=False)
    if reported_done:
        if job.seconds < timeouts.grace or kind in IN_QUEUE:
            return WAIT  # written on another node, not visible on this one yet
        message = "the job reported that it wrote its result, but the file does not exist: is the folder shared?"
        return Decision("fail", message, retry=kind != "cancelled")
    if kind == "memory" or (kind == "failed" and (job.memory or job.reason == _OUT_OF_MEMORY)):
        return _decide_memory(job, timeouts)
    if job.outcome is not None and job.outcome.status != "interrupted":
        return Decision("fail", job.outcome.message, retry=job.outcome.retry)
    return _decide_ended(kind, job, timeouts)


def _decide_memory(job: Observation, timeouts: Timeouts) -> Decision:
    """Return what to do about a job that SLURM killed for its memory, whose processes may have been told to stop."""
    reported = job.outcome is not None and job.outcome.status == "failed"
    if job.seconds < timeouts.grace and not reported:
        return WAIT
    fewer = ", a smaller [compute] together" if job.together else ""
    message = f"out of memory: smaller batches{fewer} or a larger mem_gb help"
    more = job.outcome.message if reported and job.outcome else ""
    return Decision("fail", "\n".join(filter(None, (message, job.memory, more))), retry=job.together)


def _decide_ended(kind: str, job: Observation, timeouts: Timeouts) -> Decision:
    """Return what to do about a job that has left the queue without a result and without reporting an outcome."""
    if kind == "":
        if job.heartbeat_fresh:
            return WAIT  # SLURM has lost its record of the job, but the job runs
        if job.unrecorded and not job.started:
            return Decision("fail", "the SLURM job left the queue before it started: cancelled?", retry=False)
        return Decision("resubmit", "SLURM does not know the job any more")
    if kind == "lost":
        if job.seconds < timeouts.requeue:
            return WAIT  # SLURM requeues the job itself if the site allows it
        node = job.nodes if job.state in _NODE_FAILURES else ""
        return Decision("resubmit", f"{job.state} on {job.nodes or 'its node'}", exclude=node)
    if kind == "timeout":
        if job.checkpoint_advanced:
            return Decision("resubmit", "over its time limit; continuing from its checkpoint")
        if job.seconds < timeouts.grace:
            return WAIT
        message = "over its time limit without a checkpoint: it needs a larger timeout_min"
        return Decision("fail", message, retry=job.together)
    if job.outcome is not None:  # interrupted and not requeued
        return Decision("resubmit", f"stopped ({job.state})")
    if job.seconds < timeouts.grace:
        return WAIT
    if kind == "completed":
        return Decision("fail", "the SLURM job ended without an error and without a result")
    if kind == "deadline":
        return Decision("fail", "its deadline passed", retry=False)
    message = f"the SLURM job failed ({job.reason})" if job.reason else "the SLURM job failed"
    if job.reason in LAUNCH_FAILURES:
        message += f" on {job.nodes or 'its node'}: is the results folder visible there?"
    return Decision("fail", message)
