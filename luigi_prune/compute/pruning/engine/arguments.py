"""The arguments of a pruning step: checked before anything is computed, and made ready for it."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from luigi_prune.compute.memory import DEVICE_ERRORS, explain_oom
from luigi_prune.compute.network_inputs import Inputs, checked, device_of, map_tensors, sample_count, tensors_of
from luigi_prune.compute.pruning.problem.free_inputs import free_inputs
from luigi_prune.compute.pruning.problem.granularity import GRANULARITIES
from luigi_prune.compute.pruning.problem.layers import FindEnds, embeddings, ignored_layers
from luigi_prune.compute.pruning.problem.network_ends import ends_by_graph
from luigi_prune.compute.pruning.problem.records import Batches, Loss, Rules
from luigi_prune.compute.pruning.sizes_and_flops import count_outputs, counting_outputs, layer_budgets
from luigi_prune.compute.zeros import to_numbers
from luigi_prune.errors import ConfigError, LuigiPruneError, nearest, reason_of
from luigi_prune.seeds import derive_seed

if TYPE_CHECKING:
    from luigi_prune.registry import MethodRow


def oom_in_step(device: torch.device, method: MethodRow, calibration: Batches | None) -> AbstractContextManager[None]:
    """Name the sizes of the calibration batches, and a cure, if the device runs out of memory."""
    sizes = [sample_count(inputs) for inputs, _ in calibration or []]
    by_data = f" with {sum(sizes)} calibration samples in batches of {max(sizes)}" if sizes else ""
    cure = "use smaller calibration batches and inputs, " if sizes else "use smaller inputs, "
    return explain_oom(device, f"{method.name}{by_data}", f"{cure}or another device (luigi.cfg: [compute] device)")


def check_arguments(
    method: MethodRow,
    keep_ratio: float,
    calibration: Batches | None,
    loss: Loss | None,
    rules: Rules,
    example_input: Inputs,
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
    checked(f"{method.name}: the example input", example_input)
    parts = [
        (f"calibration batch {index} has NaN or infinite {what}", value)
        for index, pair in enumerate(calibration or [])
        for what, value in zip(("inputs", "targets"), pair, strict=True)
    ]
    with oom_in_step(device_of(example_input), method, calibration):
        _check_finite(method, [*parts, ("the example input has NaN or infinite entries", example_input)])
    if original_size <= 0:
        raise ConfigError(f"{method.name}: an original size of {original_size} leaves nothing to prune")


def _check_finite(method: MethodRow, parts: list[tuple[str, Inputs]]) -> None:
    """Raise ConfigError with the text of the first part that has NaN or infinite numbers.

    One of several inputs may have minus infinity: a mask that excludes positions.
    """
    named = [
        (text, torch.isfinite(value) | (value == -torch.inf) if len(tensors) > 1 else torch.isfinite(value))
        for text, part in parts
        for tensors in [tensors_of(part)]
        for value in tensors
        if value.is_floating_point()
    ]
    for (text, _), is_finite in zip(named, to_numbers(valid.all() for _, valid in named), strict=True):
        if not is_finite:
            raise ConfigError(f"{method.name}: {text}")


@contextmanager
def explained_failure(method: MethodRow) -> Iterator[None]:
    """Raise ConfigError for what the network's own code raises when its layers are observed.

    Errors of losses and scores from outside, and those of a device, stay as they are.
    """
    try:
        yield
    except (*DEVICE_ERRORS, LuigiPruneError):
        raise
    except Exception as error:
        if not _is_of_network(error):
            raise
        raise ConfigError(
            f"{method.name}: the network fails when the calls of its layers are observed, as gradients and transforms "
            f"inside of a forward (torch.func, torch.autograd.grad, reentrant checkpoints) may do: {reason_of(error)}"
        ) from error


def _is_of_network(error: Exception) -> bool:
    """Return whether a module was running, or its gradient, and no loss or score from outside."""
    frames = [(frame.f_code.co_filename, frame.f_code.co_name) for frame, _ in traceback.walk_tb(error.__traceback__)]
    ours = {name for file, name in frames if "luigi_prune" in file}
    runs = any(name == "_call_impl" or file.endswith("checkpoint.py") for file, name in frames)
    runs = runs or "functorch" in str(error)  # a tensor of a transform, read after it
    return runs and not ours & {"foreign_scores", "loss_value"}


def ignored_names(method: MethodRow, network: nn.Module, patterns: Iterable[str]) -> frozenset[str]:
    """Return the names of the layers that must stay as they are; raise ConfigError if no layer is left to prune."""
    patterns = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    if not patterns:
        return frozenset()
    names = [layer.name for layer in layer_budgets(network)]
    ignored = ignored_layers(names, patterns)
    if names and len(ignored) == len(names) and method.granularity != "none":
        raise ConfigError(f"{method.name}: ignore leaves none of the {len(names)} compressible layers to prune")
    return ignored


def included_names(method: MethodRow, network: nn.Module, patterns: Iterable[str], rules: Rules) -> list[str]:
    """Return the names of the embeddings that are pruned; raise ConfigError for one that cannot be."""
    patterns = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    if not patterns or method.granularity == "none":
        return []
    if method.no_embeddings:
        raise ConfigError(f"{method.name}: include: the method {method.no_embeddings}; ThresNet prunes them")
    if not rules.takes_every_kind:
        raise ConfigError(f"{method.name}: include: rules={rules.name!r} prunes no embeddings")
    names = list(embeddings(network))
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(
                f"{method.name}: include: there is no embedding {pattern!r} that is not a layer already"
                f"{nearest(pattern, names)}"
            )
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def in_one_piece(network: nn.Module) -> nn.Module:
    """Return `network` with its parameters contiguous in memory, changed in place: views of them need that."""
    for parameter in network.parameters():
        if not parameter.is_contiguous():
            parameter.data = parameter.data.contiguous()
    return network


def first_outputs(method: MethodRow, network: nn.Module, example: Inputs) -> dict[str, int]:
    """Return the result of `count_outputs`; raise ConfigError if the network fails on the example."""
    try:
        return count_outputs(network, example)
    except (*DEVICE_ERRORS, LuigiPruneError):
        raise
    except Exception as error:
        sizes = ", ".join(f"shape {tuple(tensor.shape)}, {tensor.dtype}" for tensor in tensors_of(example))
        raise ConfigError(f"{method.name}: the network fails on inputs of {sizes}: {reason_of(error)}") from error


def first_run(method: MethodRow, network: nn.Module, example: Inputs, rules: Rules) -> tuple[dict[str, int], FindEnds]:
    """Return the result of `first_outputs`, and `rules.find_ends`, from the same run if it runs the network, too."""
    if rules.find_ends is not ends_by_graph or method.granularity in ("none", "rank"):
        return first_outputs(method, network, example), rules.find_ends
    needs = [parameter.requires_grad for parameter in network.parameters()]
    try:
        with counting_outputs(network, sample_count(example)) as outputs:
            ends = ends_by_graph(network, [], example)
    except (*DEVICE_ERRORS, LuigiPruneError):
        raise
    except Exception:  # with the message of a plain run, if that fails as well
        return first_outputs(method, network, example), rules.find_ends
    finally:
        for parameter, needed in zip(network.parameters(), needs, strict=True):
            parameter.requires_grad_(needed)

    def found(network: nn.Module, modules: object, example: Inputs) -> tuple[set[str], set[str]]:
        network.requires_grad_(False)
        return ends

    return outputs, found


def checked_loss(method: MethodRow, loss: Loss | None) -> Loss | None:
    """Return `loss` as a function that raises ConfigError unless its result is one number."""
    if loss is None:
        return None

    def loss_value(outputs: Any, targets: Any) -> Tensor:
        value = loss(outputs, targets)
        if not isinstance(value, Tensor):
            raise ConfigError(f"{method.name}: the loss returned a {type(value).__name__}, expected a tensor")
        if value.numel() != 1:
            raise ConfigError(
                f"{method.name}: the loss returned a tensor of shape {tuple(value.shape)}, expected one number: "
                "its mean over the batch, for instance"
            )
        return value.reshape(())

    return loss_value


def with_noise(example: Inputs, seed: int) -> Inputs:
    """Return the example followed by noise with its mean and spread, so that checks do not rely on the data.

    Tokens and masks are repeated instead.
    """
    free, samples = free_inputs(example), sample_count(example)
    if not any(free):
        return example
    replaceable, count = iter(free), max(2, min(samples, 4))
    generator = torch.Generator().manual_seed(derive_seed(seed, "noise"))

    def extended(value: Tensor) -> Tensor:
        if not next(replaceable):
            return torch.cat([value, value[torch.arange(count, device=value.device) % samples]])
        noise = torch.randn(count, *value.shape[1:], generator=generator).to(value)
        return torch.cat([value, value.mean() + value.float().std(correction=0).to(value) * noise])

    return map_tensors(extended, example)
