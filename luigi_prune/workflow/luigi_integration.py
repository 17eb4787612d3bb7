"""Makes the stock `luigi` command use the scheduler and the worker of this package."""

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
from luigi_prune.results.provenance import announce_command
from luigi_prune.scheduling.batched_calls import client_of
from luigi_prune.scheduling.indexed_scheduler import IndexedScheduler
from luigi_prune.workflow import settings
from luigi_prune.workflow.progress_display import LastingConsole
from luigi_prune.workflow.scheduler_link import SchedulerLink
from luigi_prune.workflow.scheduler_status import check_admitted, shown_url
from luigi_prune.workflow.worker import PruneWorker


class SchedulerWorkerFactory(luigi.interface._WorkerSchedulerFactory):
    """Creates the scheduler and the worker of a run."""

    def create_local_scheduler(self) -> IndexedScheduler:
        """Return a scheduler inside this process."""
        return IndexedScheduler(prune_on_get_work=True, record_task_history=False)

    def create_remote_scheduler(self, url: str) -> Any:
        """Return the scheduler at `url`, or a local one if none is configured and none responds."""
        if _responds(url):
            try:
                check_admitted(url)
            except LuigiPruneError as error:
                settings.exit_with_error(error)
            return SchedulerLink(client_of(url), self.create_local_scheduler, lambda: _responds(url), _print)
        if _scheduler_is_configured():
            settings.exit_with_error(
                f"no Luigi scheduler responds at {shown_url(url)} (luigi.cfg [core]; --local-scheduler: none)"
            )
        _print(f"No luigid at {url}: using a local scheduler (`python -m luigi_prune luigid` shows runs).")
        return self.create_local_scheduler()

    def create_worker(self, scheduler: Any, worker_processes: int, assistant: bool = False) -> PruneWorker:
        """Return a worker with the backend chosen in luigi.cfg."""
        announce_command()  # before the backend starts processes
        try:
            allow_partial = settings.allow_partial()
            backend = choose(settings.compute_settings())
        except LuigiPruneError as error:
            settings.exit_with_error(error)
        # without --workers: as many tasks at once as the backend has slots, or more if they share processes
        concurrency = worker_processes if worker_processes > 1 else backend.in_hand()
        worker = PruneWorker(scheduler=scheduler, worker_processes=concurrency, assistant=assistant, backend=backend)
        worker.allow_partial = allow_partial
        return worker


def _print(text: str) -> None:
    LastingConsole(highlight=False).print(text, soft_wrap=True, markup=False)


def _responds(url: str) -> bool:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return True  # a socket or another scheme that Luigi handles
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((parts.hostname, port), timeout=3):
            return True
    except OSError:
        return False


def _scheduler_is_configured() -> bool:
    config = luigi.configuration.get_config()
    names = [f"{prefix}scheduler_{part}" for prefix in ("default_", "") for part in ("url", "host", "port")]
    named = any(config.has_option("core", option) for name in names for option in (name, name.replace("_", "-")))
    return named or any(argument.startswith(("--scheduler-", "--core-scheduler-")) for argument in sys.argv)


def install() -> None:
    """Make Luigi's command line use this worker and, as defaults, the packaged luigi.cfg."""
    settings.load_packaged_config()
    # options such as "[core] default_scheduler_url" are used, but not by the class that warns
    warnings.filterwarnings("ignore", "The configuration contains the parameter", UnconsumedParameterWarning)
    luigi.interface._WorkerSchedulerFactory = SchedulerWorkerFactory
