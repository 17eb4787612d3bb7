"""Several trainings of one schedule in one process, in lockstep."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from luigi_prune.compute.data import Splits
from luigi_prune.compute.distributed import ProcessGroup, Ranks
from luigi_prune.compute.memory import explain_oom
from luigi_prune.compute.training.epochs import end_epoch, keep_rewind_weights, must_stop
from luigi_prune.compute.training.explicit_mlps import ExplicitMlps
from luigi_prune.compute.training.graphed_step import Graphed
from luigi_prune.compute.training.progress import (
    EpochRecord,
    TrainResult,
    history_arrays,
    preserved_random_state,
    snapshot,
)
from luigi_prune.compute.training.run import Request, Run, precision_of, prepare, resume, save_checkpoint
from luigi_prune.compute.training.shared_batches import SharedBatches
from luigi_prune.compute.training.steppers import Batch, OneByOne, Stepper
from luigi_prune.config.schema import TrainingConfig
from luigi_prune.errors import Interrupted

Ended = Callable[[int, TrainResult | Exception], None]


@dataclass(frozen=True)
class Training:
    """One of the trainings of a group, which differ in these; `train` describes them."""

    network: nn.Module
    splits: Splits
    seed: int
    masks: dict[str, Tensor] | None = None
    start_epoch: int = 0
    rewind_epoch: int | None = None
    checkpoint: Path | None = None
    on_epoch: Callable[[EpochRecord], None] | None = None
    should_stop: Callable[[], bool] | None = None


def train_together(
    trainings: Sequence[Training],
    settings: TrainingConfig,
    *,
    device: torch.device,
    process_group: ProcessGroup | None = None,
    loader_workers: int = 0,
    checkpoint_seconds: float = 5.0,
    ended: Ended | None = None,
) -> list[TrainResult | Exception]:
    """Train networks in place, each as `train` would; return each one's result, or the exception that ended it.

    Each gets its own batches in its own order, and resumes its own checkpoint; those that are further along than others
    wait for them. An exception of one, such as Interrupted or one of its `on_epoch`, makes no difference to the others.
    `ended(number, result)` is called as soon as a training has ended, and may not raise.
    """
    group = _Group(settings, device, ended or (lambda number, result: None), len(trainings) > 1)
    with preserved_random_state(device):
        for number, training in enumerate(trainings):
            request = Request(
                training=settings,
                splits=training.splits,
                seed=training.seed,
                start_epoch=training.start_epoch,
                rewind_epoch=training.rewind_epoch,
                checkpoint=Path(training.checkpoint) if training.checkpoint is not None else None,
                checkpoint_seconds=checkpoint_seconds,
                should_stop=training.should_stop or (lambda: False),
                device=device,
                ranks=Ranks.of(process_group),
                loader_workers=loader_workers,
            )
            group.add(number, training, request)
        while group.members:
            group.train_stretch()
    return [group.results[number] for number in range(len(trainings))]


@dataclass(eq=False)
class _Member:
    """A training in progress."""

    number: int
    run: Run
    on_epoch: Callable[[EpochRecord], None] | None

    @property
    def position(self) -> tuple[int, int]:
        """The epoch, and the step in it."""
        return self.run.progress.epoch, self.run.progress.step


class _Group:
    """The trainings that have not ended, and the results of the others."""

    def __init__(self, settings: TrainingConfig, device: torch.device, ended: Ended, are_several: bool):
        self.members: list[_Member] = []
        self.results: dict[int, TrainResult | Exception] = {}
        self._settings, self._device, self._ended = settings, device, ended
        self._graphed = Graphed(device) if device.type == "cuda" and are_several else None
        self._stepper: Stepper = OneByOne()
        self._stepping: list[_Member] = []

    def add(self, number: int, training: Training, request: Request) -> None:
        """Prepare and resume a training."""

        def begin() -> None:
            request.check()
            run = prepare(training.network, request, training.masks)
            resume(run)
            keep_rewind_weights(run)
            self.members.append(_Member(number, run, training.on_epoch))

        self._attempt(number, begin)
        self._settle()

    def train_stretch(self) -> None:
        """Train the members that are behind, to the end of their epoch or to where others wait for them."""
        position = min(member.position for member in self.members)
        first = next(member for member in self.members if member.position == position)
        samples = len(first.run.request.splits.train)
        behind = [
            member
            for member in self.members
            if member.position == position and len(member.run.request.splits.train) == samples
        ]
        epoch, start = position
        waiting = [step for e, step in (member.position for member in self.members) if e == epoch and step > start]
        end = min([first.run.steps_per_epoch, *waiting])
        started = time.monotonic()
        self._take_steps(behind, end)
        if end == first.run.steps_per_epoch:
            for member in self._alive(behind):
                self._attempt(member.number, lambda: end_epoch(member.run, member.on_epoch, started))  # noqa: B023
        self._settle()

    def _take_steps(self, members: list[_Member], end: int) -> None:
        """Take the steps of an epoch up to `end`."""
        batches = SharedBatches([member.run for member in members], end)
        for member in members:
            member.run.network.train()
        for _ in range(members[0].run.progress.step, end):
            ended = len(self.results)
            loaded = batches.next([member.run for member in members])
            for member, batch in zip(members, loaded, strict=True):
                if isinstance(batch, Exception):
                    self._fail(member, batch)
            if len(self.results) > ended:
                members = self._alive(members)
            self._step(members, [batch for batch in loaded if not isinstance(batch, Exception)])
            if len(self.results) > ended and not (members := self._alive(members)):
                break
        self._stepper.write_back()

    def _step(self, members: list[_Member], batches: list[Batch]) -> None:
        """Take one step of all members, each with its batch."""
        if members != self._stepping:
            self._stepper.write_back()
            runs = [member.run for member in members]
            self._stepper, self._stepping = self._graphed or choose(runs), members
            self._stepper.prepare(runs)
        for member, error in zip(members, self._stepper.step(batches), strict=True):
            if error is None:
                member.run.progress.step += 1
                error = self._stop_if_asked(member.run)
            if error is not None:
                self._fail(member, error)

    def _stop_if_asked(self, run: Run) -> Exception | None:
        """Save the checkpoint of a run that must stop; return Interrupted, or the exception of a failure."""
        try:
            if not must_stop(run):
                return None
            self._stepper.write_back()
            save_checkpoint(run, within_epoch=True)
        except Exception as error:
            return error
        return Interrupted(f"stopped in epoch {run.progress.epoch}, after step {run.progress.step}")

    def _alive(self, members: list[_Member]) -> list[_Member]:
        return [member for member in members if member.number not in self.results]

    def _settle(self) -> None:
        """Record the results of members that have trained all epochs; drop all that have ended."""
        for member in self._alive(self.members):
            if member.run.progress.epoch >= self._settings.num_epochs:
                self._attempt(member.number, lambda: self._end(member.number, _result(member.run)))  # noqa: B023
        self.members = self._alive(self.members)

    def _end(self, number: int, result: TrainResult | Exception) -> None:
        self.results[number] = result
        self._ended(number, result)

    def _fail(self, member: _Member, error: Exception) -> None:
        def fail() -> None:
            raise error

        self._attempt(member.number, fail)

    def _attempt(self, number: int, action: Callable[[], None]) -> None:
        """Do something for one member, whose training ends if it fails."""
        sizes = f"with batchSize {self._settings.batch_size} and testBatchSize {self._settings.test_batch_size}"
        cure = "set microBatchSize, or choose another device (luigi.cfg: [compute] device)"
        try:
            with explain_oom(self._device, f"training {sizes}", cure):
                action()
        except Exception as error:
            self._end(number, error)


def choose(runs: Sequence[Run]) -> Stepper:
    """Return a new stepper for a group; one run alone is trained as it always was."""
    if len(runs) > 1 and all(ExplicitMlps.suits(run) for run in runs):
        return ExplicitMlps()
    return OneByOne()


def _result(run: Run) -> TrainResult:
    """Return the result of a run that has trained all epochs."""
    if run.request.training.channels_last:
        run.network.to(memory_format=torch.contiguous_format)
    progress = run.progress
    state = snapshot(run.network) if progress.best_state is None else progress.best_state
    history = history_arrays(progress, run.request.training.metrics_test)
    return TrainResult(state, progress.rewind_state, history, precision_of(run))
