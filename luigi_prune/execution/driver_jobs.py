"""Jobs that end with their driver, as commands see them: the claims of processes beside missing results."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from luigi_prune.execution import claims
from luigi_prune.execution.process_claims import age, describe, is_alive
from luigi_prune.execution.remote_jobs import JobPlace, RemoteJobs

_DAY = 86400.0


class DriverJobs(RemoteJobs):
    """The jobs of all drivers that run them in processes of their own machine."""

    label = "local job"

    def where(self, outputs: Iterable[Path]) -> dict[Path, JobPlace]:
        """Return the process that computes each of `outputs`, if there is one."""
        return {
            path: JobPlace(f"computed by {describe(claim)}", True, self.label)
            for path, claim in claims.pending(outputs).items()
            if claim.is_of_process and is_alive(path, claim)
        }

    def is_id(self, text: str) -> bool:
        """Return False: these jobs have no ids of their own."""
        return False

    def leftovers(self, results: Path) -> list[tuple[Path, str]]:
        """Return the claims of processes that have ended."""
        found = []
        for path in sorted(results.rglob(".*.claim-*")):
            claim, output = claims.read_claim(path), claims.claimed_result(path)
            if claim is None or output is None or not claim.is_of_process or output.exists() or is_alive(output, claim):
                continue  # damaged claims, and those to existing results, are found elsewhere
            if claim.is_of_this_machine or age(output, claim) > _DAY:
                found.append((path, f"claim of {describe(claim)}, which has ended"))
        return found
