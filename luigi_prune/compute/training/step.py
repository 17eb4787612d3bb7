"""One optimization step: the gradient of the loss over the global batch, the optimizer's step, and the masks."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from luigi_prune.compute.distributed import sum_gradients
from luigi_prune.compute.network_inputs import Inputs, call, map_tensors, prediction, split, tensors_in
from luigi_prune.compute.training.execution_forms import channels_last
from luigi_prune.compute.training.run import Run
from luigi_prune.seeds import derive_seed


class Pass(NamedTuple):
    """One forward pass: its targets, the outputs, the loss, and its weight in the mean over a step's passes."""

    y: Tensor
    outputs: Any
    value: Tensor
    weight: float | Tensor | None  # None: one pass, or a sum


def optimize(run: Run, x: Inputs, y: Tensor, batch_size: int) -> None:
    """Take the next step and add its outputs and loss to the tally.

    (x, y) is this process's share, possibly empty, of a global batch of `batch_size` samples.
    """
    run.schedule.apply(run.optimizer, run.progress.epoch * run.steps_per_epoch + run.progress.step)
    parts = _parts(run, x, y, batch_size)
    seed_step(run)
    for part in take_step(run, parts, _scale(run, run.loss.share(y), batch_size)):
        if len(part.y):
            run.tally.add(prediction(part.outputs).detach(), part.y, part.value.detach(), run.loss.share(part.y))


def take_step(run: Run, parts: list[tuple[Inputs, Tensor]], scale: float | Tensor | None) -> list[Pass]:
    """Change the weights by one step over the samples of all parts; return the passes before it."""
    if run.searches_line:
        passes = _search_line(run, parts, scale)
    else:
        passes = _gradient(run, parts, scale)
        if run.scales:
            run.scaler.step(run.optimizer)
            run.scaler.update()
        else:
            run.steps.step()
    if not run.keeps_zeros:
        run.clear_weights()
    return passes


def _parts(run: Run, x: Inputs, y: Tensor, batch_size: int) -> list[tuple[Inputs, Tensor]]:
    """Return the samples of each pass, as many passes on every process, the first ones with one sample more."""
    largest = run.request.training.micro_batch_size or batch_size
    number = -(-batch_size // largest)
    if number == 1:
        return [(x, y)]
    sizes = [len(y) // number + (place < len(y) % number) for place in range(number)]
    return list(zip(split(x, sizes), split(y, sizes), strict=True))


def _gradient(run: Run, parts: list[tuple[Inputs, Tensor]], scale: float | Tensor | None) -> list[Pass]:
    """Set the gradients to those of the global batch; return the passes over this share."""
    run.steps.zero_grad()
    passes = []
    for (x, y), weight in zip(parts, _weights(run, [y for _, y in parts]), strict=True):
        outputs, value = _forward(run, x, y)
        scaled = _times(_times(value, weight), scale)
        if run.scales:
            scaled = run.scaler.scale(scaled)
        if scaled.requires_grad:
            scaled.backward()
        passes.append(Pass(y, outputs, value, weight))
    if run.request.ranks.size > 1:
        sum_gradients(run.network, run.request.ranks)
    for masked in run.masked:
        masked.clear_gradient()
    return passes


def _weights(run: Run, targets: list[Tensor]) -> list[float | Tensor | None]:
    """Return the weight of each pass in this share's mean loss."""
    if len(targets) == 1 or run.loss.reduction == "sum":
        return [None] * len(targets)
    shares = [run.loss.share(y) for y in targets]
    total = sum(shares)
    return [share / total if len(y) else 0.0 for share, y in zip(shares, targets, strict=True)]


def _times(value: Tensor, factor: float | Tensor | None) -> Tensor:
    return value if factor is None else value * factor


def _search_line(run: Run, parts: list[tuple[Inputs, Tensor]], scale: float | Tensor | None) -> list[Pass]:
    """Take a step that evaluates the loss several times; return the passes before it."""
    evaluated = []

    def closure() -> float:
        seed_step(run)
        evaluated.append(_gradient(run, parts, scale))
        values = [_times(part.value.detach(), part.weight) for part in evaluated[-1]]
        value = values[0] if len(values) == 1 else torch.stack(values).sum()
        # The line search must take the same decisions on all processes.
        total = _times(value, scale).clone().reshape(1)
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
    if run.request.training.channels_last:
        x = map_tensors(channels_last, x)
    if run.autocast is None:
        outputs = call(run.forward, x)
        return outputs, run.loss(outputs, y)
    with torch.autocast(run.request.device.type, dtype=run.autocast):
        outputs = call(run.forward, x)
        return outputs, run.loss(outputs, y)


def seed_step(run: Run) -> None:
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
