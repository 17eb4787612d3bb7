"""The result of a pruning step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from luigi_prune.compute.duplicates import duplicate, with_weights_of
from luigi_prune.compute.masked import apply_masks
from luigi_prune.compute.network_inputs import Inputs
from luigi_prune.compute.pruning.engine.constant_outputs import CLEARLY, ignores_input
from luigi_prune.compute.pruning.engine.fresh_weights import Initialise
from luigi_prune.compute.pruning.engine.network_checks import missed_ratio
from luigi_prune.compute.pruning.low_rank.decomposed import Decomposed, structure_of
from luigi_prune.compute.pruning.problem.masks import Masks, removals
from luigi_prune.compute.pruning.sizes_and_flops import LayerBudget, count_size, layer_budgets
from luigi_prune.compute.state import load_state

if TYPE_CHECKING:
    from luigi_prune.registry import MethodRow


CONSTANT = "at this size the output does not depend on the input"
REDRAWN = "with the weights drawn anew the output is nearly the same for all inputs"
UNTRAINED = f"{REDRAWN}, without pruning as well: the network is untrained"


@dataclass(kw_only=True)
class PruningResult:
    """A pruned network and its pruned entries. `masks`: True = kept; only parameters with pruned entries.

    `structure`: the replaced layers, from which `restore` rebuilds them on a fresh network; empty if there are none.
    `layers`: per compressible layer. `size`: parameters that no mask removes. `flops`: multiply-adds of one sample.
    `warnings`: lines for the caller's user.
    """

    network: nn.Module = field(repr=False)
    masks: Masks = field(repr=False)
    structure: list[dict[str, Any]] = field(repr=False)
    layers: Sequence[LayerBudget] = field(repr=False)
    size: int
    flops: int | None
    original_size: int
    original_flops: int | None
    warnings: list[str] = field(default_factory=list, repr=False)


@dataclass(frozen=True)
class Recorder:
    """Makes the result of a step: a copy of the input with the pruned weights, so that all its other state is kept.

    `initialise`: draws its weights anew, if the method does.
    """

    network: nn.Module
    method: MethodRow
    keep_ratio: float
    example: Inputs
    ignored: frozenset[str]
    was_pruned: bool
    original_size: int
    original_flops: int
    start_size: int
    initialise: Initialise | None = None

    def __call__(
        self,
        pruned: nn.Module,
        masks: Masks,
        flops: int,
        warnings: list[str],
        outputs: Sequence[Tensor] = (),
        *,
        is_own: bool = False,
    ) -> PruningResult:
        """Return the record of the network with the weights of `pruned`, under `masks`.

        `outputs`: some of `pruned` for samples of the example, a row per sample, if they are computed already.
        `is_own`: `pruned` has been made for this result, which may take its tensors.
        """
        line = missed_ratio(
            self.method, self.keep_ratio, pruned, masks, self.original_size, self.ignored, self.start_size
        )
        take = is_own and self.initialise is None  # else the check below reads it once more
        network, masks = with_weights_of(pruned, self.network, Decomposed, take=take), removals(masks)
        network = self._drawn(network, masks)
        if constant := self._constant(pruned, network, outputs):
            line = f"{line}; {constant}" if line else f"{self.method.name}: {constant}"
        return PruningResult(
            network=network,
            masks=masks,
            structure=structure_of(network),
            layers=layer_budgets(network, masks),
            size=count_size(network, masks),
            flops=flops,
            original_size=self.original_size,
            original_flops=self.original_flops,
            warnings=[*warnings, line] if line else warnings,
        )

    def _copy(self) -> nn.Module:
        return duplicate(self.network)

    def _drawn(self, network: nn.Module, masks: Masks) -> nn.Module:
        """Return `network` under `masks`, changed in place, with the weights that the method leaves or draws."""
        if self.initialise is not None:
            load_state(network, self.initialise(network).state_dict())
        apply_masks(network, masks)
        return network

    def _constant(self, pruned: nn.Module, result: nn.Module, outputs: Sequence[Tensor]) -> str:
        """Return why the result's output is the same for all samples, though it was not before; "" if it is not.

        `pruned`: before its weights were drawn anew. `outputs`: of it.
        """
        # Copies run, because a forward may count or cache: neither the given network nor the result changes.
        if not ignores_input(self._copy() if pruned is self.network else pruned, self.example, outputs):
            pruned_away = False
        elif self.initialise is None and self.was_pruned:
            return CONSTANT
        else:
            pruned_away = not ignores_input(self._copy(), self.example)
        if self.initialise is None:
            return CONSTANT if pruned_away else ""
        result = duplicate(result)
        if not ignores_input(result, self.example, tolerance=CLEARLY):
            return ""
        if pruned_away and ignores_input(result, self.example):
            return CONSTANT
        unpruned = self._drawn(self._copy(), {})
        return UNTRAINED if ignores_input(unpruned, self.example, tolerance=CLEARLY) else REDRAWN

    def control(self, masks: Masks) -> PruningResult:
        """Return the unchanged network, with sizes as if it had been pruned: the control methods."""
        return PruningResult(
            network=self._copy() if self.initialise is None else self._drawn(self._copy(), masks),
            masks=removals(masks),
            structure=[],
            layers=layer_budgets(self.network, masks),
            size=round(self.keep_ratio * self.original_size),
            flops=round(self.keep_ratio * self.original_flops),
            original_size=self.original_size,
            original_flops=self.original_flops,
        )
