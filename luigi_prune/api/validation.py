"""Checks of the arguments of `api.prune`, and substitutes for missing ones."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NoReturn

import torch
from torch import Tensor, nn

from luigi_prune.compute.memory import explain_oom
from luigi_prune.compute.pruning import Rules, layer_budgets
from luigi_prune.errors import ConfigError
from luigi_prune.seeds import derive_seed

if TYPE_CHECKING:
    from luigi_prune.registry import MethodRow

SIZES = (32, 224, 64, 28, 16, 8, 96, 128, 256, 299)  # of square images, most common first
LENGTHS = (16, 128, 8, 32, 64, 512)  # of sequences
_SAMPLES = 2


def guess_input(network: nn.Module, seed: int) -> Tensor:
    """Return a batch of noise that `network` accepts, by trying the shapes that fit its first layer.

    Raises ConfigError if it accepts none of them.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "guessed input"))
    parameter = next(network.parameters(), torch.empty(()))
    trial = copy.deepcopy(network).eval()
    cure = "give example_input or calibration, or use another device"
    with torch.no_grad():
        for shape, tokens in _shapes(network):
            batch = (_SAMPLES, *shape)
            if tokens:
                value = torch.randint(0, tokens, batch, generator=generator).to(parameter.device)
            else:
                value = torch.randn(batch, generator=generator).to(parameter)
            try:
                with explain_oom(value.device, f"a trial run on a made-up input of shape {batch}", cure):
                    trial(value.clone())
            except (RuntimeError, ValueError, TypeError, IndexError, AssertionError):
                continue
            return value
    raise ConfigError("no valid input of the network could be guessed: pass example_input or calibration")


def _shapes(network: nn.Module) -> list[tuple[tuple[int, ...], int]]:
    """Return (shape of one sample, vocabulary size or 0) of every guess, most likely first."""
    for module in network.modules():
        if isinstance(module, nn.Embedding):
            return [((length,), module.num_embeddings) for length in LENGTHS]
        if isinstance(module, nn.Linear):
            return [((module.in_features,), 0), *(((length, module.in_features), 0) for length in LENGTHS)]
        if isinstance(module, nn.Conv1d):
            return [((module.in_channels, length), 0) for length in LENGTHS]
        if isinstance(module, nn.Conv2d):
            return [((module.in_channels, size, size), 0) for size in SIZES]
        if isinstance(module, nn.Conv3d):
            return [((module.in_channels, size, size, size), 0) for size in (16, 32, 8)]
    return []


def check_arguments(row: MethodRow, network: object, keep_ratio: object) -> None:
    """Raise ConfigError for arguments that would otherwise fail late or with an unrelated error."""
    if not isinstance(network, nn.Module):
        raise ConfigError(f"{row.name}: expected a torch.nn.Module, got a {type(network).__name__}")
    if isinstance(network, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
        raise ConfigError(
            f"{row.name}: prune the network inside {type(network).__name__} (its `.module`) and wrap again"
        )
    if isinstance(keep_ratio, bool) or not isinstance(keep_ratio, (int, float)) or not 0 < keep_ratio <= 1:  # NaN, too
        raise ConfigError(f"{row.name}: keep ratio {keep_ratio!r} is outside (0, 1]")
    if row.granularity != "none" and not layer_budgets(network):
        raise ConfigError(f"{row.name}: the network has no compressible layer ({row.layers})")


def checked_batches(
    row: MethodRow, calibration: Iterable[tuple[Tensor, Tensor]] | None
) -> list[tuple[Tensor, Tensor]] | None:
    """Return the batches as a list; raises ConfigError unless each has inputs and as many targets."""
    if calibration is None:
        return None
    batches = list(calibration)
    for index, batch in enumerate(batches):
        pair = isinstance(batch, (tuple, list)) and len(batch) == 2 and all(isinstance(part, Tensor) for part in batch)
        if not pair:
            raise ConfigError(f"{row.name}: calibration batch {index} is not a pair of tensors (inputs, targets)")
        inputs, targets = batch
        if not inputs.dim() or not len(inputs):
            raise ConfigError(f"{row.name}: calibration batch {index} has no samples")
        if not targets.dim() or len(inputs) != len(targets):
            sizes = f"{len(inputs)} inputs but targets of shape {tuple(targets.shape)}"
            raise ConfigError(f"{row.name}: calibration batch {index} has {sizes}")
    return [(inputs, targets) for inputs, targets in batches]


def missing_loss(row: MethodRow, rules: Rules) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a substitute that raises ConfigError if the method calls its loss."""

    def missing(outputs: Tensor, targets: Tensor) -> NoReturn:
        raise ConfigError(f"{rules.data_reader(row)} needs a loss, but none is given")

    return missing
