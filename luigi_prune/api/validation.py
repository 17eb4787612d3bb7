"""Checks of the arguments of `api.prune`, and substitutes for missing ones."""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor, nn

from luigi_prune.compute.duplicates import duplicate
from luigi_prune.compute.memory import explain_oom
from luigi_prune.compute.network_inputs import Inputs, checked, leaves, sample_count
from luigi_prune.compute.own_draws import own_draws
from luigi_prune.compute.precision import own_types
from luigi_prune.compute.pruning import Rules, layer_budgets
from luigi_prune.compute.pruning.engine.network_checks import check_kinds, computed_weights, listed
from luigi_prune.errors import ConfigError
from luigi_prune.seeds import derive_seed

if TYPE_CHECKING:
    from luigi_prune.registry import MethodRow

SIZES = (32, 224, 64, 28, 16, 8, 96, 128, 256, 299)  # of square images, most common first
LENGTHS = (16, 128, 8, 32, 64, 512)  # of sequences
_SAMPLES = 2


def guess_input(network: nn.Module, seed: int) -> Tensor:
    """Return a batch of noise that `network` accepts, by trying the shapes that fit its first layer.

    Raises ConfigError if it accepts none of them, or requires several inputs.
    """
    if len(required := _required_arguments(network)) > 1:
        raise ConfigError(
            f"the network requires {len(required)} inputs ({', '.join(required)}), of which none can be guessed: pass "
            "example_input or calibration, with a tuple or dictionary of inputs"
        )
    generator = torch.Generator().manual_seed(derive_seed(seed, "guessed input"))
    parameter = next(network.parameters(), torch.empty(()))
    trial = duplicate(network).eval()
    cure = "give example_input or calibration, or use another device"
    with own_types(parameter.device), own_draws(parameter.device), torch.no_grad():
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


def _required_arguments(network: nn.Module) -> list[str]:
    """Return the names of the arguments of `forward` that have no default."""
    try:
        parameters = inspect.signature(network.forward).parameters.values()
    except (TypeError, ValueError):
        return []
    free = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [each.name for each in parameters if each.default is each.empty and each.kind not in free]


def _shapes(network: nn.Module) -> list[tuple[tuple[int, ...], int]]:
    """Return (shape of one sample, vocabulary size or 0) of every guess, most likely first."""
    for module in network.modules():
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
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


def check_network(row: MethodRow, network: object) -> None:
    """Raise ConfigError for a network that would otherwise fail late or with an unrelated error."""
    if not isinstance(network, nn.Module):
        raise ConfigError(f"{row.name}: expected a torch.nn.Module, got a {type(network).__name__}")
    check_kinds(row.name, network)
    if row.granularity != "none" and not layer_budgets(network):
        computed = computed_weights(network)
        why = f"; the weight of {listed(computed)} is computed from other parameters" if computed else ""
        raise ConfigError(f"{row.name}: the network has no compressible layer ({row.layers}){why}")


def ratio_of(row: MethodRow, keep_ratio: Any) -> float:
    """Return a number of any type (of numpy, a tensor, a fraction) as a float; raises ConfigError outside (0, 1]."""
    if keep_ratio is math.nan:
        raise ConfigError(f"{row.name}: give a keep_ratio in (0, 1]")
    is_number = not isinstance(keep_ratio, (bool, str, bytes)) and "bool" not in str(getattr(keep_ratio, "dtype", ""))
    try:
        number = float(keep_ratio) if is_number else math.nan
    except (TypeError, ValueError, RuntimeError):  # no number, or several
        number = math.nan
    if not 0 < number <= 1:  # NaN, too
        raise ConfigError(f"{row.name}: keep ratio {keep_ratio!r} is outside (0, 1]")
    return number


def seed_of(row: MethodRow, seed: Any) -> int:
    """Return an integer of any type as an int; raises ConfigError for anything else."""
    try:
        return operator.index(seed)
    except (TypeError, RuntimeError):  # RuntimeError: a tensor of several numbers
        raise ConfigError(f"{row.name}: seed: expected an integer, got {seed!r}") from None


