"""Trying a method at one level after another, on one copy of the network."""

from __future__ import annotations

import copy
import logging

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from luigi_prune.compute.pruning.counting import count_size
from luigi_prune.compute.pruning.granularity import GRANULARITIES, cut
from luigi_prune.compute.pruning.layers import Layer, evaluating, tensors_in
from luigi_prune.compute.pruning.masks import Masks
from luigi_prune.compute.pruning.probe import StructureProbe
from luigi_prune.compute.pruning.propagation import propagate, silence
from luigi_prune.compute.pruning.protocol import Draws, Levels, Mixed, Problem, Scores, Selection
from luigi_prune.compute.pruning.reference_rules import propagate_gradients
from luigi_prune.compute.pruning.taps import Structure
from luigi_prune.compute.zeros import equal, read

CHECKED_SAMPLES = 16
log = logging.getLogger("luigi_prune")


class Trial:
    """A copy of the problem's network that is cut and propagated anew at every level asked for.

    `probe` None: no propagation by structure (the reference's rules, or a network that defies the probe).
    """

    def __init__(
        self,
        problem: Problem,
        scores: Scores,
        levels: Levels,
        selection: Selection,
        granularity: str,
        probe: StructureProbe | None,
    ) -> None:
        self.problem, self.levels, self.probe = problem, levels, probe
        self.network = copy.deepcopy(problem.network)
        self.masks: Masks = {}
        self.found: Structure | None = None
        self._scores, self._selection, self._granularity = scores, selection, granularity
        self._modules = dict(self.network.named_modules())
        self._changing = changing_tensors(self.network)
        self._when_cut: list[Tensor] = []  # what they held before propagation
        self._living = [self._channels(problem.masks, layer) for layer in problem.layers]
        self._draws: dict[str, Draws] = {}
        self._level: int | None = None

    def size_at(self, level: int) -> int:
        """Return the size of the network cut at `level` and propagated; it stays so in `network` and `masks`.

        Return 0 for a network that has become a constant: no weight of a compressible layer is left in it.
        """
        if level != self._level:
            self._reset()
            self._cut(level)
            self._propagate()
            self._level = level
        if not any(read(self.masks[layer.weight_name].any() for layer in self.problem.layers)):
            return 0
        return count_size(self.network)

    def _reset(self) -> None:
        write_tensors(self._changing, changing_tensors(self.problem.network))
        self.masks = dict(self.problem.masks)

    def _cut(self, level: int) -> None:
        unit = GRANULARITIES[self._granularity]
        with_bias = self.problem.rules != "reference"
        choices = self.levels.choose(level)
        for layer, score, choice in zip(self.problem.layers, self._scores, choices, strict=True):
            if choice is None or (with_bias and unit.fixed(layer)):  # the reference leaves that to its allocations
                continue
            assert isinstance(choice, (Tensor, Mixed))
            alive = unit.alive(self.problem.kept(layer))
            rows = (choice.top if isinstance(choice, Mixed) else choice).numel()
            draws = self._draws.setdefault(layer.name, Draws(self.problem.generator("draws", layer.name), rows))
            selected = self._selection(score, alive, choice, draws)
            cut(self._granularity, layer, self._modules[layer.name], selected, self.masks, with_bias=with_bias)

    def _propagate(self) -> None:
        problem, structured = self.problem, GRANULARITIES[self._granularity].structured
        self.found = None
        if problem.rules == "reference":
            assert problem.loss is not None
            propagate_gradients(
                self.network, self.masks, problem.layers, problem.batches, problem.loss, structured=structured
            )
        elif self.probe is not None and not self._all_channels_live():
            self._when_cut = [tensor.clone() for tensor in self._changing]
            self.found = propagate(self.network, self.masks, self.probe, problem.example_input, structured=structured)

    def _all_channels_live(self) -> bool:
        """Return whether no filter and no channel has lost its last weight: then nothing has become useless.

        The problem's network is propagated itself, so that each of its living channels has a living source and reader.
        """
        return all(
            equal(
                pair
                for layer, living in zip(self.problem.layers, self._living, strict=True)
                for pair in zip(living, self._channels(self.masks, layer), strict=True)
            )
        )

    @staticmethod
    def _channels(masks: Masks, layer: Layer) -> list[Tensor]:
        """Return which filters and which channels of a layer live."""
        matrix = masks[layer.weight_name].flatten(2).any(2) if layer.weight.dim() > 2 else masks[layer.weight_name]
        return [matrix.any(1), matrix.any(0)]

    def is_sound(self, level: int) -> bool:
        """Return whether propagation at `level` left the outputs as the cut alone made them."""
        self.size_at(level)
        if self.found is None:
            return True
        inputs, propagated = check_inputs(self.problem), [tensor.clone() for tensor in self._changing]
        after = outputs_of(self.network, inputs)
        write_tensors(self._changing, self._when_cut)
        silence(self.network, dict(self.masks), self.found)
        before = outputs_of(self.network, inputs)
        write_tensors(self._changing, propagated)
        return same_outputs(before, after)


def changing_tensors(network: nn.Module) -> list[Tensor]:
    """Return what cuts and propagation change in a network: its parameters, and running means of normalisations."""
    means = [module.running_mean for module in network.modules() if isinstance(module, _NormBase)]
    return [*(value.detach() for value in network.parameters()), *(mean for mean in means if isinstance(mean, Tensor))]


def write_tensors(targets: list[Tensor], values: list[Tensor]) -> None:
    """Copy values into tensors, in place."""
    for target, value in zip(targets, values, strict=True):
        target.copy_(value)


def check_inputs(problem: Problem) -> list[Tensor]:
    """Return the inputs on which propagation is checked: the example and the first calibration batch."""
    inputs = [problem.example_input, *(batch[:CHECKED_SAMPLES] for batch, _ in problem.batches[:1])]
    alike = len({(value.shape[1:], value.dtype) for value in inputs}) == 1
    return [torch.cat(inputs)] if alike else inputs


@torch.no_grad()
def outputs_of(network: nn.Module, inputs: list[Tensor]) -> list[Tensor]:
    """Return all that a network computes of the inputs in evaluation mode."""
    with evaluating(network):
        return [tensor.clone() for value in inputs for tensor in tensors_in(network(value))]


def same_outputs(one: list[Tensor], other: list[Tensor]) -> bool:
    """Return whether two networks' outputs are the same but for float rounding."""
    for left, right in zip(one, other, strict=True):
        slack = max(1e-4, 30 * torch.finfo(left.dtype).eps)
        scale = float(left.abs().nan_to_num(0, 0, 0).amax()) if left.numel() else 0.0
        if not torch.allclose(left, right, rtol=slack, atol=slack * scale, equal_nan=True):
            return False
    return True
