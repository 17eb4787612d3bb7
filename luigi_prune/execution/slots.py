"""How many processes a machine takes at once, and which GPU each of them sees."""

from __future__ import annotations

import os

from luigi_prune.execution.devices import VISIBLE, process_count, uses_gpu, visible_gpus
from luigi_prune.execution.job import ComputeSettings, available_cores
from luigi_prune.execution.preload import THREAD_VARIABLES


class Slots:
    """The slots of this machine: one per process of a job, at most `total` taken at once."""

    def __init__(self, settings: ComputeSettings):
        """Raises ConfigError if a job would have more processes than this machine has GPUs."""
        self.cuda = uses_gpu(settings)
        self.threads = max(1, settings.threads)
        self.deterministic = settings.deterministic
        self._load = dict.fromkeys(visible_gpus() if self.cuda else (), 0)  # GPU, as CUDA_VISIBLE_DEVICES names it
        self.total = settings.jobs or max(1, len(self._load) if self.cuda else available_cores() // self.threads)
        self.free = self.total
        self._processes = {family: process_count(settings, family) for family in settings.processes}

    @property
    def widest(self) -> int:
        """How many processes the largest job has."""
        return max(self._processes.values(), default=1)

    def processes(self, family: str) -> int:
        """Return how many processes a job of this family has."""
        return self._processes.get(family, 1)

    def needed(self, family: str) -> int:
        """Return how many slots a job of this family takes: never more than there are, so that it can start."""
        return min(self.processes(family), self.total)

    def take(self, family: str) -> list[str]:
        """Take the slots of one job and return the GPU of each of its processes, the least used first; "" is none."""
        self.free -= self.needed(family)
        if not self._load:
            return [""] * self.processes(family)
        gpus = sorted(self._load, key=self._load.__getitem__)[: self.processes(family)]
        for gpu in gpus:
            self._load[gpu] += 1
        return gpus

    def give_back(self, family: str, gpus: list[str]) -> None:
        """Return what `take` returned."""
        self.free += self.needed(family)
        for gpu in gpus:
            if gpu:
                self._load[gpu] -= 1

    def environment(self, gpu: str) -> dict[str, str]:
        """Return the environment variables of a process: threads, the GPU it sees, the network of its DDP group."""
        environment = dict.fromkeys(THREAD_VARIABLES, str(self.threads))
        if gpu or not self.cuda:
            environment[VISIBLE] = gpu
        if "GLOO_SOCKET_IFNAME" not in os.environ and os.path.isdir("/sys/class/net/lo"):
            environment["GLOO_SOCKET_IFNAME"] = "lo"  # all on this machine, whatever its name resolves to
        return environment
