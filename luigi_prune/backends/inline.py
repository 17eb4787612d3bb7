"""The simplest backend: a job runs in the Luigi process itself, one at a time; torch is imported once."""

from __future__ import annotations

from luigi_prune import jobs
from luigi_prune.backends.job import Backend, ComputeSettings, Context, Job, Listener, cuda_devices


class InlineBackend(Backend):
    """Runs each job inside `submit`."""

    name = "inline"
    slots = 1

    def __init__(self, settings: ComputeSettings):
        self.settings = settings

    def submit(self, job: Job, listener: Listener) -> None:
        """Run the job now, in this process."""
        settings = self.settings
        use_cuda = settings.device == "cuda" or (settings.device == "auto" and len(cuda_devices()) > 0)
        context = Context(
            threads=settings.threads,
            device="cuda:0" if use_cuda else "cpu",
            loader_workers=settings.loader_workers,
            deterministic=settings.deterministic,
            gpus=int(use_cuda),
            progress=listener.progressed,
        )
        listener.started()
        listener.ended(jobs.run(job, context))

    def cancel(self, job: Job) -> None:
        """Nothing to do: when anyone can ask, no job is running."""

    def close(self) -> None:
        """Nothing to do."""
