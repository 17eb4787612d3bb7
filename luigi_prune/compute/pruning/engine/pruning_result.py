"""The result of a pruning step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from luigi_prune.compute.duplicates import duplicate, with_weights_of
from luigi_prune.compute.masked import apply_masks
from luigi_prune.compute.network_inputs import Inputs
from luigi_prune.compute.pruning.engine.network_checks import ignores_input, missed_ratio
from luigi_prune.compute.pruning.low_rank.decomposed import Decomposed, structure_of
from luigi_prune.compute.pruning.problem.masks import Masks, removals
from luigi_prune.compute.pruning.sizes_and_flops import LayerBudget, count_size, layer_budgets

if TYPE_CHECKING:
    from luigi_prune.registry import MethodRow


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
    """Makes the result of a step: a copy of the input with the pruned weights, so that all its other state is kept."""

    network: nn.Module
    method: MethodRow
    keep_ratio: float
    example: Inputs
    ignored: frozenset[str]
    was_pruned: bool
    original_size: int
    original_flops: int
    start_size: int

    def __call__(
        self, pruned: nn.Module, masks: Masks, flops: int, warnings: list[str], outputs: Sequence[Tensor] = ()
    ) -> PruningResult:
        """Return the record of the network with the weights of `pruned`, under `masks`.

        `outputs`: some of `pruned` for samples of the example, a row per sample, if they are computed already.
        """
        line = missed_ratio(
            self.method, self.keep_ratio, pruned, masks, self.original_size, self.ignored, self.start_size
        )
        if ignores_input(pruned, self.example, outputs) and (
            self.was_pruned or not ignores_input(self._copy(), self.example)
        ):
            line = f"{line}; " if line else f"{self.method.name}: "
            line += "at this size the output does not depend on the input"
        network = with_weights_of(pruned, self._copy(), Decomposed)
        apply_masks(network, masks)
        return PruningResult(
            network=network,
            masks=removals(masks),
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

    def control(self, masks: Masks) -> PruningResult:
        """Return the unchanged network, with sizes as if it had been pruned: the control methods."""
        return PruningResult(
            network=self._copy(),
            masks=removals(masks),
            structure=[],
            layers=layer_budgets(self.network, masks),
            size=round(self.keep_ratio * self.original_size),
            flops=round(self.keep_ratio * self.original_flops),
            original_size=self.original_size,
            original_flops=self.original_flops,
        )
