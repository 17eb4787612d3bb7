"""Checks before anything starts: would the site take the jobs, and how long may an array be?"""

from __future__ import annotations

import logging
import re

from luigi_prune.errors import ConfigError, nearest
from luigi_prune.execution.slurm.cli import Client, CommandFailed, is_temporary
from luigi_prune.execution.slurm.options import FAMILIES, KEYS, SlurmSettings
from luigi_prune.execution.slurm.submission import test_submission

logger = logging.getLogger(__name__)


def check_site(client: Client, site: SlurmSettings) -> int:
    """Return the number of elements that an array may have; raises ConfigError if the site would refuse a job."""
    for resources in dict.fromkeys(site.resources.values()):
        families = [family for family in FAMILIES if site.resources[family] == resources]
        try:
            test_submission(client, resources)
        except (CommandFailed, RuntimeError) as error:
            if is_temporary(str(error)) and "unable to contact" not in str(error).lower():
                logger.warning("%s", error)  # e.g. too many jobs at the moment
                continue
            raise ConfigError(f"luigi.cfg: [slurm], jobs of {', '.join(families)}: {error}{_hint(error)}") from None
    try:
        limit = client.array_limit()
    except CommandFailed:
        limit = 1000
    return min(limit, site.array_size or limit)


def _hint(error: Exception) -> str:
    """Return the nearest key if sbatch does not know an option: a misspelt key is passed on as an option."""
    unknown = re.search(r"unrecognized option '--([a-z0-9_-]+)", str(error))
    return nearest(unknown[1].replace("-", "_"), KEYS) if unknown else ""
