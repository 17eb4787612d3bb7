"""`cancel CONFIG`: cancel the SLURM jobs that are on their way for an experiment, or for a whole results folder."""

from __future__ import annotations

import argparse
import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from rich.console import Console

from luigi_prune.backends.slurm import claims
from luigi_prune.backends.slurm.claims import Claim
from luigi_prune.backends.slurm.client import Client, CommandFailed
from luigi_prune.backends.slurm.states import IN_QUEUE, STATES
from luigi_prune.backends.slurm.submission import element_id
from luigi_prune.backends.slurm.submitted import on_their_way, submitted_jobs
from luigi_prune.commands.plan import reports_of
from luigi_prune.errors import ConfigError
from luigi_prune.job_task import JobTask, walk
from luigi_prune.store import jobs_folder


def add_to(commands: Any) -> None:
    """Add the parser."""
    parser = commands.add_parser("cancel", help="cancel the SLURM jobs of an experiment (asks first)")
    parser.add_argument("config", nargs="?", help="experiment file")
    parser.add_argument("--results", metavar="FOLDER", help="all jobs of a results folder instead")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Cancel the jobs, and let go of what they were to make."""
    if (given.config is None) == (given.results is None):
        raise ConfigError("cancel: name either an experiment file or --results FOLDER")
    console = Console(highlight=False)
    outputs = _of_experiment(given.config) if given.config else _of_folder(Path(given.results))
    claimed = on_their_way(outputs)
    own = {output: claim for output, claim in claimed.items() if _is_mine(output, claim)}
    if len(own) < len(claimed):
        console.print(f"{len(claimed) - len(own)} jobs of other users are left alone.")
    if not own:
        console.print("No SLURM job is on its way.")
        return 0
    client = Client()
    ids = _ids(client, own.values())
    alive = _alive(client, own.values(), set(ids.values()))
    waiting = sum(state == "waiting" for state in alive.values())
    ended = len(own) - len(alive)
    question = f"Cancel {len(alive)} SLURM jobs ({len(alive) - waiting} running, {waiting} waiting)"
    question += f", and forget {ended} that have ended or were never submitted" if ended else ""
    if not given.yes and input(f"{question}? [y/N] ").strip().lower() not in ("y", "yes"):
        console.print("Nothing was cancelled.")
        return 0
    _cancel(client, own.values(), alive)
    for output in own:
        claims.release(output)
    console.print(f"{len(alive)} SLURM jobs cancelled, {len(own)} claims removed.")
    drivers = sorted({claim.pid for output, claim in own.items() if claims.is_driven(claim)})
    if drivers:
        processes = ", ".join(map(str, drivers))
        console.print(f"A driver still runs (process {processes}): it goes on with what does not need these results.")
    return 0


def _of_experiment(config: str) -> list[Path]:
    return [task.path.absolute() for task in walk(*reports_of(config)) if isinstance(task, JobTask)]


def _of_folder(results: Path) -> list[Path]:
    """Return every result that is claimed below a folder, or by a submission there."""
    if not results.is_dir():
        raise ConfigError(f"{results}: there is no such folder")
    here = (claims.claimed_result(path) for path in results.absolute().rglob(".*.claim-*"))
    elsewhere = (Path(submitted.job.output).absolute() for submitted in submitted_jobs(jobs_folder(results)))
    return list(dict.fromkeys([*filter(None, here), *elsewhere]))


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
