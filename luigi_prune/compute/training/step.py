"""One optimization step: gradient of the mean loss over the global batch, optimizer, masks."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

from luigi_prune.compute.distributed import average_statistics, sum_gradients
from luigi_prune.compute.training.optimizers import needs_closure
from luigi_prune.compute.training.run import Run
from luigi_prune.seeds import derive_seed


def optimize(run: Run, x: Tensor, y: Tensor, batch_size: int) -> None:
    """Take the step that `run.progress` stands before and add it to the tally.

    (x, y) is this process's share, which may be empty, of a global batch of `batch_size` samples.
    """
    progress, request = run.progress, run.request
    run.schedule.apply(run.optimizer, progress.epoch * request.steps_per_epoch + progress.step)
    share = run.loss.share(y)
    scale = _scale(run, share, batch_size)
    first: list[tuple[Tensor, Tensor]] = []

    def gradient() -> Tensor:
        _seed(run)
        run.optimizer.zero_grad(set_to_none=True)
        outputs, value = _forward(run, x, y)
        if value.requires_grad:
            run.scaler.scale(value * scale if scale is not None else value).backward()
        sum_gradients(run.network, request.ranks)
        run.masks.clear_gradients()
        if not first:
            first.append((outputs.detach(), value.detach()))
        return value.detach() if scale is None else value.detach() * scale

    if needs_closure(request.training.optimizer):
        run.optimizer.step(lambda: _everyones(run, gradient()))
    else:
        gradient()
        run.scaler.step(run.optimizer)
        run.scaler.update()
    run.masks.clear_weights()
    average_statistics(run.unsynchronised, len(y) / batch_size, request.ranks)
    if len(y):
        outputs, value = first[0]
        run.tally.add(outputs, y, value, share)


def _forward(run: Run, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the outputs and the loss; for an empty share a loss of zero."""
    if len(y) == 0 and run.request.device.type == "cpu":
        return x, torch.zeros(())
    # On GPUs a process without samples runs the network all the same: synchronised BatchNorm waits for everyone.
    # Half precision goes with the scaling of gradients.
    half = torch.autocast(run.request.device.type) if run.scaler.is_enabled() else contextlib.nullcontext()
    with half:
        outputs = run.network(x)
        return outputs, run.loss(outputs, y) if len(y) else outputs.sum() * 0


def _seed(run: Run) -> None:
    """Seed what draws inside the network (dropout and the like) from the step alone, so that resuming needs no
    state.
    """
    drawn = derive_seed(run.request.seed, "step", run.progress.epoch, run.progress.step, run.request.ranks.rank)
    torch.default_generator.manual_seed(drawn)
    if run.request.device.type == "cuda":
        torch.cuda.manual_seed(drawn)


def _scale(run: Run, share: int | Tensor, batch_size: int) -> float | Tensor | None:
    """Return what the loss is multiplied by so that the gradients of all processes sum up to that of the global
    batch.
    """
    if run.request.ranks.size == 1 or run.loss.reduction == "sum":
        return None
    if isinstance(share, int):
        return share / batch_size
    everyones = share.to(torch.float32, copy=True).reshape(1)
    run.request.ranks.sum_([everyones])
    return share / everyones[0]


def _everyones(run: Run, value: Tensor) -> float:
    """Return the loss over the global batch, so that a line search decides alike on all processes."""
    total = value.clone().reshape(1)
    run.request.ranks.sum_([total])
    return float(total)
