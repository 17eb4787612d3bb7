"""Files of the SLURM backend for pending jobs, without SLURM."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from luigi_prune.execution import claims
from luigi_prune.execution.job import Job
from luigi_prune.execution.slurm import heartbeat, submission
from luigi_prune.execution.slurm.heartbeat import Heartbeat


def submitted(results: Path, jobs: list[Job], job_id: str = "12", attempt: int = 1) -> Path:
    """Claim and submit jobs as one array, as far as files go; return the submission's folder."""
    folder = submission.new_folder(results / "slurm")
    for index, job in enumerate(jobs):
        assert claims.make_claim(job.output, folder, index, attempt)
        (folder / f"{index}.json").write_text(json.dumps({"job": job.as_json(), "index": index}))
    submission.record_id(folder, job_id)
    return folder


def tells(folder: Path, index: int, **what: object) -> None:
    """Write a heartbeat of a job."""
    path = heartbeat.heartbeat_path(folder, index)
    path.write_text(json.dumps(dataclasses.asdict(Heartbeat(host="n3", **what))))  # type: ignore[arg-type]
