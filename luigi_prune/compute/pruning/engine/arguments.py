"""The arguments of a pruning step: checked before anything is computed, and made ready for it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from luigi_prune.compute.memory import explain_oom
from luigi_prune.compute.pruning.problem.granularity import GRANULARITIES
from luigi_prune.compute.pruning.problem.layers import ignored_layers
from luigi_prune.compute.pruning.problem.records import Batches, Loss, Rules
from luigi_prune.compute.pruning.sizes_and_flops import count_outputs, layer_budgets
from luigi_prune.compute.zeros import to_numbers
from luigi_prune.errors import ConfigError, LuigiPruneError, nearest
from luigi_prune.seeds import derive_seed

if TYPE_CHECKING:
    from luigi_prune.registry import MethodRow


def oom_in_step(device: torch.device, method: MethodRow, calibration: Batches | None) -> AbstractContextManager[None]:
    """Name the sizes of the calibration batches, and a cure, if the device runs out of memory."""
    sizes = [len(inputs) for inputs, _ in calibration or []]
    by_data = f" with {sum(sizes)} calibration samples in batches of {max(sizes)}" if sizes else ""
    cure = "use smaller calibration batches and inputs, " if sizes else "use smaller inputs, "
    return explain_oom(device, f"{method.name}{by_data}", f"{cure}or another device (luigi.cfg: [compute] device)")


def check_arguments(
    method: MethodRow,
    keep_ratio: float,
    calibration: Batches | None,
    loss: Loss | None,
    rules: Rules,
    example_input: Tensor,
    original_size: int,
) -> None:
    """Raise ConfigError for settings and data that cannot work."""
    if not 0 < keep_ratio <= 1:  # NaN, too
        raise ConfigError(f"{method.name}: keep ratio {keep_ratio} is outside (0, 1]")
    kind = method.granularity
    if kind not in ("none", "rank", *GRANULARITIES):
        raise ConfigError(f"{method.name}: granularity {kind!r} is not known{nearest(kind, (*GRANULARITIES, 'rank'))}")
    if rules.needs_data(method) and (not calibration or loss is None):
        missing = "a loss" if calibration else "calibration data"
        raise ConfigError(f"{rules.data_reader(method)} needs {missing}: none is given")
    tensors = [
        (index, what, value)
        for index, pair in enumerate(calibration or [])
        for what, value in zip(("inputs", "targets"), pair, strict=True)
        if value.is_floating_point()
    ]
    finite = to_numbers(torch.isfinite(value).all() for _, _, value in tensors)
    for (index, what, _), is_finite in zip(tensors, finite, strict=True):
        if not is_finite:
            raise ConfigError(f"{method.name}: calibration batch {index} has NaN or infinite {what}")
    if not example_input.dim() or not example_input.shape[0]:
        raise ConfigError(f"{method.name}: the example input is empty, shape {tuple(example_input.shape)}")
    if example_input.is_floating_point() and not bool(torch.isfinite(example_input).all()):
        raise ConfigError(f"{method.name}: the example input has NaN or infinite entries")
    if original_size <= 0:
        raise ConfigError(f"{method.name}: an original size of {original_size} leaves nothing to prune")


def ignored_names(method: MethodRow, network: nn.Module, patterns: Iterable[str]) -> frozenset[str]:
    """Return the names of the layers that must stay as they are; raise ConfigError if no layer is left to prune."""
    names = [layer.name for layer in layer_budgets(network)]
    ignored = ignored_layers(names, (patterns,) if isinstance(patterns, str) else patterns)
    if names and len(ignored) == len(names) and method.granularity != "none":
        raise ConfigError(f"{method.name}: ignore leaves none of the {len(names)} compressible layers to prune")
    return ignored


def in_one_piece(network: nn.Module) -> nn.Module:
    """Return `network` with its parameters contiguous in memory, changed in place: views of them need that."""
    for parameter in network.parameters():
        if not parameter.is_contiguous():
            parameter.data = parameter.data.contiguous()
    return network


def first_outputs(method: MethodRow, network: nn.Module, example: Tensor) -> dict[str, int]:
    """Return the result of `count_outputs`; raise ConfigError if the network fails on the example."""
    try:
        return count_outputs(network, example)
    except (torch.OutOfMemoryError, LuigiPruneError):
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {(str(error).splitlines() or ['no reason given'])[0]}"
        raise ConfigError(
            f"{method.name}: the network fails on inputs of shape {tuple(example.shape)}, {example.dtype}: {reason}"
        ) from error


def checked_loss(method: MethodRow, loss: Loss | None) -> Loss | None:
    """Return `loss` as a function that raises ConfigError unless its result is one number."""
    if loss is None:
        return None

    def checked(outputs: Tensor, targets: Tensor) -> Tensor:
        value = loss(outputs, targets)
        if not isinstance(value, Tensor):
            raise ConfigError(f"{method.name}: the loss returned a {type(value).__name__}, expected a tensor")
        if value.numel() != 1:
            raise ConfigError(
                f"{method.name}: the loss returned a tensor of shape {tuple(value.shape)}, expected one number: "
                "its mean over the batch, for instance"
            )
        return value.reshape(())

    return checked


def with_noise(example: Tensor, seed: int) -> Tensor:
    """Return the example followed by noise with its mean and spread, so that checks do not rely on the data."""
    if not example.is_floating_point():
        return example
    generator = torch.Generator().manual_seed(derive_seed(seed, "noise"))
    noise = torch.randn(max(2, min(len(example), 4)), *example.shape[1:], generator=generator).to(example)
    return torch.cat([example, example.mean() + example.float().std(correction=0).to(example) * noise])
