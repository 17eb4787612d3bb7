"""Pruning a network: `prune` is the algorithm, `protocol` holds the records that its parts exchange."""

from luigi_prune.compute.pruning.counting import (
    LayerBudget,
    calibration_size,
    count_flops,
    count_size,
    layer_budgets,
)
from luigi_prune.compute.pruning.lowrank import restore
from luigi_prune.compute.pruning.protocol import Rules
from luigi_prune.compute.pruning.prune import PruningResult, prune
from luigi_prune.compute.pruning.rules import find_rules

__all__ = [
    "LayerBudget",
    "PruningResult",
    "Rules",
    "calibration_size",
    "count_flops",
    "count_size",
    "find_rules",
    "layer_budgets",
    "prune",
    "restore",
]
