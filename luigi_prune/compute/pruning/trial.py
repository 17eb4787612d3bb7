"""Trying a method at one level after another, on one copy of the network."""

from __future__ import annotations

import copy
import logging

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from luigi_prune.compute.pruning.counting import count_size
from luigi_prune.compute.pruning.granularity import GRANULARITIES, cut
from luigi_prune.compute.pruning.layers import evaluating, tensors_in
from luigi_prune.compute.pruning.masks import Masks, apply_masks
from luigi_prune.compute.pruning.probe import StructureProbe
from luigi_prune.compute.pruning.propagation import propagate, silence
from luigi_prune.compute.pruning.protocol import Draws, Levels, Mixed, Problem, Scores, Selection
from luigi_prune.compute.pruning.reference_rules import propagate_gradients
from luigi_prune.compute.pruning.taps import Structure

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
        if not any(bool(self.masks[layer.weight_name].any()) for layer in self.problem.layers):
            return 0
        return count_size(self.network)

    @torch.no_grad()
    def _reset(self) -> None:
        for mine, first in zip(self.network.parameters(), self.problem.network.parameters(), strict=True):
            mine.copy_(first)
        for module, first_module in zip(self.network.modules(), self.problem.network.modules(), strict=True):
            first_mean = getattr(first_module, "running_mean", None)
            if isinstance(module, _NormBase) and isinstance(module.running_mean, Tensor):
                assert isinstance(first_mean, Tensor)
                module.running_mean.copy_(first_mean)
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
            self.found = propagate(self.network, self.masks, self.probe, problem.example_input, structured=structured)
        else:
            apply_masks(self.network, self.masks)

    def _all_channels_live(self) -> bool:
        """Return whether no filter and no channel has lost its last weight: then nothing has become useless.

        The problem's network is propagated itself, so that each of its living channels has a living source and reader.
        """
        rows, columns = GRANULARITIES["filter"].alive, GRANULARITIES["channel"].alive
        for layer in self.problem.layers:
            before, now = self.problem.kept(layer), self.masks[layer.weight_name]
            if not torch.equal(rows(before), rows(now)) or not torch.equal(columns(before), columns(now)):
                return False
        return True

    def is_sound(self, level: int) -> bool:
        """Return whether propagation at `level` left the outputs as the cut alone made them."""
        self._reset()
        self._cut(level)
        before = copy.deepcopy(self.network)
        self._propagate()
        self._level = level
        if self.found is None:
            return True
        silence(before, dict(self.masks), self.found)
        return same_outputs(before, self.network, check_inputs(self.problem))


def check_inputs(problem: Problem) -> list[Tensor]:
    """Return the inputs on which propagation is checked: the example and the first calibration batch."""
    return [problem.example_input, *(batch[:CHECKED_SAMPLES] for batch, _ in problem.batches[:1])]


@torch.no_grad()
def same_outputs(one: nn.Module, other: nn.Module, inputs: list[Tensor]) -> bool:
    """Return whether two networks compute the same outputs in evaluation mode, but for float rounding."""
    with evaluating(one), evaluating(other):
        for value in inputs:
            for left, right in zip(tensors_in(one(value)), tensors_in(other(value)), strict=True):
                slack = max(1e-4, 30 * torch.finfo(left.dtype).eps)
                scale = float(left.abs().nan_to_num(0, 0, 0).amax()) if left.numel() else 0.0
                if not torch.allclose(left, right, rtol=slack, atol=slack * scale, equal_nan=True):
                    return False
    return True
