"""What killed drivers and jobs leave in a results folder, and nobody will read any more."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

from luigi_prune.execution.slurm import claims
from luigi_prune.execution.slurm.submission_folder import submitted_jobs
from luigi_prune.identity.paths import jobs_folder

_DAY = 86400.0
_HOUR = 3600.0  # a driver looks at news every few minutes at most
_NEWS = re.compile(r"\.?(?P<element>lp-[0-9a-f]+\.\d+)\.(json|failure)(\.\d+)?")
_PRIVATE_CLAIM = re.compile(r"\..+\.claim-\d+\.[0-9a-f]{8}")


def leftovers(results: Path) -> list[tuple[Path, str]]:
    """Return files and folders that may go, each with the reason.

    What a job on its way needs stays: its claim, its submission, its news. So does what is young: it may be about to
    be claimed, or to be read.
    """
    slurm = jobs_folder(results, "slurm")
    alive = {(job.folder.name, job.index) for job in submitted_jobs(slurm) if job.is_on_its_way}
    return [*_claims(results), *_submissions(slurm, {name for name, _ in alive}), *_news(slurm, alive)]


def _claims(results: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted(results.rglob(".*.claim-*")):
        result = claims.claimed_result(path)
        if result is not None and result.exists():
            yield path, "claim to a result that is there"
        elif result is not None and _is_of_no_submission(path) and _age(path) > _DAY:
            yield path, "claim of a submission that is gone"
        elif _PRIVATE_CLAIM.fullmatch(path.name) and _age(path) > _DAY:
            yield path, "half a claim"


def _is_of_no_submission(path: Path) -> bool:
    claim = claims.read(path)
    return claim is None or not Path(claim.folder).is_dir()


def _submissions(slurm: Path, alive: set[str]) -> Iterator[tuple[Path, str]]:
    for folder in sorted(slurm.glob("lp-*")):
        if folder.is_dir() and folder.name not in alive:
            newest = min((_age(path) for path in (folder, *folder.iterdir())), default=0.0)
            if newest > _DAY:
                yield folder, "submission without a job on its way, untouched for a day"


def _news(slurm: Path, alive: set[tuple[str, int]]) -> Iterator[tuple[Path, str]]:
    known = {f"{name}.{index}" for name, index in alive}
    for path in sorted((slurm / "news").glob("*")) if (slurm / "news").is_dir() else ():
        match = _NEWS.fullmatch(path.name)
        if match and match["element"] not in known and _age(path) > _HOUR:
            yield path, "news of a job that is not on its way"


def _age(path: Path) -> float:
    """Return the seconds since a file changed; 0 where it has just gone."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0
