"""Slots of this machine: how many processes run at once, and which GPU each of them uses."""

from __future__ import annotations

import os

from luigi_prune.execution.devices import VISIBLE, process_count, uses_gpu, visible_gpus
from luigi_prune.execution.job import ComputeSettings, available_cores
from luigi_prune.execution.preload import THREAD_VARIABLES


class Slots:
    """The slots of this machine: one per process of a job, `total` in all."""

    def __init__(self, settings: ComputeSettings):
        """Raises ConfigError if a job would have more processes than this machine has GPUs."""
        self.cuda = uses_gpu(settings)
        self.threads = max(1, settings.threads)
        self.deterministic = settings.deterministic
        self._load = dict.fromkeys(visible_gpus() if self.cuda else (), 0)  # GPU, as CUDA_VISIBLE_DEVICES names it
        usual = len(self._load) * settings.jobs_per_gpu if self.cuda else available_cores() // self.threads
        self.total = settings.jobs or max(1, usual)
        self.free = self.total
        self._processes = {family: process_count(settings, family) for family in settings.processes}

    @property
    def widest(self) -> int:
        """The number of processes of the largest job."""
        return max(self._processes.values(), default=1)

    def processes(self, family: str) -> int:
        """Return the number of processes of a job of this family."""
        return self._processes.get(family, 1)

    def needed(self, family: str) -> int:
        """Return the number of slots of a job of this family: at most `total`, so that it can start."""
        return min(self.processes(family), self.total)

    def take(self, family: str) -> list[str]:
        """Take the slots of one job; return the GPU of each of its processes, least used first ("": no GPU)."""
        self.free -= self.needed(family)
        if not self._load:
            return [""] * self.processes(family)
        gpus = sorted(self._load, key=self._load.__getitem__)[: self.processes(family)]
        for gpu in gpus:
            self._load[gpu] += 1
        return gpus

    def free_slots(self, family: str, gpus: list[str]) -> None:
        """Free the slots and GPUs that `take` returned."""
        self.free += self.needed(family)
        for gpu in gpus:
            if gpu:
                self._load[gpu] -= 1

    def environment(self, gpu: str) -> dict[str, str]:
        """Return the environment variables of a process: threads, visible GPU, network interface of its DDP group."""
        environment = dict.fromkeys(THREAD_VARIABLES, str(self.threads))
        if gpu or not self.cuda:
            environment[VISIBLE] = gpu
        if "GLOO_SOCKET_IFNAME" not in os.environ and os.path.isdir("/sys/class/net/lo"):
            environment["GLOO_SOCKET_IFNAME"] = (
                "lo"  # all processes are on this machine, whatever its host name resolves to
            )
        return environment
