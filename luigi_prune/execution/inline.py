"""The inline backend: runs jobs in the Luigi process, one at a time, or several of an equal schedule together."""

from __future__ import annotations

from luigi_prune.errors import ConfigError
from luigi_prune.execution.bundles import run_members
from luigi_prune.execution.devices import process_count, uses_gpu
from luigi_prune.execution.job import Backend, ComputeSettings, Context, Job, Listener, Outcome, most_together
from luigi_prune.execution.waiting_jobs import WaitingJob, WaitingJobs


class InlineBackend(Backend):
    """Runs each job inside `submit`; those that can run together, inside `all_submitted`."""

    name = "inline"
    slots = 1
    bundles = True

    def __init__(self, settings: ComputeSettings):
        """Raises ConfigError if luigi.cfg asks for several processes per job."""
        if any(process_count(settings, family) > 1 for family in settings.processes):
            raise ConfigError(
                "luigi.cfg: [compute] backend: 'inline' runs one process per job; use 'local' for several"
            )
        if settings.jobs_per_gpu > 1 and uses_gpu(settings):
            raise ConfigError(
                "luigi.cfg: [compute] backend: 'inline' runs one job at a time; use 'local' for several per GPU"
            )
        self.settings = settings
        self.together = most_together(settings)
        self._waiting = WaitingJobs(settings.together)

    def in_hand(self) -> int:
        """Return how many jobs `all_submitted` runs together."""
        return self.together

    def submit(self, job: Job, listener: Listener) -> None:
        """Run the job in this process, on the first visible GPU if there is one; returns when it has ended.

        A job that can run together with others is run by `all_submitted`.
        """
        waiting = self._waiting.add(job, listener)
        if waiting.due:
            self._waiting.drop(lambda other: other is waiting)
            self._run([waiting])

    def all_submitted(self) -> None:
        """Run the jobs that can run together; returns when they have ended."""
        self._waiting.all_submitted()
        while members := self._waiting.take():
            self._run(members)

    def _run(self, members: list[WaitingJob]) -> None:
        on_gpu = uses_gpu(self.settings)
        contexts = [
            Context(
                threads=self.settings.threads,
                device="cuda:0" if on_gpu else "cpu",
                loader_workers=self.settings.loader_workers,
                deterministic=self.settings.deterministic,
                gpus=int(on_gpu),
                progress=member.listener.progressed,
            )
            for member in members
        ]
        for member in members:
            member.listener.started()
        run_members(
            [member.job for member in members], contexts, lambda index, outcome: members[index].listener.ended(outcome)
        )

    def cancel(self, job: Job) -> None:
        """Drop the job if it waits for others; no job runs between calls of `submit` and `all_submitted`."""
        self._end(self._waiting.drop(lambda waiting: waiting.job == job))

    def close(self) -> None:
        """Drop the jobs that wait."""
        self._end(self._waiting.drop(lambda waiting: True))

    def _end(self, listeners: list[Listener]) -> None:
        for listener in listeners:
            listener.ended(Outcome("failed", "cancelled", retry=False))
