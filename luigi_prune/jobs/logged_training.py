"""Training inside a job: its processes, checkpoint, and epochs reported to the driver, the log and TensorBoard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from luigi_prune.compute.distributed import close_group, open_group
from luigi_prune.compute.training import EpochRecord, Training, TrainResult, train
from luigi_prune.config.schema import Directories, TrainingConfig
from luigi_prune.execution.job import Context
from luigi_prune.identity import paths
from luigi_prune.identity.spec import TrainSpec
from luigi_prune.registry import metric_label
from luigi_prune.report.tensorboard import epoch_log


@dataclass(frozen=True)
class PreparedTraining:
    """A training job whose inputs have been read.

    `finish(trained, began)` writes its result; `began` is the `time.perf_counter()` from which its seconds count.
    """

    request: dict[str, Any]
    context: Context
    base: TrainSpec
    settings: TrainingConfig
    training: Training
    finish: Callable[[TrainResult, float], None]

    def reported(self) -> Training:
        """Return the training with its checkpoint, its stop signal and reports of its epochs."""
        settings, start = self.settings, self.training.start_epoch
        on_epoch = None
        if self.context.rank == 0 and settings.num_epochs > start:
            directories = Directories.model_validate_json(self.request["directories"])
            folder = paths.tensorboard_folder(directories, self.base.network, Path(self.request["output"]))
            on_epoch = _epoch_reporter(epoch_log(folder), settings, start, self.context)
        checkpoint = paths.checkpoint_path(self.request["output"])
        return replace(self.training, checkpoint=checkpoint, on_epoch=on_epoch, should_stop=self.context.should_stop)


def train_logged(job: PreparedTraining, began: float) -> None:
    """Train in all processes of a job; rank 0 reports each epoch and writes the result.

    Raises Interrupted after saving a checkpoint.
    """
    context = job.context
    device = torch.device(context.device)
    parallel = context.world_size > 1
    group = open_group(context.rank, context.world_size, context.init_method, device) if parallel else None
    training = job.reported()
    try:
        trained = train(
            training.network,
            job.settings,
            training.splits,
            seed=training.seed,
            start_epoch=training.start_epoch,
            masks=training.masks,
            rewind_epoch=training.rewind_epoch,
            checkpoint=training.checkpoint,
            on_epoch=training.on_epoch,
            should_stop=training.should_stop,
            device=device,
            process_group=group,
            loader_workers=context.loader_workers,
        )
    finally:
        if parallel:
            close_group()
    if context.rank == 0:
        job.finish(trained, began)


def _epoch_reporter(
    log_scalars: Callable[[int, dict[str, float]], None],
    training: TrainingConfig,
    start_epoch: int,
    context: Context,
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
        context.log_line(f"epoch {record.epoch + 1}/{training.num_epochs}: {text}")
        fraction = (record.epoch + 1 - start_epoch) / (training.num_epochs - start_epoch)
        metric = f"validation {label} {scalars[f'validation/{label}']:.4f}"
        context.progress(fraction, f"epoch {record.epoch + 1}/{training.num_epochs}, {metric}")

    return report_epoch
