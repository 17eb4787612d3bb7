"""Cancelling SLURM jobs without being their driver: by the claims beside the results that they are to make."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from luigi_prune.errors import ConfigError
from luigi_prune.execution.remote_jobs import Cancellation
from luigi_prune.execution.slurm import claims
from luigi_prune.execution.slurm.claims import Claim
from luigi_prune.execution.slurm.cli import Client, CommandFailed
from luigi_prune.execution.slurm.decisions import IN_QUEUE, STATES
from luigi_prune.execution.slurm.submission import element_id
from luigi_prune.execution.slurm.submission_folder import on_their_way


def plan(outputs: Iterable[Path]) -> Cancellation:
    """Return what cancelling the jobs that make `outputs` would end; raises ConfigError if SLURM does not answer."""
    claimed = on_their_way(outputs)
    own = {output: claim for output, claim in claimed.items() if _is_mine(output, claim)}
    if not own:
        return Cancellation(of_others=len(claimed))
    client = Client()
    ids = _ids(client, own.values())
    alive = _alive(client, own.values(), set(ids.values()))
    waiting = sum(state == "waiting" for state in alive.values())

    def carry_out() -> None:
        _cancel(client, own.values(), alive)
        for output in own:
            claims.release(output)

    return Cancellation(
        running=len(alive) - waiting,
        waiting=waiting,
        ended=len(own) - len(alive),
        of_others=len(claimed) - len(own),
        drivers=tuple(sorted({claim.pid for claim in own.values() if claims.is_driven(claim)})),
        carry_out=carry_out,
    )


def _is_mine(output: Path, claim: Claim) -> bool:
    """Return whether this user has claimed a result: of other people's jobs the queue says nothing here."""
    try:
        return claims.claim_path(output, claim.attempt).stat().st_uid == os.getuid()
    except OSError:
        return False


def _ids(client: Client, found: Collection[Claim]) -> dict[tuple[str, int], str]:
    """Return the SLURM id of each claim that has one, by submission and element; raises ConfigError."""
    ids = {(claim.name, claim.index): element_id(claim.folder, claim.index) for claim in found}
    lost = {name for (name, _), slurm_id in ids.items() if not slurm_id}
    if lost:  # their driver died, or is about to write the id down
        known = _ask(client.find, lost)
        for name, index in [key for key, slurm_id in ids.items() if not slurm_id and key[0] in known]:
            claim = next(claim for claim in found if claim.name == name)
            count = len(list(Path(claim.folder).glob("[0-9]*.json")))
            ids[name, index] = f"{known[name]}_{index}" if count > 1 else known[name]
    return {key: slurm_id for key, slurm_id in ids.items() if slurm_id}


def _alive(client: Client, found: Collection[Claim], ids: Iterable[str]) -> dict[str, str]:
    """Return what each of these jobs that SLURM still has does: waiting, held, running or paused."""
    wanted = set(ids)
    rows = _ask(client.queue, {claim.name for claim in found})
    kinds = {slurm_id: STATES.get(row.state, "running") for slurm_id, row in rows.items() if slurm_id in wanted}
    return {slurm_id: "waiting" if kind == "held" else kind for slurm_id, kind in kinds.items() if kind in IN_QUEUE}


def _cancel(client: Client, found: Collection[Claim], alive: dict[str, str]) -> None:
    """Cancel jobs; one that ended meanwhile is no error."""
    try:
        client.cancel(sorted(alive))
    except CommandFailed as failure:
        left = _alive(client, found, alive)
        try:
            client.cancel(sorted(left))
        except CommandFailed:
            raise ConfigError(f"scancel: {failure}; no claim was removed") from None


def _ask(question: Any, names: Iterable[str]) -> Any:
    try:
        return question(names)
    except CommandFailed as failure:
        raise ConfigError(f"SLURM does not say which jobs there are: {failure}") from None
