"""The compressible layers of a network and their position in it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from luigi_prune.compute.network_inputs import Inputs, call, device_of, map_tensors, tensors_in
from luigi_prune.compute.pruning.problem.free_inputs import free_inputs
from luigi_prune.errors import ConfigError, nearest

# Modules whose output channels are weighted sums of input channels: those that FLOPs count, and those that propagation
# reads.
COUNTED = (nn.Conv2d, nn.Linear)
READERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


@dataclass(frozen=True, eq=False)
class Layer:
    """A compressible layer: its name, module, parameter name of its weight and its position in the network.

    `reads_input`: no other compressible layer lies between the network's input and it, so its channels are parts of the
    input. `writes_output`: no other one lies between it and the network's output, so its filters are never pruned.
    """

    name: str
    module: nn.Module
    weight_name: str
    reads_input: bool
    writes_output: bool

    @property
    def weight(self) -> Tensor:
        weight = self.module.weight
        assert isinstance(weight, Tensor)
        return weight


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
    """Return whether methods may prune `module`: a `Linear` or ungrouped `Conv2d` that the network does not exclude."""
    plain = isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)
    if not plain or not isinstance(module._parameters.get("weight"), nn.Parameter):
        return False  # zeros cannot be kept in a parametrised or lazy weight
    allowed = getattr(network, "is_compressible", None)
    return bool(allowed(module)) if callable(allowed) else True


def compressible_modules(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return (name, module) of the compressible layers in the order of `modules()`; a tied weight is listed once."""
    seen: set[int] = set()
    modules = []
    for name, module in network.named_modules():
        if is_compressible(network, module) and id(module.weight) not in seen:
            seen.add(id(module.weight))
            modules.append((name, module))
    return modules


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


def protected_parameters(network: nn.Module, ignored: Collection[str]) -> frozenset[str]:
    """Return the names of the parameters of the modules named in `ignored`, tied ones under all their names."""
    protected = {id(parameter) for name in ignored for parameter in network.get_submodule(name).parameters()}
    return frozenset(name for name, parameter in network.named_parameters() if id(parameter) in protected)


FindEnds = Callable[[nn.Module, list[tuple[str, nn.Module]], Inputs], tuple[set[str], set[str]]]


def find_layers(
    network: nn.Module, example_input: Inputs, find_ends: FindEnds, ignored: Collection[str] = frozenset()
) -> list[Layer]:
    """Return the compressible layers of `network`, with `requires_grad` of all its parameters switched off.

    `find_ends(network, compressible modules, example input)` returns the names of the first and of the last layers.

    Layers named in `ignored` are left out, but count when the first and last layers are determined.
    """
    modules = compressible_modules(network)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    first, last = find_ends(network, modules, example_input)
    return [
        Layer(name, module, names[id(module.weight)], reads_input=name in first, writes_output=name in last)
        for name, module in modules
        if name not in ignored
    ]


def ends_by_graph(
    network: nn.Module, modules: list[tuple[str, nn.Module]], example_input: Inputs
) -> tuple[set[str], set[str]]:
    """Return the names of the layers at the network's input and at its output, as gradients flow through it."""
    return _at_input(network, modules, example_input), _at_output(network, modules, example_input)


def _at_input(network: nn.Module, modules: list[tuple[str, nn.Module]], example_input: Inputs) -> set[str]:
    """Return the names of layers that the network's input reaches through no other compressible layer."""
    reached: set[str] = set()

    def note(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            if inputs[0].requires_grad:
                reached.add(name)

        return hook

    network.requires_grad_(False)
    free = iter(free_inputs(example_input))
    source = map_tensors(lambda value: value.detach().clone().requires_grad_(next(free)), example_input)
    embeddings = [module for module in network.modules() if isinstance(module, nn.Embedding)]
    with ExitStack() as stack, torch.enable_grad(), evaluating(network):
        for embedding in embeddings:  # tokens have no gradient: their embeddings count as the input
            embedding.weight.requires_grad_(True)
        for name, module in modules:
            stack.callback(module.register_forward_pre_hook(note(name)).remove)
            stack.callback(module.register_forward_hook(lambda *call: call[2].detach().clone()).remove)
        # A copy, because a network may change its input in place, which autograd forbids for a leaf.
        call(network, map_tensors(lambda value: value.clone() if value.requires_grad else value, source))
    network.requires_grad_(False)
    return reached


def _at_output(network: nn.Module, modules: list[tuple[str, nn.Module]], example_input: Inputs) -> set[str]:
    """Return the names of layers whose output reaches the network's output through no other compressible layer."""
    markers = {name: torch.ones((), device=device_of(example_input), requires_grad=True) for name, _ in modules}

    def mark(name: str) -> Callable[..., Tensor]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
            return output * markers[name].to(output)

        return hook

    network.requires_grad_(False)
    with ExitStack() as stack, torch.enable_grad(), evaluating(network):
        for name, module in modules:
            cut = module.register_forward_pre_hook(lambda _, inputs: (inputs[0].detach().clone(), *inputs[1:]))
            stack.callback(cut.remove)
            stack.callback(module.register_forward_hook(mark(name)).remove)
        total = sum(tensor.float().sum() for tensor in tensors_in(call(network, example_input)) if tensor.requires_grad)
    if not isinstance(total, Tensor):
        return {modules[-1][0]} if modules else set()  # an output without gradients: only the order is known
    gradients = torch.autograd.grad(total, list(markers.values()), allow_unused=True)
    return {name for name, gradient in zip(markers, gradients, strict=True) if gradient is not None}
