"""A backend that computes nothing: for tests of what runs when."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from luigi_prune.execution.job import Backend, Job, Listener, Outcome
from luigi_prune.results.hdf5_file import verify, write_result


class PretendBackend(Backend):
    """Writes an empty result for every job, or ends it as `outcomes` (by family, first come first) says."""

    name = "pretend"

    def __init__(self, slots: int = 2, late: bool = False):
        self.slots = slots
        self.late = late  # whether results come from another thread, after `submit` has returned
        self.outcomes: dict[str, list[Outcome]] = {}
        self.submitted: list[str] = []
        self.at_once = self.most_at_once = 0
        self.closed = False
        self.on_submit: Callable[[str], None] = lambda what: None  # called with "job" before every one

    def submit(self, job: Job, listener: Listener) -> None:
        self.on_submit("job")
        self.submitted.append(job.family)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        if self.late:
            threading.Timer(0.02, self._work, [job, listener]).start()
        else:
            self._work(job, listener)

    def _work(self, job: Job, listener: Listener) -> None:
        listener.started()
        listener.progressed(0.5, "half <way>")
        planned = self.outcomes.get(job.family)
        outcome = planned.pop(0) if planned else self._write(job)
        self.at_once -= 1
        listener.ended(outcome)

    def _write(self, job: Job) -> Outcome:
        for path in job.request["inputs"].values():
            try:
                verify(path)
            except Exception:
                return Outcome("damaged", f"{path} is damaged", damaged=path)
        if job.output.endswith(".html"):
            Path(job.output).parent.mkdir(parents=True, exist_ok=True)
            Path(job.output).write_text("<html>")
        else:
            about: dict[str, Any] = {
                "family": job.family,
                "key": job.request["key"],
                "spec": json.loads(job.request["spec"]),
                "provenance": {},
            }
            write_result(job.output, arrays={"a": np.ones(3)}, **about)
        return Outcome("done", seconds=0.01)

    def cancel(self, job: Job) -> None:
        pass

    def close(self) -> None:
        self.closed = True
