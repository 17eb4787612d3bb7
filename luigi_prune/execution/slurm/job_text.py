"""Where a job is, as a line for people, from SLURM's row and the job's heartbeat."""

from __future__ import annotations

from luigi_prune.execution.slurm.cli import Row
from luigi_prune.execution.slurm.decisions import STATES
from luigi_prune.execution.slurm.heartbeat import Heartbeat

NOT_RUNNING = ("waiting", "held", "paused", "lost")


def kind_of(row: Row) -> str:
    """Return the kind of a row's state; "" if SLURM does not know the job."""
    return STATES.get(row.state, "running") if row.state else ""


def is_held(row: Row) -> bool:
    """Return whether a job has to be released before it can run."""
    waits = kind_of(row) == "waiting"
    return kind_of(row) == "held" or (waits and (row.priority == "0" or row.reason.startswith("JobHeld")))


def job_text(slurm_id: str, row: Row, started: bool, heartbeat: Heartbeat | None) -> str:
    """Return where a job is; `started`: at some time, which a requeue does not change."""
    job, kind = f"SLURM job {slurm_id or '(not submitted yet)'}", kind_of(row)
    if not started or kind in ("waiting", "held"):
        expected = f", expected to start {row.start.replace('T', ' ')}" if row.start else ""
        held = " HELD: it needs `scontrol release`" if is_held(row) else ""
        again = "requeued, " if started else ""
        return f"{job} {again}{row.state.lower() or 'pending'} ({row.reason or 'None'}{expected}){held}"
    if kind == "lost":
        return f"{job} ({row.state}) on {row.nodes or '?'}: lost; SLURM may requeue it"
    if heartbeat is None:
        return f"{job} on {row.nodes or '?'}: starting"
    paused = f" ({row.state})" if kind == "paused" else ""
    return f"{job}{paused} on {row.nodes or heartbeat.host}: {heartbeat.message or 'running'}"
