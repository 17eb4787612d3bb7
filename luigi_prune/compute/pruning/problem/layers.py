"""The compressible layers of a network and their position in it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from luigi_prune.compute.network_inputs import Inputs
from luigi_prune.compute.pruning.problem.equivalents import Equivalent, PartLinear, RecurrentLinear
from luigi_prune.compute.pruning.problem.relaid_weights import UpConvolution
from luigi_prune.errors import ConfigError, nearest

# Modules whose output channels are weighted sums of input channels, and those with a weight matrix, which FLOPs count.
READERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, UpConvolution, nn.Linear)
COUNTED = (*READERS, nn.Bilinear)
EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
NAMED = 5  # layers that a warning names


@dataclass(frozen=True, eq=False)
class Layer:
    """A compressible layer: its name, module, parameter name of its weight and its position in the network.

    `reads_input`: no other compressible layer lies between the network's input and it, so its channels are parts of the
    input. `writes_output`: no other one lies between it and the network's output, so its filters are never pruned.
    `heads`: if not 1, `weight` is split by head along `head_axis`: (heads, channels, features of a head), so that a
    filter is a head, or (filters, heads, features of a head), so that a channel is one. `groups`: if not 1, `weight` is
    that of a grouped convolution as (filters of a group, channels of all groups, ...), so that a channel is one unit.
    """

    name: str
    module: nn.Module
    weight_name: str
    reads_input: bool
    writes_output: bool
    heads: int = 1
    head_axis: int = 0
    groups: int = 1

    @property
    def weight(self) -> Tensor:
        weight = self.module.weight
        assert isinstance(weight, Tensor)
        return self.by_unit(weight)

    def by_unit(self, value: Tensor) -> Tensor:
        """Return a weight of the module, or its mask, with one filter or channel per unit: see `heads`, `groups`."""
        if self.groups > 1:
            return value.unflatten(0, (self.groups, -1)).transpose(0, 1).flatten(1, 2)
        if self.heads == 1:
            return value
        split = value.unflatten(self.head_axis, (self.heads, -1))
        return split if self.head_axis else split.transpose(1, 2)

    def by_entry(self, value: Tensor) -> Tensor:
        """Return a result of `by_unit` in the shape of the module's weight."""
        if self.groups > 1:
            return value.unflatten(1, (self.groups, -1)).transpose(0, 1).flatten(0, 1)
        if self.heads == 1:
            return value
        return value.flatten(1) if self.head_axis else value.transpose(1, 2).flatten(0, 1)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Keep `network` in evaluation mode, and restore the mode of every module afterwards.

    Attention's fused path is off meanwhile: it bypasses the modules, and so their hooks.
    """
    modes = [(module, module.training) for module in network.modules()]
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    network.eval()
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for module, training in modes:
            module.training = training


def is_compressible(network: nn.Module, module: nn.Module) -> bool:
    """Return whether methods may prune `module`: it has a weight matrix, and the network does not exclude it."""
    if not isinstance(module, COUNTED) or not isinstance(module._parameters.get("weight"), nn.Parameter):
        return False  # zeros cannot be kept in a parametrised or lazy weight
    return isinstance(module, PartLinear | Equivalent) or allows(network, module)


def allows(network: nn.Module, module: nn.Module) -> bool:
    """Return whether the network, by a method `is_compressible(module)` of its own, lets `module` be pruned."""
    allowed = getattr(network, "is_compressible", None)
    return bool(allowed(module)) if callable(allowed) else True


def takes(granularity: str, module: nn.Module) -> bool:
    """Return whether methods that prune these units are defined for `module`, one of `COUNTED`.

    Filters and channels: not the gates of recurrent modules, nor bilinear layers, nor those of depthwise convolutions,
    which go with the filters before and the channels behind them. Filters: not those of attention's queries and keys,
    which go with a head's values. Ranks: of linear layers and of ungrouped convolutions with one or two axes.
    """
    if granularity == "weight":
        return True
    if isinstance(module, RecurrentLinear | nn.Bilinear):
        return False
    if (groups := groups_of(module)) > 1:
        units = {"filter": module.out_channels, "channel": module.in_channels}
        return granularity in units and bool(units[granularity] != groups)  # with one per group the layer is depthwise
    if granularity == "filter" and isinstance(module, PartLinear) and module.follows_heads:
        return False
    return granularity != "rank" or isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d)


def of_reference(module: nn.Module) -> bool:
    """Return whether the reference implementation prunes `module`: a `Linear` or an ungrouped `Conv2d`."""
    if isinstance(module, nn.Linear):
        return not isinstance(module, PartLinear) or module.is_linear
    return isinstance(module, nn.Conv2d) and module.groups == 1


def compressible_modules(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return (name, module) of the compressible layers in the order of `modules()`; a tied weight is listed once."""
    seen: set[int] = set()
    modules = []
    for name, module in network.named_modules():
        if is_compressible(network, module) and id(module.weight) not in seen:
            seen.add(id(module.weight))
            modules.append((name, module))
    return modules


