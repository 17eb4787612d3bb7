"""What happens between the steps of a run: stopping, and the end of an epoch with validation and checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable

from luigi_prune import registry
from luigi_prune.compute.metrics.evaluation import measure
from luigi_prune.compute.metrics.foreign_metrics import labels_lower_is_better
from luigi_prune.compute.training.progress import EpochRecord, snapshot
from luigi_prune.compute.training.run import Run, save_checkpoint

# Several processes agree on stopping by an all-reduce, for which a GPU waits.
STEPS_BETWEEN_STOP_CHECKS = 8


def must_stop(run: Run) -> bool:
    """Return whether all processes must stop after this step."""
    request, step = run.request, run.progress.step
    if request.ranks.size > 1 and step % STEPS_BETWEEN_STOP_CHECKS and step < run.steps_per_epoch:
        return False
    return request.ranks.any(request.should_stop(), request.device)


def end_epoch(run: Run, on_epoch: Callable[[EpochRecord], None] | None, started: float) -> None:
    """Validate and record the epoch that began at `started`, advance to the next, save and report what is due."""
    record = _finish_epoch(run, started)
    keep_rewind_weights(run)
    if run.request.ranks.is_rank_zero:
        if time.monotonic() - run.last_save >= run.request.checkpoint_seconds:
            save_checkpoint(run, within_epoch=False)
        if on_epoch is not None:
            on_epoch(record)


def keep_rewind_weights(run: Run) -> None:
    """Keep the weights at the start of the rewind epoch."""
    if run.progress.epoch == run.request.rewind_epoch and run.progress.step == 0:
        run.progress.rewind_state = snapshot(run.network)


def _finish_epoch(run: Run, started: float) -> EpochRecord:
    """Validate the epoch, record it, and keep its weights if they are the best so far."""
    request, progress, training = run.request, run.progress, run.request.training
    run.clear_weights()  # a network may change its weights by itself
    run.tally.pool(request.ranks)
    trained = run.tally.values()
    measure(
        run.network,
        request.splits.validation,
        run.loss,
        run.validation,
        batch_size=training.test_batch_size,
        device=request.device,
        ranks=request.ranks,
        loader_workers=request.loader_workers,
    )
    validated = run.validation.values()
    record = EpochRecord(
        epoch=progress.epoch,
        num_epochs=training.num_epochs,
        learning_rate=float(run.optimizer.param_groups[0]["lr"]),
        train_loss=trained.pop("loss"),
        validation_loss=validated.pop("loss"),
        train=trained,
        validation=validated,
        seconds=time.monotonic() - started,
    )
    progress.record(record)
    if training.early_stop_epoch < training.num_epochs and progress.epoch >= training.early_stop_epoch:
        value = validated[registry.metric_label(training.metrics_test[0])]
        if labels_lower_is_better(training.metrics_test[:1]):
            value = -value
        if value >= progress.best_value:
            progress.best_value, progress.best_state = value, snapshot(run.network)
            progress.best_epoch = progress.epoch
    progress.epoch, progress.step = progress.epoch + 1, 0
    run.tally.reset()
    return record
