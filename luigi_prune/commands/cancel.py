"""`cancel CONFIG`: cancel the jobs that are on their way for an experiment, or for a whole results folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from luigi_prune.commands.plan import reports_of
from luigi_prune.errors import ConfigError
from luigi_prune.execution.backends import remote_jobs
from luigi_prune.execution.remote_jobs import Cancellation, RemoteJobs
from luigi_prune.workflow.job_task import JobTask, walk


def add_to(commands: Any) -> None:
    """Add the parser."""
    parser = commands.add_parser("cancel", help="cancel the cluster's jobs for an experiment (asks first)")
    parser.add_argument("config", nargs="?", help="experiment file")
    parser.add_argument("--results", metavar="FOLDER", help="all jobs of a results folder instead")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Cancel the jobs, and let go of what they were to make."""
    if (given.config is None) == (given.results is None):
        raise ConfigError("cancel: name either an experiment file or --results FOLDER")
    console = Console(highlight=False)
    outputs = _of_experiment(given.config) if given.config else None
    if outputs is None and not Path(given.results).is_dir():
        raise ConfigError(f"{given.results}: there is no such folder")
    nothing = True
    for remote in remote_jobs():
        found = remote.cancellation(remote.outputs(Path(given.results)) if outputs is None else outputs)
        if found.of_others:
            console.print(f"{found.of_others} jobs of other users are left alone.")
        if found.jobs:
            nothing = False
            _cancel(console, remote, found, given.yes)
    if nothing:
        console.print("No job is on its way.")
    return 0


def _cancel(console: Console, remote: RemoteJobs, found: Cancellation, sure: bool) -> None:
    """Cancel the jobs of one backend, if the user wants that."""
    alive = found.running + found.waiting
    question = f"Cancel {alive} {remote.label}s ({found.running} running, {found.waiting} waiting)"
    question += f", and forget {found.ended} that have ended or were never submitted" if found.ended else ""
    if not sure and input(f"{question}? [y/N] ").strip().lower() not in ("y", "yes"):
        console.print("Nothing was cancelled.")
        return
    found.carry_out()
    console.print(f"{alive} {remote.label}s cancelled, {found.jobs} claims removed.")
    if found.drivers:
        processes = ", ".join(map(str, found.drivers))
        console.print(f"A driver still runs (process {processes}): it goes on with what does not need these results.")


def _of_experiment(config: str) -> list[Path]:
    return [task.path.absolute() for task in walk(*reports_of(config)) if isinstance(task, JobTask)]
