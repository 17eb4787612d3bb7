"""Cancels SLURM jobs of any driver, found by the claims to their results."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from luigi_prune.errors import ConfigError
from luigi_prune.execution import claims
from luigi_prune.execution.claims import Claim
from luigi_prune.execution.remote_jobs import Cancellation
from luigi_prune.execution.slurm.cli import Client, CommandFailed
from luigi_prune.execution.slurm.decisions import IN_QUEUE, STATES
from luigi_prune.execution.slurm.elements import slurm_id as id_in
from luigi_prune.execution.slurm.submission import element_id
from luigi_prune.execution.slurm.submission_folder import is_mine, is_shared, pending_claims


def plan_cancellation(outputs: Iterable[Path]) -> Cancellation:
    """Return the jobs that cancelling those of `outputs` would end; raises ConfigError if SLURM does not answer."""
    claimed = pending_claims(outputs)
    mine = {output: claim for output, claim in claimed.items() if is_mine(output, claim)}
    if not mine:
        return Cancellation(of_others=len(claimed))
    client = Client()
    ids = _ids(client, mine.values())
    alive = _alive(client, mine.values(), set(ids.values()))
    states = [alive[job_id] for job_id in ids.values() if job_id in alive]  # of each job: several may share an id
    waiting = states.count("waiting")

    def carry_out() -> None:
        # a job that shares its process with others stops by itself once its claim is removed
        outputs = set(map(str, mine))
        shared = {job_id for (folder, index), job_id in ids.items() if is_shared(Path(folder), index, outputs)}
        _cancel(client, mine.values(), {job_id: kind for job_id, kind in alive.items() if job_id not in shared})
        for output in mine:
            claims.release(output)

    return Cancellation(
        running=len(states) - waiting,
        waiting=waiting,
        ended=len(mine) - len(states),
        of_others=len(claimed) - len(mine),
        drivers=tuple(sorted({claim.pid for claim in mine.values() if claims.driver_is_alive(claim)})),
        carry_out=carry_out,
    )


def _ids(client: Client, claimed: Collection[Claim]) -> dict[tuple[str, int], str]:
    """Return the SLURM id of each claim that has one, by folder of the submission and index; raises ConfigError."""
    ids = {(claim.folder, claim.index): element_id(claim.folder, claim.index) for claim in claimed}
    unknown = {Path(folder).name for (folder, _), slurm_id in ids.items() if not slurm_id}
    if unknown:  # the driver died before it recorded the id, or is about to record it
        known = _call(client.find_ids, unknown)
        for folder, index in [key for key, slurm_id in ids.items() if not slurm_id and Path(key[0]).name in known]:
            ids[folder, index] = id_in(folder, known[Path(folder).name], index)
    return {key: slurm_id for key, slurm_id in ids.items() if slurm_id}


def _alive(client: Client, claimed: Collection[Claim], ids: Iterable[str]) -> dict[str, str]:
    """Return id -> waiting, running or paused for the jobs that are still in the queue; held ones count as waiting."""
    selected = set(ids)
    rows = _call(client.queue, {claim.name for claim in claimed})
    kinds = {slurm_id: STATES.get(row.state, "running") for slurm_id, row in rows.items() if slurm_id in selected}
    return {slurm_id: "waiting" if kind == "held" else kind for slurm_id, kind in kinds.items() if kind in IN_QUEUE}


def _cancel(client: Client, claimed: Collection[Claim], alive: dict[str, str]) -> None:
    """Cancel jobs; a job that has ended meanwhile is not an error. Raises ConfigError."""
    try:
        client.cancel(sorted(alive))
    except CommandFailed as failure:
        remaining = _alive(client, claimed, alive)
        try:
            client.cancel(sorted(remaining))
        except CommandFailed:
            raise ConfigError(f"scancel: {failure}; no claim was removed") from None


def _call(query: Any, names: Iterable[str]) -> Any:
    try:
        return query(names)
    except CommandFailed as failure:
        raise ConfigError(f"cannot list the SLURM jobs: {failure}") from None
