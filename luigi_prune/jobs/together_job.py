"""Several trainings of an equal schedule in one job."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from luigi_prune import registry
from luigi_prune.compute.data import Splits
from luigi_prune.compute.training import TrainResult, train_together
from luigi_prune.config.schema import TrainingConfig
from luigi_prune.execution.job import Context, Job, Outcome
from luigi_prune.execution.job_run import algorithms_of, outcome_of
from luigi_prune.identity.spec import TrainSpec
from luigi_prune.jobs.inputs import SplitsReader, read_splits
from luigi_prune.jobs.logged_training import PreparedTraining
from luigi_prune.jobs.process import prepare_process
from luigi_prune.jobs.retrain_job import prepare_retraining
from luigi_prune.jobs.train_base_job import prepare_training

_PREPARE = {"TrainBase": prepare_training, "Retrain": prepare_retraining}


def run_together(
    members: Sequence[Job], contexts: Sequence[Context], ended: Callable[[int, Outcome], None]
) -> list[Outcome]:
    """Run jobs of one family and an equal schedule in this process; return their outcomes.

    `identity.common_schedule` gives what is equal. Each member has a context of its own: progress, `should_stop`,
    `is_superseded`. `ended(i, outcome)` is called as soon as member i has ended. A member that fails, or is stopped
    after it has saved its checkpoint, leaves the others as they are. Only SystemExit and KeyboardInterrupt propagate.
    """
    bundle = _Bundle(members, contexts, ended)
    with algorithms_of(contexts[0]):
        prepare_process(contexts[0])
        bundle.prepare()
        bundle.train()
    return [bundle.outcomes[index] for index in range(len(members))]


class _Bundle:
    """Jobs in one process, and the outcomes of those that have ended."""

    def __init__(self, members: Sequence[Job], contexts: Sequence[Context], ended: Callable[[int, Outcome], None]):
        self.outcomes: dict[int, Outcome] = {}
        self._members, self._contexts, self._ended = members, contexts, ended
        self._prepared: dict[int, PreparedTraining] = {}
        self._seconds = [0.0] * len(members)  # that count as a member's

    def prepare(self) -> None:
        """Read the inputs of all members."""
        read = _shared_reader()
        for index, (job, context) in enumerate(zip(self._members, self._contexts, strict=True)):
            began = time.perf_counter()
            try:
                registry.look_in(json.loads(job.request.get("directories", "{}")).get("modules"))
                self._prepared[index] = _PREPARE[job.family](job.request, context, read)
            except Exception as error:
                self._end(index, error, time.perf_counter() - began)
            self._seconds[index] = time.perf_counter() - began

    def train(self) -> None:
        """Train all that could be prepared, and write the result of each as soon as it has ended."""
        if not self._prepared:
            return
        numbers, began, context = list(self._prepared), time.perf_counter(), self._contexts[0]
        settings = self._prepared[numbers[0]].settings
        different = [self._members[index].name for index in numbers if self._prepared[index].settings != settings]
        if different:
            raise ValueError(f"{', '.join(different)}: another schedule than that of {self._members[numbers[0]].name}")

        def ended(place: int, result: TrainResult | Exception) -> None:
            # What they take together counts as that of all in equal parts.
            share = (time.perf_counter() - began) / len(numbers)
            self._finish(numbers[place], result, self._seconds[numbers[place]] + share)

        train_together(
            [self._prepared[index].reported() for index in numbers],
            settings,
            device=torch.device(context.device),
            loader_workers=context.loader_workers,
            ended=ended,
        )

    def _finish(self, index: int, result: TrainResult | Exception, seconds: float) -> None:
        """Write the result of a member that has taken `seconds`."""
        job, began = self._prepared.pop(index), time.perf_counter() - seconds
        error = result if isinstance(result, Exception) else None
        if not isinstance(result, Exception):
            try:
                job.finish(result, began)
            except Exception as failure:
                error = failure
        self._end(index, error, time.perf_counter() - began)

    def _end(self, index: int, error: Exception | None, seconds: float) -> None:
        done = Outcome("done", seconds=seconds)
        self.outcomes[index] = done if error is None else outcome_of(error, self._members[index], seconds)
        self._ended(index, self.outcomes[index])


def _shared_reader() -> SplitsReader:
    """Return a `read_splits` for requests of an equal data set and schedule that reads the data of each net once."""
    read: dict[tuple[int, int], Splits] = {}

    def read_once(base: TrainSpec, training: TrainingConfig, request: dict[str, Any]) -> Splits:
        net = (base.seed, base.net)
        if net not in read:
            read[net] = read_splits(base, training, request)
        return read[net]

    return read_once
