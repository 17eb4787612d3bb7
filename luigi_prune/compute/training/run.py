"""The state of a training in progress: its request, its objects, saving and resuming."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from luigi_prune.compute.data import Splits
from luigi_prune.compute.distributed import Ranks, synchronise_batchnorm
from luigi_prune.compute.masked import MaskedParameter, masked_parameters
from luigi_prune.compute.metrics.losses import Loss
from luigi_prune.compute.metrics.tally import Tally
from luigi_prune.compute.state import load_state
from luigi_prune.compute.training.checkpoint import decode, read_payload, write_checkpoint
from luigi_prune.compute.training.execution_forms import compiled
from luigi_prune.compute.training.lean_steps import OptimizerSteps
from luigi_prune.compute.training.optimizers import build_optimizer, keeps_zeros, needs_closure
from luigi_prune.compute.training.progress import Progress, fingerprint, snapshot
from luigi_prune.compute.training.schedules import Schedule, build_schedule
from luigi_prune.config.schema import TrainingConfig
from luigi_prune.errors import ConfigError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """The arguments of `train` except the network and its masks."""

    training: TrainingConfig
    splits: Splits
    seed: int
    start_epoch: int
    rewind_epoch: int | None
    checkpoint: Path | None
    checkpoint_seconds: float
    should_stop: Callable[[], bool]
    device: torch.device
    ranks: Ranks
    loader_workers: int

    @property
    def steps_per_epoch(self) -> int:
        """Optimization steps of an epoch; the last batch may be smaller."""
        return -(-len(self.splits.train) // self.training.batch_size)

    def check(self) -> None:
        """Raise ConfigError for epochs outside the schedule, or more processes than a batch has samples."""
        epochs = self.training.num_epochs
        if not 0 <= self.start_epoch <= epochs:
            raise ConfigError(
                f"retraining.startEpoch: {self.start_epoch} is not within the {epochs} epochs of numEpochs"
            )
        if self.rewind_epoch is not None and not self.start_epoch <= self.rewind_epoch <= epochs:
            raise ConfigError(
                f"retraining.startEpoch: {self.rewind_epoch} is not within the {epochs} epochs of training"
            )
        smallest = min(self.training.batch_size, self.training.test_batch_size)
        smallest = min(smallest, len(self.splits.train), len(self.splits.validation))
        if self.ranks.size > smallest:
            raise ConfigError(f"training.batchSize: {self.ranks.size} processes cannot share batches of {smallest}")


@dataclass
class Run:
    """The objects of a training in progress."""

    request: Request
    network: nn.Module
    loss: Loss
    optimizer: Optimizer
    autocast: torch.dtype | None  # of mixed precision; None: full precision
    scaler: torch.amp.GradScaler  # enabled for float16 only
    schedule: Schedule
    masked: list[MaskedParameter]
    progress: Progress
    tally: Tally  # of the epoch so far
    validation: Tally
    fingerprint: str
    last_save: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        # Read at every step, computed once.
        self.steps_per_epoch = self.request.steps_per_epoch
        self.searches_line = needs_closure(self.request.training.optimizer)
        self.scales = self.scaler.is_enabled()
        self.keeps_zeros = keeps_zeros(self.request.training.optimizer, self.request.training.optimizer_kwargs)
        self.steps = OptimizerSteps(self.optimizer)
        # Shares the network's parameters, and its mode.
        self.forward = compiled(self.network) if self.request.training.compile else self.network

    def clear_weights(self) -> None:
        """Set pruned entries to zero."""
        for masked in self.masked:
            masked.clear_weight()


def prepare(network: nn.Module, request: Request, masks: dict[str, Tensor] | None) -> Run:
    """Return the run at its first step, with the network and the data on the device."""
    training, device, ranks = request.training, request.device, request.ranks
    network = network.to(device)
    if training.channels_last:
        network = network.to(memory_format=torch.channels_last)
    ranks.spread_([*network.parameters(), *network.buffers()])
    # testBatchSize may have been lowered because memory ran out; steps do not depend on it.
    steps = training.model_copy(update={"test_batch_size": training.batch_size})
    described = (steps, request.seed, request.start_epoch, request.rewind_epoch, len(request.splits.train))
    identity = fingerprint(described, [network.state_dict(), masks or {}])
    network = synchronise_batchnorm(network, ranks, device)
    masked = masked_parameters(network, {name: mask.clone() for name, mask in (masks or {}).items()})
    for parameter in masked:
        parameter.clear_weight()
    request.splits.train.to(device)
    request.splits.validation.to(device)
    loss = Loss(training.loss, training.loss_kwargs).to(device)
    autocast = _mixed_precision(training, device)
    if training.enable_amp and autocast is None and ranks.is_rank_zero:
        _warn_of_full_precision(device.type, training.optimizer)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    scaler = torch.amp.GradScaler(device.type, enabled=autocast is torch.float16)
    return Run(
        request=request,
        network=network,
        loss=loss,
        optimizer=build_optimizer(training.optimizer, training.optimizer_kwargs, trained, scaled=scaler.is_enabled()),
        autocast=autocast,
        scaler=scaler,
        schedule=build_schedule(training, request.steps_per_epoch),
        masked=[parameter for parameter in masked if parameter.prunes],
        progress=Progress(request.start_epoch),
        tally=Tally(loss, training.metrics_test, device),
        validation=Tally(loss, training.metrics_test, device),
        fingerprint=identity,
    )


def _mixed_precision(training: TrainingConfig, device: torch.device) -> torch.dtype | None:
    """Return the type of mixed precision, which is for GPUs only; None if it is not used.

    A line search evaluates the loss several times per step, which gradient scaling does not support.
    """
    if not training.enable_amp or device.type != "cuda" or needs_closure(training.optimizer):
        return None
    dtype: torch.dtype = getattr(torch, training.amp_dtype)
    if dtype is torch.bfloat16 and not torch.cuda.is_bf16_supported():
        raise ConfigError(f"training.ampDtype: {device} has no bfloat16; choose float16, or enableAMP: false")
    return dtype


@functools.cache
def _warn_of_full_precision(device: str, optimizer: str) -> None:
    """Warn, once per process, that mixed precision was requested and is not used."""
    reason = f"a {device} has none" if device != "cuda" else f"{optimizer} evaluates the loss several times per step"
    log.warning("enableAMP: trained without mixed precision, because %s", reason)


def precision_of(run: Run) -> str:
    """Return the precision of a training's computations, as recorded in results."""
    full = _name(next((value.dtype for value in run.network.parameters()), torch.float32))
    return full if run.autocast is None else f"{_name(run.autocast)} and {full} (AMP)"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def save_checkpoint(run: Run, within_epoch: bool) -> None:
    """Write the checkpoint. Within an epoch every process has to call this: it contains the sums over all of them."""
    if within_epoch:
        run.tally.pool(run.request.ranks)
    if run.request.checkpoint is not None and run.request.ranks.is_rank_zero:
        _write(run, run.request.checkpoint, within_epoch)
    if within_epoch:
        run.request.ranks.any(False, run.request.device)  # a barrier: no process ends before the file exists


