"""One optimization step: the gradient of the loss over the global batch, the optimizer's step, and the masks."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from luigi_prune.compute.distributed import sum_gradients
from luigi_prune.compute.network_inputs import Inputs, call, prediction, tensors_in
from luigi_prune.compute.training.run import Run
from luigi_prune.seeds import derive_seed


def optimize(run: Run, x: Inputs, y: Tensor, batch_size: int) -> None:
    """Take the next step and add its outputs and loss to the tally.

    (x, y) is this process's share, possibly empty, of a global batch of `batch_size` samples.
    """
    run.schedule.apply(run.optimizer, run.progress.epoch * run.steps_per_epoch + run.progress.step)
    share = run.loss.share(y)
    scale = _scale(run, share, batch_size)
    if run.searches_line:
        outputs, value = _search_line(run, x, y, scale)
    else:
        outputs, value = _gradient(run, x, y, scale)
        if run.scales:
            run.scaler.step(run.optimizer)
            run.scaler.update()
        else:
            run.optimizer.step()
    for masked in run.masked:
        masked.clear_weight()
    if len(y):
        run.tally.add(prediction(outputs).detach(), y, value.detach(), share)


def _gradient(run: Run, x: Inputs, y: Tensor, scale: float | Tensor | None) -> tuple[Any, Tensor]:
    """Set the gradients to those of the global batch; return the outputs and loss of this share."""
    _seed(run)
    run.optimizer.zero_grad(set_to_none=True)
    outputs, value = _forward(run, x, y)
    scaled = value if scale is None else value * scale
    if run.scales:
        scaled = run.scaler.scale(scaled)
    if scaled.requires_grad:
        scaled.backward()
    if run.request.ranks.size > 1:
        sum_gradients(run.network, run.request.ranks)
    for masked in run.masked:
        masked.clear_gradient()
    return outputs, value


def _search_line(run: Run, x: Inputs, y: Tensor, scale: float | Tensor | None) -> tuple[Any, Tensor]:
    """Take a step that evaluates the loss several times; return the outputs and loss before it."""
    evaluated = []

    def closure() -> float:
        evaluated.append(_gradient(run, x, y, scale))
        value = evaluated[-1][1].detach()
        # The line search must take the same decisions on all processes.
        total = (value if scale is None else value * scale).clone().reshape(1)
        run.request.ranks.sum_([total])
        return float(total)

    run.optimizer.step(closure)
    return evaluated[0]


def _forward(run: Run, x: Inputs, y: Tensor) -> tuple[Any, Tensor]:
    """Return the outputs and the loss; the loss of an empty share is zero."""
    if len(y) == 0:
        # On GPUs a process without samples runs the network, too: synchronised BatchNorm waits for all processes.
        if run.request.device.type != "cuda":
            return None, torch.zeros(())
        return None, torch.stack([tensor.sum() for tensor in tensors_in(call(run.network, x))]).sum() * 0
    if run.autocast is None:
        outputs = call(run.network, x)
        return outputs, run.loss(outputs, y)
    with torch.autocast(run.request.device.type, dtype=run.autocast):
        outputs = call(run.network, x)
        return outputs, run.loss(outputs, y)


def _seed(run: Run) -> None:
    """Seed random operations of the network (such as dropout) by the step, so that resuming needs no state."""
    epoch, step, rank = run.progress.epoch, run.progress.step, run.request.ranks.rank
    # Hashing is the most expensive part, so it is done once per epoch; the golden ratio spreads the steps.
    seed = (_epoch_seed(run.request.seed, epoch, rank) + step * 0x9E3779B97F4A7C15) % 2**63
    torch.default_generator.manual_seed(seed)
    if run.request.device.type == "cuda":
        torch.cuda.manual_seed(seed)


@functools.lru_cache(maxsize=4)
def _epoch_seed(seed: int, epoch: int, rank: int) -> int:
    return derive_seed(seed, "step", epoch, rank)


def _scale(run: Run, share: int | Tensor, batch_size: int) -> float | Tensor | None:
    """Return the factor of the loss with which the gradients of all processes sum to that of the global batch."""
    if run.request.ranks.size == 1 or run.loss.reduction == "sum":
        return None
    if isinstance(share, int):
        return share / batch_size
    total = share.to(torch.float32, copy=True).reshape(1)
    run.request.ranks.sum_([total])
    return share / total[0]
