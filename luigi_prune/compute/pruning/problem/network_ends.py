"""The layers at the two ends of a network, from one run of it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from luigi_prune.compute.network_inputs import Inputs, call, device_of, map_tensors, tensors_in
from luigi_prune.compute.pruning.problem.call_hooks import after_calls, before_calls
from luigi_prune.compute.pruning.problem.free_inputs import free_inputs
from luigi_prune.compute.pruning.problem.layers import COUNTED, EMBEDDINGS, evaluating


def ends_by_graph(
    network: nn.Module, modules: list[tuple[str, nn.Module]], example_input: Inputs
) -> tuple[set[str], set[str]]:
    """Return the names of the layers at the network's input and at its output, as gradients flow through it.

    The former are those that the input reaches through no other layer, the latter those whose output reaches the
    network's output through no other one. Layers that are not compressible, for instance parametrised ones, separate
    others from the ends all the same. `requires_grad` of all parameters is switched off.

    A layer gets its input without history, and its output is multiplied by a marker of its own, a parameter equal to 1.
    So every graph that autograd records starts at the network's input or at markers, and ends at the next layers.
    """
    layers: list[tuple[str, nn.Module]] = [pair for pair in network.named_modules() if isinstance(pair[1], COUNTED)]
    device = device_of(example_input)
    markers = {name: torch.ones((), device=device, requires_grad=True) for name, _ in layers}
    of_markers = {id(marker) for marker in markers.values()}
    from_input = _Leads(lambda leaf: id(leaf) not in of_markers)
    reached: set[str] = set()

    def before(name: str) -> Callable[..., Any]:
        def hook(_: nn.Module, inputs: tuple[Any, ...]) -> Any:
            if from_input.reach(inputs[0]):
                reached.add(name)
            return inputs[0].detach().clone(), *inputs[1:]

        return hook

    def after(name: str) -> Callable[..., Tensor]:
        return lambda module, inputs, output: output * markers[name].to(output)

    network.requires_grad_(False)
    free = iter(free_inputs(example_input))
    source = map_tensors(lambda value: value.detach().clone().requires_grad_(next(free)), example_input)
    with ExitStack() as stack, torch.enable_grad(), evaluating(network):
        stack.callback(network.requires_grad_, False)
        for embedding in (module for module in network.modules() if isinstance(module, EMBEDDINGS)):
            embedding.weight.requires_grad_(True)  # tokens have no gradient: their embeddings count as the input
        for name, module in layers:
            stack.callback(before_calls(module, before(name)).remove)
            stack.callback(after_calls(module, after(name)).remove)
        # A copy, because a network may change its input in place, which autograd forbids for a leaf.
        outputs = call(network, map_tensors(torch.clone, source))
        outputs = [tensor for tensor in tensors_in(outputs) if tensor.requires_grad]
        return reached, _at_output(markers, of_markers, outputs)


def _at_output(markers: dict[str, Tensor], of_markers: Collection[int], outputs: list[Tensor]) -> set[str]:
    """Return the names of markers that `outputs` have a gradient for."""
    from_marker = _Leads(lambda leaf: id(leaf) in of_markers)
    outputs = [tensor for tensor in outputs if from_marker.reach(tensor)]
    if not outputs:
        return set(list(markers)[-1:])  # an output without gradients: only the order is known
    totals = [tensor.float().sum() for tensor in outputs]
    gradients = torch.autograd.grad(totals, list(markers.values()), allow_unused=True)
    return {name for name, gradient in zip(markers, gradients, strict=True) if gradient is not None}


class _Leads:
    """Whether autograd's graph leads from a tensor to certain leaves; each node is visited once."""

    def __init__(self, is_wanted: Callable[[Tensor], bool]) -> None:
        self._is_wanted = is_wanted
        self._known: dict[Any, bool] = {}  # by node; the nodes stay alive, so that no other one gets their identity

    def reach(self, value: Any) -> bool:
        """Return whether the history of `value` begins, among others, at a wanted leaf."""
        if not (isinstance(value, Tensor) and value.requires_grad):
            return False
        if value.grad_fn is None:
            return self._is_wanted(value)
        pending = [value.grad_fn]
        while pending:
            node = pending[-1]
            sources = [source for source, _ in node.next_functions if source is not None]
            if new := [source for source in sources if source not in self._known]:
                pending += new
                continue
            leaf = getattr(node, "variable", None)
            wanted = isinstance(leaf, Tensor) and self._is_wanted(leaf)
            self._known[node] = wanted or any(self._known[source] for source in sources)
            pending.pop()
        return self._known[value.grad_fn]
