"""Checks of the inputs and results of scores from outside, the same for all methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor, nn

from luigi_prune.compute.pruning.problem.records import Batches, Problem, Scores
from luigi_prune.errors import ConfigError

if TYPE_CHECKING:
    from luigi_prune.registry import MethodRow


class _NoBatches(Batches):
    """Batches that raise when read, for methods that do not declare `needs_data`."""

    def __init__(self, method: str) -> None:
        super().__init__()
        self._method = method

    def _refuse(self, *_: object) -> NoReturn:
        raise ConfigError(f"{self._method}: reads problem.batches, but its row does not declare needs_data=True")

    __getitem__ = __len__ = __contains__ = __reversed__ = _refuse

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        self._refuse()


def lent(problem: Problem, method: MethodRow) -> Problem:
    """Return the problem for a method's score and allocation: without batches unless the row declares `needs_data`."""
    return problem if method.needs_data else replace(problem, batches=_NoBatches(method.name))


def foreign_scores(problem: Problem, method: MethodRow, score: Callable[[Problem], Any]) -> Scores:
    """Return the result of a score from outside.

    Raises ConfigError, naming the method and the layer, for a wrong number of tensors, a wrong type or shape, numbers
    that are not finite, and a changed network.
    """
    before = _fingerprint(problem.network)
    scores = score(problem)
    after = _fingerprint(problem.network)
    for name in sorted(before.keys() | after.keys()):
        one, other = before.get(name), after.get(name)
        if not (torch.equal(one, other) if isinstance(one, Tensor) and isinstance(other, Tensor) else one == other):
            raise ConfigError(f"{method.name}: its score changed the network ({name}); work on a copy")
    if not isinstance(scores, (list, tuple)) or len(scores) != len(problem.layers):
        got = f"{len(scores)} entries" if isinstance(scores, (list, tuple)) else f"a {type(scores).__name__}"
        raise ConfigError(
            f"{method.name}: its score returned {got}, expected {len(problem.layers)} tensors, one per layer"
        )
    for layer, numbers in zip(problem.layers, scores, strict=True):
        shape = _shape(method.granularity, layer.weight)
        where = f"{method.name}: the score of layer {layer.name!r}"
        if not isinstance(numbers, Tensor):
            raise ConfigError(f"{where} is a {type(numbers).__name__}, expected a tensor of shape {shape}")
        if tuple(numbers.shape) != shape:
            raise ConfigError(
                f"{where} has shape {tuple(numbers.shape)}, expected {shape}: a number per {method.granularity}"
            )
        if not numbers.is_floating_point():
            raise ConfigError(f"{where} is of type {numbers.dtype}, expected floats")
        if not bool(torch.isfinite(numbers).all()):
            raise ConfigError(f"{where} holds NaN or infinite numbers")
    return [numbers.detach() for numbers in scores]


def _shape(granularity: str, weight: Tensor) -> tuple[int, ...]:
    """Return the shape of a layer's scores: a number per weight, filter (axis 0) or channel (axis 1)."""
    shapes = {"filter": (weight.shape[0],), "channel": (weight.shape[1],)}
    return shapes.get(granularity, tuple(weight.shape))


def _fingerprint(network: nn.Module) -> dict[str, Any]:
    """Return the state of a network that a score could change: values, modes, hooks."""
    values: dict[str, Any] = {name: value.detach().clone() for name, value in network.state_dict().items()}
    for name, module in network.named_modules():
        values[f"the mode of {name or 'the network'}"] = module.training
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
        values[f"the hooks of {name or 'the network'}"] = [list(registered) for registered in hooks]
    return values