def check_signature(row: MethodRow, network: nn.Module, inputs: Inputs) -> None:
    """Raise ConfigError if `forward` does not have the arguments that inputs are for."""
    values, keywords = ((), inputs) if isinstance(inputs, Mapping) else ((inputs,), {})
    if isinstance(inputs, (tuple, list)):
        values = tuple(inputs)
    try:
        signature = inspect.signature(network.forward)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*values, **keywords)
    except TypeError as error:
        takes = ", ".join(list(signature.parameters)[:8])
        given = f"a dictionary of {', '.join(inputs)}" if isinstance(inputs, Mapping) else f"{len(values)} in a row"
        cure = "; a list that is one argument is written ([a, b],)" if isinstance(inputs, list) else ""
        raise ConfigError(
            f"{row.name}: the inputs, {given}, do not fit the network's forward({takes}): {error}{cure}"
        ) from None


def checked_batches(row: MethodRow, calibration: Iterable[Any] | None) -> list[tuple[Inputs, Any]] | None:
    """Return the batches as a list of (inputs, targets); raises ConfigError unless each has as many targets as inputs.

    A dictionary is a batch whose targets are its "labels", or None: losses of such networks are part of their output.
    """
    if calibration is None:
        return None
    if not isinstance(calibration, Iterable):
        raise ConfigError(f"{row.name}: calibration: expected batches, got a {type(calibration).__name__}")
    batches = []
    for index, batch in enumerate(calibration):
        where = f"{row.name}: calibration batch {index}"
        if isinstance(batch, Mapping):
            batch = (batch, batch.get("labels"))
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            has = f" but has {len(batch)} parts; write ((a, b), targets)" if isinstance(batch, (tuple, list)) else ""
            raise ConfigError(f"{where} is not a pair (inputs, targets){has}")
        inputs, targets = checked(where, batch[0]), batch[1]
        if targets is not None:
            checked_targets(where, targets, sample_count(inputs))
        batches.append((inputs, targets))
    return batches


def checked_targets(where: str, targets: object, samples: int) -> None:
    """Raise ConfigError unless all tensors of `targets` have as many samples as the inputs."""
    for name, value in leaves(targets):
        if not isinstance(value, Tensor):
            raise ConfigError(f"{where}: expected a tensor of targets, got a {type(value).__name__}")
        if not value.dim() or len(value) != samples:
            of = f" {name!r}" if name else ""
            raise ConfigError(f"{where} has {samples} inputs but targets{of} of shape {tuple(value.shape)}")


def missing_loss(row: MethodRow, rules: Rules) -> Callable[[Any, Any], Tensor]:
    """Return a substitute that raises ConfigError if the method calls its loss."""

    def missing(outputs: Any, targets: Any) -> NoReturn:
        raise ConfigError(f"{rules.data_reader(row)} needs a loss, but none is given")

    return missing


def explained_loss(row: MethodRow, loss: Callable[[Any, Any], Tensor]) -> Callable[[Any, Any], Tensor]:
    """Return `loss`, which raises ConfigError if it fails on an output that is no tensor, or on missing targets."""

    def value(outputs: Any, targets: Any) -> Tensor:
        try:
            return loss(outputs, targets)
        except torch.OutOfMemoryError:
            raise
        except (TypeError, ValueError, AttributeError, LookupError, RuntimeError) as error:
            reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            if targets is None:
                raise ConfigError(
                    f"{row.name}: the loss fails without targets ({reason}): a calibration batch "
                    'that is a dictionary has no "labels"; write (inputs, targets)'
                ) from error
            if isinstance(outputs, Tensor):
                raise
            kind = type(outputs).__name__
            raise ConfigError(
                f"{row.name}: the loss fails on the network's output of type {kind}, which it gets as it is "
                f"({reason}): give one that takes its tensor first, loss=lambda outputs, y: loss(outputs.logits, y)"
            ) from error

    return value
