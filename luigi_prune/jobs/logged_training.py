"""Training inside a job: its processes, checkpoint, and epochs reported to the driver, the log and TensorBoard."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from luigi_prune.compute.data import Splits
from luigi_prune.compute.distributed import close_group, open_group
from luigi_prune.compute.training import EpochRecord, TrainResult, train
from luigi_prune.config.schema import Directories, TrainingConfig
from luigi_prune.execution.job import Context
from luigi_prune.identity import paths
from luigi_prune.identity.spec import TrainSpec
from luigi_prune.registry import metric_label
from luigi_prune.report.tensorboard import epoch_log

log = logging.getLogger("luigi_prune")


def train_logged(
    request: dict[str, Any],
    context: Context,
    network: nn.Module,
    training: TrainingConfig,
    splits: Splits,
    *,
    seed: int,
    base: TrainSpec,
    start_epoch: int = 0,
    masks: dict[str, torch.Tensor] | None = None,
    rewind_epoch: int | None = None,
) -> TrainResult:
    """Train in all processes of the job; rank 0 reports each epoch. Raises Interrupted after saving a checkpoint."""
    device = torch.device(context.device)
    parallel = context.world_size > 1
    group = open_group(context.rank, context.world_size, context.init_method, device) if parallel else None
    on_epoch = None
    if context.rank == 0 and training.num_epochs > start_epoch:
        directories = Directories.model_validate_json(request["directories"])
        folder = paths.tensorboard_folder(directories, base.network, Path(request["output"]))
        on_epoch = _epoch_reporter(epoch_log(folder), training, start_epoch, context.progress)
    try:
        return train(
            network,
            training,
            splits,
            seed=seed,
            start_epoch=start_epoch,
            masks=masks,
            rewind_epoch=rewind_epoch,
            checkpoint=paths.checkpoint_path(request["output"]),
            on_epoch=on_epoch,
            should_stop=context.should_stop,
            device=device,
            process_group=group,
            loader_workers=context.loader_workers,
        )
    finally:
        if parallel:
            close_group()


def _epoch_reporter(
    log_scalars: Callable[[int, dict[str, float]], None],
    training: TrainingConfig,
    start_epoch: int,
    progress: Callable[[float, str], None],
) -> Callable[[EpochRecord], None]:
    """Return the function that reports an epoch to TensorBoard, the log and the driver."""
    label = metric_label(training.metrics_test[0])

    def report_epoch(record: EpochRecord) -> None:
        scalars = {
            "learning_rate": record.learning_rate,
            "train/loss": record.train_loss,
            "validation/loss": record.validation_loss,
            **{f"train/{name}": value for name, value in record.train.items()},
            **{f"validation/{name}": value for name, value in record.validation.items()},
        }
        log_scalars(record.epoch, scalars)
        text = ", ".join(f"{name} {value:.4g}" for name, value in scalars.items())
        log.info("epoch %d/%d: %s", record.epoch + 1, training.num_epochs, text)
        fraction = (record.epoch + 1 - start_epoch) / (training.num_epochs - start_epoch)
        metric = f"validation {label} {scalars[f'validation/{label}']:.4f}"
        progress(fraction, f"epoch {record.epoch + 1}/{training.num_epochs}, {metric}")

    return report_epoch
