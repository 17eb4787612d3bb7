"""The inline backend: runs jobs in the Luigi process, one at a time."""

from __future__ import annotations

from luigi_prune.errors import ConfigError
from luigi_prune.execution.devices import process_count, uses_gpu
from luigi_prune.execution.job import Backend, ComputeSettings, Context, Job, Listener
from luigi_prune.execution.job_run import run


class InlineBackend(Backend):
    """Runs each job inside `submit`."""

    name = "inline"
    slots = 1

    def __init__(self, settings: ComputeSettings):
        """Raises ConfigError if luigi.cfg asks for several processes per job."""
        if any(process_count(settings, family) > 1 for family in settings.processes):
            raise ConfigError(
                "luigi.cfg: [compute] backend: 'inline' runs one process per job; use 'local' for several"
            )
        self.settings = settings

    def submit(self, job: Job, listener: Listener) -> None:
        """Run the job in this process, on the first visible GPU if there is one; returns when it has ended."""
        on_gpu = uses_gpu(self.settings)
        context = Context(
            threads=self.settings.threads,
            device="cuda:0" if on_gpu else "cpu",
            loader_workers=self.settings.loader_workers,
            deterministic=self.settings.deterministic,
            gpus=int(on_gpu),
            progress=listener.progressed,
        )
        listener.started()
        listener.ended(run(job, context))

    def cancel(self, job: Job) -> None:
        """Do nothing: no job runs between calls of `submit`."""

    def close(self) -> None:
        """Do nothing."""
