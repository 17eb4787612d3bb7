"""What commands ask about SLURM jobs, whichever driver submitted them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from luigi_prune.execution.remote_jobs import Cancellation, JobPlace, RemoteJobs, SubmittedJob
from luigi_prune.execution.slurm import cancellation, claims, submission_folder
from luigi_prune.execution.slurm.leftovers import leftovers
from luigi_prune.identity.paths import jobs_folder


class SlurmJobs(RemoteJobs):
    """The SLURM jobs of a user."""

    label = "SLURM job"
    noise = "submitit INFO"  # what submitit says of every process

    def where(self, outputs: Iterable[Path]) -> dict[Path, JobPlace]:
        """Return where the job is that makes each of `outputs`."""
        return {
            path: JobPlace(submission_folder.where(claim), submission_folder.is_running(claim), self.label)
            for path, claim in submission_folder.on_their_way(outputs).items()
        }

    def outputs(self, results: Path) -> list[Path]:
        """Return every result that is claimed below a folder, or by a submission there."""
        here = (claims.claimed_result(path) for path in results.absolute().rglob(".*.claim-*"))
        elsewhere = (Path(job.job.output).absolute() for job in self.submitted(results))
        return list(dict.fromkeys([*filter(None, here), *elsewhere]))

    def submitted(self, results: Path) -> list[SubmittedJob]:
        """Return every job whose request lies below a results folder."""
        return list(submission_folder.submitted_jobs(jobs_folder(results, "slurm")))

    def is_id(self, text: str) -> bool:
        """Return whether `text` looks like 12 or 12_3."""
        return re.fullmatch(r"\d+(_\d+)?", text) is not None

    def same_id(self, asked: str, job_id: str) -> bool:
        """Return whether `asked` is the job's id or that of its whole array."""
        return asked in (job_id, job_id.partition("_")[0])

    def cancellation(self, outputs: Iterable[Path]) -> Cancellation:
        """Return what cancelling the jobs that make `outputs` would end; raises ConfigError."""
        return cancellation.plan(outputs)

    def leftovers(self, results: Path) -> list[tuple[Path, str]]:
        """Return what killed drivers and jobs have left, each with the reason."""
        return leftovers(results)
