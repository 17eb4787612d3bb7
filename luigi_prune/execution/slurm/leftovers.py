"""Leftovers of killed drivers and jobs in a results folder, which nothing reads any more."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

from luigi_prune.execution import claims
from luigi_prune.execution.slurm.submission_folder import submitted_jobs
from luigi_prune.identity.paths import jobs_folder

_DAY = 86400.0
_HOUR = 3600.0  # much longer than a driver takes to read a heartbeat
_HEARTBEAT = re.compile(r"\.?(?P<element>lp-[0-9a-f]+\.\d+)\.(json|failure)(\.\d+)?")
_PRIVATE_CLAIM = re.compile(r"\..+\.claim-\d+\.[0-9a-f]{8}")


def leftovers(results: Path) -> list[tuple[Path, str]]:
    """Return files and folders that can be deleted, each with the reason.

    Claim, submission and heartbeat of a pending job are kept, and so are recent files, which may be about to be read.
    """
    slurm = jobs_folder(results, "slurm")
    pending = {(job.folder.name, job.index) for job in submitted_jobs(slurm) if job.is_pending}
    return [*_claims(results), *_submissions(slurm, {name for name, _ in pending}), *_heartbeats(slurm, pending)]


def _claims(results: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted(results.rglob(".*.claim-*")):
        result = claims.claimed_result(path)
        if result is not None and result.exists():
            yield path, "claim to a result that exists"
        elif result is not None and _lacks_submission(path) and _age(path) > _DAY:
            yield path, "claim of a deleted submission"
        elif _PRIVATE_CLAIM.fullmatch(path.name) and _age(path) > _DAY:
            yield path, "unfinished claim"


def _lacks_submission(path: Path) -> bool:
    claim = claims.read_claim(path)
    return claim is None or not (claim.is_of_process or Path(claim.folder).is_dir())


def _submissions(slurm: Path, pending: set[str]) -> Iterator[tuple[Path, str]]:
    for folder in sorted(slurm.glob("lp-*")):
        if folder.is_dir() and folder.name not in pending:
            newest = min((_age(path) for path in (folder, *folder.iterdir())), default=0.0)
            if newest > _DAY:
                yield folder, "submission without a pending job, unchanged for a day"


def _heartbeats(slurm: Path, pending: set[tuple[str, int]]) -> Iterator[tuple[Path, str]]:
    elements = {f"{name}.{index}" for name, index in pending}
    for path in sorted((slurm / "news").glob("*")) if (slurm / "news").is_dir() else ():
        match = _HEARTBEAT.fullmatch(path.name)
        if match and match["element"] not in elements and _age(path) > _HOUR:
            yield path, "heartbeat of a job that is not pending"


def _age(path: Path) -> float:
    """Return the seconds since a file changed; 0 if it does not exist any more."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0
