"""Inline and local jobs get the device that they were promised, several of them at once."""

from __future__ import annotations

import json
import os
import tempfile
import threading
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.facts import Facts
from luigi_prune.execution.backends import choose
from luigi_prune.execution.job import ComputeSettings, Job, Outcome

JOBS = 4


class Waiting:
    """A listener that a caller can wait for."""

    def __init__(self) -> None:
        self.outcome: Outcome | None = None
        self.over = threading.Event()

    def started(self) -> None:
        """Nothing to do."""

    def progressed(self, fraction: float, message: str) -> None:
        """Nothing to do."""

    def ended(self, outcome: Outcome) -> None:
        """Keep the outcome."""
        self.outcome = outcome
        self.over.set()


def carry(settings: ComputeSettings, jobs: list[Job], seconds: float) -> list[Outcome]:
    """Return the outcomes of jobs that a backend carries; raises TimeoutError."""
    backend = choose(settings)
    try:
        listeners = [Waiting() for _ in jobs]
        for job, listener in zip(jobs, listeners, strict=True):
            backend.submit(job, listener)
        found = []
        for job, listener in zip(jobs, listeners, strict=True):
            if not listener.over.wait(seconds) or listener.outcome is None:
                raise TimeoutError(f"{job.name} did not end within {seconds:.0f} s")
            found.append(listener.outcome)
        return found
    finally:
        backend.close()


def whereabouts(backend: str, device: str, jobs: int, seconds: float) -> list[dict[str, Any]]:
    """Return what `jobs` jobs say about where they ran; raises RuntimeError for one that failed."""
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder) / f"{index}.json" for index in range(jobs)]
        carried = [
            Job("benchmarks.gpu.job_functions:where", f"job {index}", "Prune", {"output": str(path)}, str(path),
                str(path.with_suffix(".log")))
            for index, path in enumerate(outputs)
        ]  # fmt: skip
        for outcome in carry(ComputeSettings(backend=backend, device=device, jobs=jobs), carried, seconds):
            if outcome.status != "done":
                raise RuntimeError(f"{outcome.status}: {outcome.message.strip().splitlines()[-1]}")
        return [json.loads(path.read_text()) for path in outputs]


def first_gpu() -> str:
    """Return the GPU that a job should see, as CUDA_VISIBLE_DEVICES names it."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0].strip()


def run(facts: Facts, device: torch.device) -> None:
    """Run jobs by both backends, told the device and left to find it."""
    expected = "cuda:0" if device.type == "cuda" else "cpu"
    for backend, jobs in (("inline", 1), ("local", JOBS)):
        for told in (device.type, "auto"):
            name = f"{backend}, device={told}"
            if told == "auto" and (device.type == "cuda") != torch.cuda.is_available():
                facts.skip(name, "this rehearsal keeps off the GPU")
                continue
            with facts.attempt(name):
                found = whereabouts(backend, told, jobs, facts.seconds_left - 3)
                right = all(job["device"] == expected and job["sum"] == 1000 for job in found)
                if backend == "local" and expected == "cuda:0":
                    right = right and all(job["visible"] == first_gpu() and job["count"] == 1 for job in found)
                first = found[0]
                value = f"{first['device']}, {first['name']}, CUDA_VISIBLE_DEVICES={first['visible']}"
                facts.check(name, right, f"{len(found)} job(s): {value}")
                if backend == "local":
                    together = max(job["began"] for job in found) < min(job["ended"] for job in found)
                    processes = len({job["pid"] for job in found})
                    facts.measure(f"{name}: at once", f"{processes} processes, all at one time: {together}")
