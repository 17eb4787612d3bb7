"""Checks before anything is submitted: would the site take the jobs, and can their files be written?"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path

from luigi_prune.errors import ConfigError, nearest
from luigi_prune.execution.slurm.cli import Client, CommandFailed, is_temporary
from luigi_prune.execution.slurm.options import KEYS, SlurmSettings
from luigi_prune.execution.slurm.submission import test_submission

logger = logging.getLogger(__name__)


def check_site(client: Client, site: SlurmSettings, families: Collection[str]) -> None:
    """Raise ConfigError if the site would refuse the jobs of one of `families`.

    A site that is busy, does not respond, or has nodes out of service may take them later: that is a warning.
    """
    for resources in dict.fromkeys(site.resources[family] for family in families):
        try:
            test_submission(client, resources)
        except CommandFailed as failure:
            of = ", ".join(family for family in families if site.resources[family] == resources)
            if not client.controller_responds():
                logger.warning("%s; SLURM is asked again when the jobs are submitted", failure)
                return
            if is_temporary(failure):  # e.g. too many jobs at the moment
                logger.warning("%s", failure)
            elif reason := _out_of_service(client, dict(resources.sbatch).get("partition", "")):
                logger.warning("%s (jobs of %s; %s); they are submitted all the same", failure, of, reason)
            else:
                raise ConfigError(f"luigi.cfg: [slurm], jobs of {of}: {failure}{_hint(failure)}") from None


def check_folders(results: Iterable[Path], submissions: Iterable[Path]) -> None:
    """Raise ConfigError if this user, or SLURM, cannot write to one of these folders, which need not exist."""
    folders = dict.fromkeys(submissions)
    if unfit := [folder for folder in folders if "%" in str(folder)]:
        raise ConfigError(
            f"directories.results: {unfit[0]}: SLURM reads % in names of log files as a pattern; choose another one"
        )
    for folder in folders | dict.fromkeys(results):
        existing = next((path for path in (folder, *folder.parents) if path.exists()), folder)
        if not os.access(existing, os.W_OK | os.X_OK):
            raise ConfigError(
                f"directories.results: cannot write to {existing}, which belongs to {_owner(existing)}; users share a"
                " results folder if they share a group, the folder has its setgid bit, and their umask is 002"
            )


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except (KeyError, OSError):
        return "another user"


def _out_of_service(client: Client, partition: str) -> str:
    """Return which nodes take no jobs now: `sbatch --test-only` counts them out, sbatch itself does not."""
    try:
        return client.unavailable(partition)
    except CommandFailed:
        return ""


def _hint(error: Exception) -> str:
    """Return the nearest key if sbatch does not know an option: a misspelt key is passed on as an option."""
    unknown = re.search(r"unrecognized option '--([a-z0-9_-]+)", str(error))
    return nearest(unknown[1].replace("-", "_"), KEYS) if unknown else ""