def _write(run: Run, path: Path, within_epoch: bool) -> None:
    content = {
        "fingerprint": run.fingerprint,
        "progress": dict(vars(run.progress)),
        "network": snapshot(run.network),
        "optimizer": run.optimizer.state_dict(),
        "scaler": run.scaler.state_dict(),
        "tally": run.tally.state() if within_epoch else None,
    }
    try:
        write_checkpoint(path, content)
    except OSError as error:  # such as a full disk; the training goes on
        log.warning("checkpoint %s cannot be written: %s", path, error)
    run.last_save = time.monotonic()


def resume(run: Run) -> None:
    """Continue from the checkpoint, if there is one of the same training; rank 0 reads it for all processes."""
    path, ranks = run.request.checkpoint, run.request.ranks
    payload = ranks.spread_bytes(read_payload(path) if path is not None and ranks.is_rank_zero else None)
    if payload is None:
        return
    content = decode(payload)
    if content["fingerprint"] != run.fingerprint:
        if ranks.is_rank_zero:
            log.warning("checkpoint %s belongs to another training; training starts anew", path)
        return
    load_state(run.network, content["network"])
    run.optimizer.load_state_dict(content["optimizer"])
    run.scaler.load_state_dict(content["scaler"])
    run.progress = Progress(**content["progress"])
    if content["tally"] is not None:
        run.tally.load(content["tally"])
        if not ranks.is_rank_zero:
            run.tally.reset()  # rank 0 has the sums of all; the others' metrics exist, if no batch of the epoch is left
    log.info("resuming in epoch %d, after step %d", run.progress.epoch, run.progress.step)
