"""Pruning a network: see `prune` for the frame and `protocol` for what a method is made of."""

from luigi_prune.compute.pruning.counting import (
    LayerBudget,
    calibration_size,
    count_flops,
    count_size,
    layer_budgets,
)
from luigi_prune.compute.pruning.lowrank import restore
from luigi_prune.compute.pruning.prune import PruningResult, prune

__all__ = [
    "LayerBudget",
    "PruningResult",
    "calibration_size",
    "count_flops",
    "count_size",
    "layer_budgets",
    "prune",
    "restore",
]
