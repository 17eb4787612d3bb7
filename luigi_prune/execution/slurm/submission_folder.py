"""Reads submissions, claims and heartbeats for commands, which neither submit nor track jobs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from luigi_prune.execution import claims
from luigi_prune.execution.claims import Claim
from luigi_prune.execution.job import Job
from luigi_prune.execution.slurm.cli import Row
from luigi_prune.execution.slurm.elements import sharing
from luigi_prune.execution.slurm.heartbeat import heartbeat_path, read_heartbeat
from luigi_prune.execution.slurm.job_text import NOT_RUNNING, job_text, kind_of
from luigi_prune.execution.slurm.submission import element_id, start_log_path


@dataclass(frozen=True)
class Submitted:
    """A job that was, or is about to be, submitted: number `index` of the submission in `folder`."""

    folder: Path
    index: int
    job: Job

    @property
    def job_id(self) -> str:
        """The SLURM id; "" if there is none yet."""
        return element_id(self.folder, self.index)

    @property
    def age(self) -> float:
        """Seconds since the submission."""
        try:
            return time.time() - (self.folder / f"{self.index}.json").stat().st_mtime
        except OSError:
            return float("inf")

    @property
    def start_log(self) -> Path:
        """File with the output of SLURM and of the job's start."""
        return start_log_path(self.folder, self.job_id)

    def newest(self) -> Submitted:
        """Return the newest submission of the same job."""
        claim = claims.newest(self.job.output)
        return Submitted(Path(claim.folder), claim.index, self.job) if claim else self

    @property
    def is_pending(self) -> bool:
        """Whether the result does not exist and the valid claim to it is this job's."""
        if Path(self.job.output).exists():
            return False
        claim = claims.newest(self.job.output)
        return claim is not None and (claim.name, claim.index) == (self.folder.name, self.index)


def submitted_jobs(slurm_folder: str | Path) -> Iterator[Submitted]:
    """Yield every job with a request below `slurm_folder`; damaged requests are skipped."""
    for path in sorted(Path(slurm_folder).glob("lp-*/*.json")):
        if job := _read(path):
            yield Submitted(path.parent, int(path.stem), job)


def computes(claim: Claim, output: str | Path, submissions: str | Path) -> bool:
    """Return whether the submission that a claim names computes `output`, and not that of a copied results folder.

    `submissions` is the folder of the submissions that belong to these results.
    """
    if claim.is_of_process:
        return False
    request = Path(claim.folder) / f"{claim.index}.json"
    if _is_hidden(request):  # another user's: only its place tells
        try:
            return os.path.samefile(request.parent.parent, submissions)
        except OSError:
            return False
    job = _read(request)
    if job is None or Path(job.output).name != Path(output).name:
        return False
    try:
        return os.path.samefile(Path(job.output).parent, Path(output).parent)
    except OSError:
        return False


def _is_hidden(path: Path) -> bool:
    """Return whether a file may exist and cannot be read by this user."""
    try:
        path.open().close()
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def is_mine(output: str | Path, claim: Claim) -> bool:
    """Return whether this user made a claim; SLURM jobs of others can be waited for, not cancelled."""
    try:
        return claims.claim_path(output, claim.attempt).stat().st_uid == os.getuid()
    except OSError:
        return False


def has_pending(folder: Path, other_than: int) -> bool:
    """Return whether a job of a submission is still to run, for this driver or another, except the given one."""
    jobs = ((int(path.stem), _read(path)) for path in folder.glob("[0-9]*.json"))
    return any(job and index != other_than and Submitted(folder, index, job).is_pending for index, job in jobs)


def is_shared(folder: Path, index: int, outputs: Collection[str]) -> bool:
    """Return whether the element of job `index` has a job that is still to run and writes none of `outputs`."""
    chosen = set(map(os.path.realpath, outputs))
    for other in sharing(folder, index):
        job = _read(folder / f"{other}.json") if other != index else None
        if job and os.path.realpath(job.output) not in chosen and Submitted(folder, other, job).is_pending:
            return True
    return False


def pending_claims(outputs: Iterable[Path]) -> dict[Path, Claim]:
    """Return the submission that claims each missing one of `outputs`, if there is one."""
    return {path: claim for path, claim in claims.pending(outputs).items() if not claim.is_of_process}


def place(claim: Claim, row: Row | None) -> tuple[str, bool]:
    """Return where a claimed job is, as a line for people, and whether it runs; `row` is SLURM's, if it answered."""
    heartbeat = read_heartbeat(heartbeat_path(claim.folder, claim.index))
    slurm_id = element_id(claim.folder, claim.index)
    name = f"SLURM job {slurm_id}" if slurm_id else "about to be submitted"
    if row is not None and kind_of(row) in NOT_RUNNING:
        return job_text(slurm_id, row, heartbeat is not None, heartbeat), False
    if heartbeat is None:
        return f"{name}, not started", False
    if heartbeat.ended is not None:
        return f"{name} on {heartbeat.host}: {heartbeat.ended.status}", False
    return f"{name} on {heartbeat.host}: {heartbeat.fraction:.0%}  {heartbeat.message or 'running'}", True


def _read(path: Path) -> Job | None:
    if not path.stem.isdigit():
        return None
    try:
        return Job(**json.loads(path.read_text())["job"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