def uncalled_layers(network: nn.Module, outputs: Mapping[str, int]) -> dict[str, nn.Module]:
    """Return the compressible layers that no forward pass calls, according to `outputs` of `count_outputs`."""
    modules = dict(network.named_modules(remove_duplicate=False))
    called = {id(modules[name].weight) for name, count in outputs.items() if count}
    return {name: module for name, module in compressible_modules(network) if id(module.weight) not in called}


def left_alone(method: str, layers: Mapping[str, nn.Module], why: str) -> str:
    """Return the warning that `method` does not prune these layers, that `why` (a relative clause) describes."""
    some = [f"{name!r} ({type(module).__name__})" for name, module in layers.items()]
    more = f" and {len(some) - NAMED} more" if len(some) > NAMED else ""
    return f"{method}: not pruned are layers that {why}: {', '.join(some[:NAMED])}{more}"


def ignored_layers(names: Sequence[str], patterns: Iterable[str]) -> frozenset[str]:
    """Return the names, out of a network's compressible layers `names`, that no method may change.

    `patterns`: names, or shell patterns of names (`layer1.*`). Raises ConfigError for one that matches no layer.
    """
    ignored: set[str] = set()
    for pattern in patterns:
        matching = [name for name in names if fnmatchcase(name, pattern)]
        if not matching:
            raise ConfigError(f"ignore: there is no compressible layer {pattern!r}{nearest(pattern, names)}")
        ignored.update(matching)
    return frozenset(ignored)


def embeddings(network: nn.Module) -> dict[str, nn.Module]:
    """Return the embeddings of `network` by name that are no layers already, by a tied weight, each weight once."""
    seen = {id(module.weight) for _, module in compressible_modules(network)}
    found: dict[str, nn.Module] = {}
    for name, module in network.named_modules():
        if isinstance(module, EMBEDDINGS) and isinstance(weight := module._parameters.get("weight"), nn.Parameter):
            if id(weight) not in seen and allows(network, module):
                found[name] = module
            seen.add(id(weight))
    return found


def protected_parameters(network: nn.Module, ignored: Collection[str]) -> frozenset[str]:
    """Return the names of the parameters of the modules named in `ignored`, tied ones under all their names."""
    protected = {id(parameter) for name in ignored for parameter in network.get_submodule(name).parameters()}
    return frozenset(name for name, parameter in network.named_parameters() if id(parameter) in protected)


FindEnds = Callable[[nn.Module, list[tuple[str, nn.Module]], Inputs], tuple[set[str], set[str]]]


def find_layers(
    network: nn.Module,
    example_input: Inputs,
    find_ends: FindEnds,
    ignored: Collection[str] = frozenset(),
    prunable: Callable[[nn.Module], bool] = lambda module: True,
    granularity: str = "weight",
    included: Collection[str] = (),
) -> list[Layer]:
    """Return the compressible layers of `network`, with `requires_grad` of all its parameters switched off.

    `find_ends(network, compressible modules, example input)` returns the names of the first and of the last layers.

    Layers named in `ignored`, and those that are not `prunable`, are left out, but count when the first and last layers
    are determined. `granularity`: filters and channels of attention's projections are heads if the layer has them.
    `included`: names of embeddings that are pruned, too; they come last.
    """
    modules = compressible_modules(network)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    first, last = find_ends(network, modules, example_input)
    layers = [
        Layer(
            name,
            module,
            names[id(module.weight)],
            name in first,
            name in last,
            *_heads(module, granularity),
            groups=groups_of(module) if granularity == "channel" else 1,
        )
        for name, module in modules
        if name not in ignored and prunable(module)
    ]
    tables = ((name, network.get_submodule(name)) for name in included)
    return layers + [Layer(name, module, names[id(module.weight)], False, False) for name, module in tables]


def groups_of(module: nn.Module) -> int:
    """Return the number of groups of a convolution, 1 for other modules."""
    return int(getattr(module, "groups", 1))


def _heads(module: nn.Module, granularity: str) -> tuple[int, int]:
    """Return the number of heads, and their axis, if they are the units of this granularity; else 1."""
    if isinstance(module, PartLinear) and granularity == ("filter", "channel")[module.head_axis]:
        return module.heads, module.head_axis
    return 1, 0
