"""The training loop: in one process or several, resumable at any step, reproducible bit for bit on a CPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from luigi_prune import registry
from luigi_prune.compute.data import Splits
from luigi_prune.compute.data.loading import load_batches
from luigi_prune.compute.data.sample_order import epoch_order, global_batches, rank_share
from luigi_prune.compute.distributed import ProcessGroup, Ranks
from luigi_prune.compute.memory import explain_oom
from luigi_prune.compute.metrics.evaluation import measure
from luigi_prune.compute.metrics.foreign_metrics import labels_lower_is_better
from luigi_prune.compute.training.progress import (
    EpochRecord,
    TrainResult,
    history_arrays,
    preserved_random_state,
    snapshot,
)
from luigi_prune.compute.training.run import Request, Run, precision_of, prepare, resume, save_checkpoint
from luigi_prune.compute.training.step import optimize
from luigi_prune.config.schema import TrainingConfig
from luigi_prune.errors import Interrupted

# Several processes agree on stopping by an all-reduce, for which a GPU waits.
STEPS_BETWEEN_STOP_CHECKS = 8


def train(
    network: nn.Module,
    training: TrainingConfig,
    splits: Splits,
    *,
    seed: int,
    start_epoch: int = 0,
    masks: dict[str, Tensor] | None = None,
    rewind_epoch: int | None = None,
    checkpoint: Path | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    device: torch.device,
    process_group: ProcessGroup | None = None,
    loader_workers: int = 0,
    checkpoint_seconds: float = 5.0,
) -> TrainResult:
    """Train `network` in place over the epochs [start_epoch, training.num_epochs); return its weights and history.

    The weights are the last ones; with early stopping (`early_stop_epoch` < `num_epochs`) those with the best first
    validation metric (the lowest if lower is better) among the epochs from `early_stop_epoch` on, the latest of ties.
    Entries that are False in `masks` (parameter name -> True for kept entries) stay zero. With `rewind_epoch` the
    result also contains the weights at the start of that epoch.

    `checkpoint` is resumed if it is one of the same training, and written at the end of an epoch if
    `checkpoint_seconds` have passed; the caller has to `discard` it. If `should_stop()` becomes true on any process, a
    checkpoint is written and all processes raise Interrupted. `on_epoch` is called on rank 0 only.
    """
    request = Request(
        training=training,
        splits=splits,
        seed=seed,
        start_epoch=start_epoch,
        rewind_epoch=rewind_epoch,
        checkpoint=Path(checkpoint) if checkpoint is not None else None,
        checkpoint_seconds=checkpoint_seconds,
        should_stop=should_stop or (lambda: False),
        device=device,
        ranks=Ranks.of(process_group),
        loader_workers=loader_workers,
    )
    request.check()
    sizes = f"with batchSize {training.batch_size} and testBatchSize {training.test_batch_size}"
    cure = "set microBatchSize, or choose another device (luigi.cfg: [compute] device)"
    with explain_oom(device, f"training {sizes}", cure), preserved_random_state(device):
        run = prepare(network, request, masks)
        resume(run)
        _keep_rewind_weights(run)
        while run.progress.epoch < training.num_epochs:
            record = _train_epoch(run)
            _keep_rewind_weights(run)
            if request.ranks.is_rank_zero:
                if time.monotonic() - run.last_save >= checkpoint_seconds:
                    save_checkpoint(run, within_epoch=False)
                if on_epoch is not None:
                    on_epoch(record)
    if training.channels_last:
        network.to(memory_format=torch.contiguous_format)
    progress = run.progress
    state = snapshot(run.network) if progress.best_state is None else progress.best_state
    history = history_arrays(progress, training.metrics_test)
    return TrainResult(state, progress.rewind_state, history, precision_of(run))


def _train_epoch(run: Run) -> EpochRecord:
    """Train the remaining steps of the current epoch, validate, and advance to the next epoch."""
    request, progress, started = run.request, run.progress, time.monotonic()
    order = epoch_order(len(request.splits.train), request.seed, progress.epoch)
    batches = global_batches(order, request.training.batch_size)[progress.step :]
    loading = load_batches(
        request.splits.train,
        [rank_share(batch, request.ranks.rank, request.ranks.size) for batch in batches],
        epoch=progress.epoch,
        seed=request.seed,
        device=request.device,
        workers=request.loader_workers,
    )
    run.network.train()
    for batch, (x, y) in zip(batches, loading, strict=True):
        optimize(run, x, y, len(batch))
        progress.step += 1
        if _must_stop(run):
            save_checkpoint(run, within_epoch=True)
            raise Interrupted(f"stopped in epoch {progress.epoch}, after step {progress.step}")
    return _finish_epoch(run, started)


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


def _keep_rewind_weights(run: Run) -> None:
    """Keep the weights at the start of the rewind epoch."""
    if run.progress.epoch == run.request.rewind_epoch and run.progress.step == 0:
        run.progress.rewind_state = snapshot(run.network)


def _must_stop(run: Run) -> bool:
    """Return whether all processes must stop after this step."""
    request, step = run.request, run.progress.step
    if request.ranks.size > 1 and step % STEPS_BETWEEN_STOP_CHECKS and step < request.steps_per_epoch:
        return False
    return request.ranks.any(request.should_stop(), request.device)
