"""What lies in a folder of submissions: read by commands, which neither submit nor watch anything."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from luigi_prune.execution.job import Job
from luigi_prune.execution.slurm import claims, heartbeat
from luigi_prune.execution.slurm.claims import Claim
from luigi_prune.execution.slurm.submission import element_id, start_log_path


@dataclass(frozen=True)
class Submitted:
    """A job that was, or is about to be, submitted: element `index` of the submission in `folder`."""

    folder: Path
    index: int
    job: Job

    @property
    def job_id(self) -> str:
        """The SLURM id; "" where there is none yet."""
        return element_id(self.folder, self.index)

    @property
    def age(self) -> float:
        """Seconds since it was submitted."""
        try:
            return time.time() - (self.folder / f"{self.index}.json").stat().st_mtime
        except OSError:
            return float("inf")

    @property
    def start_log(self) -> Path:
        """What SLURM and the start of the job print."""
        return start_log_path(self.folder, self.job_id)

    def newest(self) -> Submitted:
        """Return the newest submission of the same job."""
        claim = claims.newest(self.job.output)
        return Submitted(Path(claim.folder), claim.index, self.job) if claim else self

    @property
    def is_on_its_way(self) -> bool:
        """Whether the result is not there, and it is this job that is to make it."""
        if Path(self.job.output).exists():
            return False
        claim = claims.newest(self.job.output)
        return claim is not None and (claim.name, claim.index) == (self.folder.name, self.index)


def submitted_jobs(slurm_folder: str | Path) -> Iterator[Submitted]:
    """Yield every job whose request lies below `slurm_folder`; damaged requests are left out."""
    for path in sorted(Path(slurm_folder).glob("lp-*/*.json")):
        if job := _read(path):
            yield Submitted(path.parent, int(path.stem), job)


def on_their_way(outputs: Iterable[Path]) -> dict[Path, Claim]:
    """Return the claim to each of `outputs` that is claimed and not there; one look into each folder."""
    wanted = list(outputs)
    claimed = {path for folder in {path.parent for path in wanted} for path in claims.claimed(folder)}
    found = {path: claims.newest(path) for path in wanted if path in claimed and not path.exists()}
    return {path: claim for path, claim in found.items() if claim is not None}


def is_running(claim: Claim) -> bool:
    """Return whether a claimed job has begun and not said that it is over."""
    told = heartbeat.read(heartbeat.news_path(claim.folder, claim.index))
    return told is not None and told.ended is None


def where(claim: Claim) -> str:
    """Return where a claimed job is, for people: SLURM job, node, what it said last."""
    told = heartbeat.read(heartbeat.news_path(claim.folder, claim.index))
    slurm_id = element_id(claim.folder, claim.index)
    name = f"SLURM job {slurm_id}" if slurm_id else "about to be submitted"
    if told is None:
        return f"{name}, not started"
    if told.ended is not None:
        return f"{name} on {told.host}: {told.ended.status}"
    return f"{name} on {told.host}: {told.fraction:.0%}  {told.message or 'running'}"


def _read(path: Path) -> Job | None:
    if not path.stem.isdigit():
        return None
    try:
        return Job(**json.loads(path.read_text())["job"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
