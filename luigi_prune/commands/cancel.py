"""`cancel CONFIG`: cancel the submitted jobs of an experiment or of a results folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from luigi_prune.commands.confirmation import is_confirmed
from luigi_prune.commands.plan import reports_of
from luigi_prune.errors import ConfigError
from luigi_prune.execution.backends import remote_jobs
from luigi_prune.execution.remote_jobs import Cancellation, RemoteJobs
from luigi_prune.workflow.job_task import job_tasks


def add_to(commands: Any) -> None:
    """Add the parser."""
    parser = commands.add_parser("cancel", help="cancel the cluster's jobs for an experiment (asks first)")
    parser.add_argument("config", nargs="?", help="experiment file")
    parser.add_argument("--results", metavar="FOLDER", help="all jobs of a results folder instead")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Cancel the jobs and remove their claims."""
    if (options.config is None) == (options.results is None):
        raise ConfigError("cancel: expected either an experiment file or --results FOLDER")
    console = Console(highlight=False)
    outputs = _of_experiment(options.config) if options.config else None
    if outputs is None and not Path(options.results).is_dir():
        kind = "is no folder" if Path(options.results).exists() else "no such folder"
        raise ConfigError(f"{options.results}: {kind}")
    nothing = True
    for remote in remote_jobs():
        cancellation = remote.cancellation(remote.outputs(Path(options.results)) if outputs is None else outputs)
        if cancellation.of_others:
            console.print(f"{cancellation.of_others} jobs of other users are left alone.")
        if cancellation.jobs:
            nothing = False
            _cancel(console, remote, cancellation, options.yes)
    if nothing:
        console.print("No job is on its way.")
    return 0


def _cancel(console: Console, remote: RemoteJobs, cancellation: Cancellation, confirmed: bool) -> None:
    """Cancel the jobs of one backend, after confirmation."""
    alive = cancellation.running + cancellation.waiting
    question = f"Cancel {alive} {remote.label}s ({cancellation.running} running, {cancellation.waiting} waiting)"
    question += (
        f", and forget {cancellation.ended} that have ended or were never submitted" if cancellation.ended else ""
    )
    if not confirmed and not is_confirmed(f"{question}?"):
        console.print("Nothing was cancelled.")
        return
    cancellation.carry_out()
    console.print(f"{alive} {remote.label}s cancelled, {cancellation.jobs} claims removed.")
    if cancellation.drivers:
        processes = ", ".join(map(str, cancellation.drivers))
        console.print(f"A driver still runs (process {processes}): it continues with other tasks.")


def _of_experiment(config: str) -> list[Path]:
    return [task.path.absolute() for task in job_tasks(*reports_of(config))]
