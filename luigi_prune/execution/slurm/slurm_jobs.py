"""SLURM jobs of any driver, as commands see them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from luigi_prune.execution import claims
from luigi_prune.execution.remote_jobs import Cancellation, JobPlace, RemoteJobs, SubmittedJob
from luigi_prune.execution.slurm.cancellation import plan_cancellation
from luigi_prune.execution.slurm.leftovers import leftovers
from luigi_prune.execution.slurm.submission_folder import describe, is_running, pending_claims, submitted_jobs
from luigi_prune.identity.paths import jobs_folder


class SlurmJobs(RemoteJobs):
    """The SLURM jobs of a user."""

    label = "SLURM job"
    noise = "submitit INFO"  # logged by submitit for every process

    def where(self, outputs: Iterable[Path]) -> dict[Path, JobPlace]:
        """Return the place of the job that computes each of `outputs`, if there is one."""
        return {
            path: JobPlace(describe(claim), is_running(claim), self.label)
            for path, claim in pending_claims(outputs).items()
        }

    def outputs(self, results: Path) -> list[Path]:
        """Return every result that is claimed below a folder or requested by a submission there."""
        claimed = (claims.claimed_result(path) for path in results.absolute().rglob(".*.claim-*"))
        requested = (Path(job.job.output).absolute() for job in self.submitted(results))
        return list(dict.fromkeys([*filter(None, claimed), *requested]))

    def submitted(self, results: Path) -> list[SubmittedJob]:
        """Return every job with a request below a results folder."""
        return list(submitted_jobs(jobs_folder(results, "slurm")))

    def is_id(self, text: str) -> bool:
        """Return whether `text` looks like 12 or 12_3."""
        return re.fullmatch(r"\d+(_\d+)?", text) is not None

    def same_id(self, asked: str, job_id: str) -> bool:
        """Return whether `asked` is the job's id or that of its array."""
        return asked in (job_id, job_id.partition("_")[0])

    def cancellation(self, outputs: Iterable[Path]) -> Cancellation:
        """Return the jobs that cancelling those of `outputs` would end; raises ConfigError."""
        return plan_cancellation(outputs)

    def leftovers(self, results: Path) -> list[tuple[Path, str]]:
        """Return the leftovers of killed drivers and jobs, each with the reason."""
        return leftovers(results)
