"""Pruning a network: `prune` is the algorithm, `problem.records` holds the records that its parts exchange."""

from luigi_prune.compute.pruning.engine.pipeline import prune
from luigi_prune.compute.pruning.engine.pruning_result import PruningResult
from luigi_prune.compute.pruning.engine.redecompose import decompose_like
from luigi_prune.compute.pruning.engine.rules import find_rules
from luigi_prune.compute.pruning.low_rank import restore
from luigi_prune.compute.pruning.problem.layers import embeddings
from luigi_prune.compute.pruning.problem.records import Rules
from luigi_prune.compute.pruning.problem.weight_matrices import layer_masks
from luigi_prune.compute.pruning.sizes_and_flops import (
    LayerBudget,
    calibration_size,
    count_flops,
    count_products,
    count_size,
    layer_budgets,
)

__all__ = [
    "LayerBudget",
    "PruningResult",
    "Rules",
    "calibration_size",
    "count_flops",
    "count_products",
    "count_size",
    "decompose_like",
    "embeddings",
    "find_rules",
    "layer_budgets",
    "layer_masks",
    "prune",
    "restore",
]
