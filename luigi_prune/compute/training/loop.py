"""Training one network: in one process or several, resumable at any step, reproducible bit for bit on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from luigi_prune.compute.data import Splits
from luigi_prune.compute.distributed import ProcessGroup
from luigi_prune.compute.training.progress import EpochRecord, TrainResult
from luigi_prune.compute.training.together import Training, train_together
from luigi_prune.config.schema import TrainingConfig


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
    training_alone = Training(
        network, splits, seed, masks, start_epoch, rewind_epoch, checkpoint, on_epoch, should_stop
    )
    (result,) = train_together(
        [training_alone],
        training,
        device=device,
        process_group=process_group,
        loader_workers=loader_workers,
        checkpoint_seconds=checkpoint_seconds,
    )
    if isinstance(result, Exception):
        try:
            raise result
        finally:
            del result  # its traceback leads here: a cycle would keep the tensors alive
    return result
