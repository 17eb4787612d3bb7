"""Where the stock `luigi` command gets its scheduler and its worker from, once the package is imported."""

from __future__ import annotations

import socket
import sys
import warnings
from typing import Any
from urllib.parse import urlsplit

import luigi
import luigi.interface
from luigi.parameter import UnconsumedParameterWarning

from luigi_prune.errors import LuigiPruneError
from luigi_prune.execution.backends import choose
from luigi_prune.workflow import settings
from luigi_prune.workflow.worker import PruneWorker


class Factory(luigi.interface._WorkerSchedulerFactory):
    """Makes the scheduler and the worker of a run."""

    def create_remote_scheduler(self, url: str) -> Any:
        """Return the scheduler at `url`; where nobody configured one and none answers, a local one."""
        if _answers(url):
            return super().create_remote_scheduler(url)
        if _scheduler_is_configured():
            settings.refuse(f"no Luigi scheduler answers at {url} (luigi.cfg [core], or --local-scheduler for none)")
        print(f"No luigid at {url}: going on with a scheduler of our own (start luigid to watch tasks in a browser).")
        return self.create_local_scheduler()

    def create_worker(self, scheduler: Any, worker_processes: int, assistant: bool = False) -> PruneWorker:
        """Return a worker with the backend that luigi.cfg asks for."""
        try:
            backend = choose(settings.compute_settings())
        except LuigiPruneError as error:
            settings.refuse(error)
        # --workers left at 1: as many tasks at once as the backend has room for
        at_once = worker_processes if worker_processes > 1 else backend.slots
        return PruneWorker(scheduler=scheduler, worker_processes=at_once, assistant=assistant, backend=backend)


def _answers(url: str) -> bool:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return True  # a socket or something else that only Luigi understands
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((parts.hostname, port), timeout=3):
            return True
    except OSError:
        return False


def _scheduler_is_configured() -> bool:
    config = luigi.configuration.get_config()
    names = [f"{start}scheduler_{what}" for start in ("default_", "") for what in ("url", "host", "port")]
    named = any(config.has_option("core", option) for name in names for option in (name, name.replace("_", "-")))
    return named or any(argument.startswith(("--scheduler-", "--core-scheduler-")) for argument in sys.argv)


def install() -> None:
    """Make Luigi's command line use this worker, on top of the packaged luigi.cfg."""
    settings.load_packaged_config()
    # "[core] default_scheduler_url" and its like are read, but not by the class that warns
    warnings.filterwarnings("ignore", "The configuration contains the parameter", UnconsumedParameterWarning)
    luigi.interface._WorkerSchedulerFactory = Factory
