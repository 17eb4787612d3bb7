"""What to do about a job, by what SLURM says, what the job itself said, and whether its result is there.

The result decides success. SLURM decides nothing but failure, and only when there is no doubt: a state that nobody has
heard of, a question without an answer or a result that may still become visible all mean to wait.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from luigi_prune.execution.job import Outcome

Kind = Literal[
    "waiting", "held", "running", "paused", "completed", "failed", "memory", "deadline", "cancelled", "away", "timeout"
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
    "PREEMPTED": "away",
    "NODE_FAIL": "away",
    "BOOT_FAIL": "away",
    "LAUNCH_FAILED": "away",
    "REVOKED": "away",
}
IN_QUEUE = ("waiting", "held", "running", "paused")
_BLAMES_NODE = ("NODE_FAIL", "BOOT_FAIL", "LAUNCH_FAILED")
HELD_REASONS = ("JobHeldAdmin", "JobHeldUser")


@dataclass(frozen=True)
class Sighting:
    """What is known of a job at one moment."""

    state: str = ""  # as SLURM spells it; "" where it knows no such job
    reason: str = ""
    nodes: str = ""
    seconds: float = 0.0  # since it was first seen so
    present: bool = False  # the result is there
    outcome: Outcome | None = None  # what the job said at its end
    began: bool = False  # the job was heard of at least once
    breathing: bool = False  # its heartbeat is young
    advanced: bool = False  # its checkpoint is newer than when it started
    parallel: bool = False  # several processes: one that dies makes the others fail, and SLURM knows which was first
    unrecorded: bool = False  # the accounting has answered, and knows no such job either


@dataclass(frozen=True)
class Patience:
    """How long to wait, in seconds."""

    grace: float = 30.0  # for a result to become visible
    requeue: float = 300.0  # for a preempted job to come back


@dataclass(frozen=True)
class Verdict:
    """What to do: go on waiting, take the job as done or failed, or submit it again."""

    action: Literal["wait", "done", "fail", "again"]
    message: str = ""
    retry: bool = True  # whether Luigi may try again, with action "fail"
    exclude: str = ""  # nodes to keep away from, with action "again"
    drop: bool = False  # cancel what is left of the job, with action "done"


WAIT = Verdict("wait")


def judge(seen: Sighting, patience: Patience) -> Verdict:
    """Return what to do about a job."""
    kind = STATES.get(seen.state, "running") if seen.state else ""
    if seen.present:
        if kind in ("running", "paused") and seen.outcome is None:
            return WAIT  # it is about to say so itself
        return Verdict("done", drop=kind in ("waiting", "held"))
    if kind in IN_QUEUE and (seen.outcome is None or seen.outcome.status == "interrupted"):
        return WAIT
    if kind in IN_QUEUE and seen.parallel and seen.seconds < patience.grace:
        return WAIT
    said_done = seen.outcome is not None and seen.outcome.status == "done"
    if kind == "cancelled" and not said_done:
        return Verdict("fail", "the SLURM job was cancelled", retry=False)
    if said_done:
        if seen.seconds < patience.grace or kind in IN_QUEUE:
            return WAIT  # another node has written it; this one does not see it yet
        message = "the job says that it wrote its result, but there is none: is the folder shared?"
        return Verdict("fail", message, retry=kind != "cancelled")
    if seen.outcome is not None and seen.outcome.status != "interrupted":
        return Verdict("fail", seen.outcome.message, retry=seen.outcome.retry)
    return _ended(kind, seen, patience)


def _ended(kind: str, seen: Sighting, patience: Patience) -> Verdict:
    """Return what to do about a job that has left the queue, without a result and without a last word."""
    if kind == "":
        if seen.breathing:
            return WAIT  # SLURM has lost its memory, not the job
        if seen.unrecorded and not seen.began:
            return Verdict("fail", "the SLURM job left the queue before it began: cancelled?", retry=False)
        return Verdict("again", "SLURM does not know the job any more")
    if kind == "away":
        if seen.seconds < patience.requeue:
            return WAIT  # SLURM requeues by itself where the site allows it
        node = seen.nodes if seen.state in _BLAMES_NODE else ""
        return Verdict("again", f"{seen.state} on {seen.nodes or 'its node'}", exclude=node)
    if kind == "timeout":
        if seen.advanced:
            return Verdict("again", "over its time limit; a checkpoint goes on from there")
        if seen.seconds < patience.grace:
            return WAIT
        return Verdict("fail", "over its time limit without a checkpoint: it needs a larger timeout_min", retry=False)
    if seen.outcome is not None:  # interrupted, and nobody has put it back into the queue
        return Verdict("again", f"stopped ({seen.state})")
    if seen.seconds < patience.grace:
        return WAIT
    if kind == "memory":
        return Verdict("fail", "out of memory: smaller batches or a larger mem_gb help", retry=False)
    if kind == "completed":
        return Verdict("fail", "the SLURM job ended without an error and without a result")
    if kind == "deadline":
        return Verdict("fail", "its deadline passed", retry=False)
    return Verdict("fail", f"the SLURM job failed ({seen.reason})" if seen.reason else "the SLURM job failed")
